"""A runner's two connections: one works, one listens. Either lost, both are made anew."""

from __future__ import annotations

import contextlib

import psycopg

from pgsig.errors import SchemaMismatch, Unavailable
from pgsig.runner.waiting import Waker, readable
from pgsig.settings import Settings
from pgsig.store.database import Connection, connect
from pgsig.store.origin import foreign_origin

OUTAGE = (
    psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, Unavailable, SchemaMismatch, OSError,
)  # fmt: skip
RUNS, SIGNALS = "pgsig_runs", "pgsig_signals"


class Lines:
    """Open until `close`. Raises one of OUTAGE when the database cannot be reached, here and wherever `work` is used."""

    def __init__(self, settings: Settings, name: str) -> None:
        # LISTEN before anything is read: what is committed from now on cannot be missed by both.
        self._listener = connect(settings.direct_url, name=f"runner {name} listen")
        try:
            self._listener.execute(f"LISTEN {RUNS}")
            self._listener.execute(f"LISTEN {SIGNALS}")
            # A pooler between us and the server cannot keep prepared statements for us.
            pooled = bool(settings.listen_url) and settings.listen_url != settings.database_url
            self.work: Connection = connect(settings.database_url, name=f"runner {name}", pooled=pooled)
        except BaseException:
            self._listener.close()
            raise
        try:
            # Of a restored database that nobody has looked at yet, nothing is executed: the runs in it may be alive elsewhere.
            if (foreign := foreign_origin(self.work)) is not None:
                raise foreign
        except BaseException:
            self.close()
            raise

    def wait(self, waker: Waker, timeout: float) -> set[str]:
        """The channels on which something was said, as soon as that is so, or `waker` is woken, or `timeout` seconds are over."""
        ready = readable([self._listener.fileno(), waker.fileno()], timeout)
        if waker.fileno() in ready:
            waker.clear()
        if self._listener.fileno() not in ready:
            return set()
        return {notice.channel for notice in self._listener.notifies(timeout=0)}

    def close(self) -> None:
        for connection in (self.work, self._listener):
            with contextlib.suppress(psycopg.Error):
                connection.close()
