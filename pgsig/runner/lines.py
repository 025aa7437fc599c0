"""A runner's line to the database: it works over it and listens on it. Lost, it is made anew."""

from __future__ import annotations

import contextlib

import psycopg

from pgsig.errors import SchemaMismatch, Unavailable
from pgsig.runner.waiting import Waker, readable
from pgsig.settings import Settings
from pgsig.store.database import connect
from pgsig.store.origin import foreign_origin

OUTAGE = (
    psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, Unavailable, SchemaMismatch, OSError,
)  # fmt: skip
RUNS, SIGNALS, CHANGES = "pgsig_runs", "pgsig_signals", "pgsig_changes"
# Emitters ring only while every worker sleeps; one that is awake announces what it took. To a job both mean the same.
OF_SIGNALS = (SIGNALS, CHANGES)
QUEUED = "queued"  # what is said on RUNS where there is nothing but new runs


class Lines:
    """Open until `close`. Raises one of OUTAGE when the database cannot be reached, here and wherever `work` is used.

    One connection does both: the server process that woke up to pass a notification on is the one that answers what is asked next. Only
    a pooler, behind which nothing can be listened to, makes it two.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._said: set[tuple[str, str]] = set()
        self.hears_signals = False
        # LISTEN before anything is read: what is committed from now on cannot be missed by both.
        self._listener = self.work = connect(settings.direct_url, name=f"runner {name}")
        try:
            self._listener.execute(f"LISTEN {RUNS}")
            # What comes in beside the answer of a statement.
            self._listener.add_notify_handler(lambda notice: self._hear(notice.channel, notice.payload))
            if settings.listen_url and settings.listen_url != settings.database_url:
                # A pooler between us and the server cannot keep prepared statements for us.
                self.work = connect(settings.database_url, name=f"runner {name} work", pooled=True)
            # Of a restored database that nobody has looked at yet, nothing is executed: the runs in it may be alive elsewhere.
            if (foreign := foreign_origin(self.work)) is not None:
                raise foreign
        except BaseException:
            self.close()
            raise

    def wait(self, waker: Waker, timeout: float) -> set[tuple[str, str]]:
        """What was said, by channel, as soon as that is so, or `waker` is woken, or `timeout` seconds are over."""
        self._collect()
        if not self._said:
            ready = readable([self._listener.fileno(), waker.fileno()], timeout)
            if waker.fileno() in ready:
                waker.clear()
            if self._listener.fileno() in ready:
                self._listener.pgconn.consume_input()
                self._collect()
        said, self._said = self._said, set()
        return said

    def listen(self, to_signals: bool) -> None:
        """Whether it is heard, from here on, that there are signals: as SIGNALS, whoever says so."""
        if to_signals != self.hears_signals:
            for channel in OF_SIGNALS:
                self._listener.execute(f"{'LISTEN' if to_signals else 'UNLISTEN'} {channel}".encode())
            self.hears_signals = to_signals

    def _collect(self) -> None:
        while notice := self._listener.pgconn.notifies():
            self._hear(notice.relname.decode(), notice.extra.decode())

    def _hear(self, channel: str, what: str) -> None:
        self._said.add((SIGNALS if channel in OF_SIGNALS else channel, what))

    def close(self) -> None:
        for connection in (self.work, self._listener):
            with contextlib.suppress(psycopg.Error):
                connection.close()
