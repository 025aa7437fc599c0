"""The worker's end of the doorbell (the emitter's is `pgsig_private.ring` in `sql/api/10_emit.sql`).

NOTIFY takes a lock over the whole database until after the commit's fsync, so an emitter rings only while somebody
sleeps. Who wants to sleep takes the bell's lock exclusively, which says that no emitter is left that saw everybody awake,
and looks once more before it closes its eyes.
At low load the bell stays taken: each commit rings, and a wake-up costs no extra statement. Under load it is let go, and nobody rings.
Other idle workers listen too, and take the bell over when its holder is gone; with every NOTIFY lost, `wait` still ends within its time.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

import psycopg

from pgsig.errors import PgsigError
from pgsig.store.database import Connection, connect

BELL = (1885827945, 1000)
CHANNEL = "pgsig_signals"


class Doorbell:
    """A listening connection of its own. Reconnects by itself; while it cannot, `wait` only lets time pass."""

    def __init__(self, url: str, *, name: str) -> None:
        self._open: Callable[[], Connection] = lambda: connect(url, name=f"{name} (listen)")
        self._connection: Connection | None = None
        self._stopped_r, self._stopped_w = os.pipe()
        self.held = False
        self._rung = False

    @property
    def listening(self) -> bool:
        return self._connection is not None

    def arm(self) -> bool:
        """Try to hold the bell, so that emitters ring. True if it was not held before: look once more before waiting."""
        if self.held:
            return False
        connection = self._listen()
        if connection is None:
            return False
        try:
            self.held = bool(connection.execute("SELECT pg_try_advisory_lock(%s, %s)", BELL).fetchone()[0])  # type: ignore[index]
        except (psycopg.Error, PgsigError, OSError):
            self._lose()
        return self.held

    def disarm(self) -> None:
        """Let the bell go: this worker is awake and will look again by itself."""
        if self.held and self._connection is not None:
            self.held = False
            try:
                self._connection.execute("SELECT pg_advisory_unlock(%s, %s)", BELL)
            except (psycopg.Error, PgsigError, OSError):
                self._lose()

    def wait(self, seconds: float) -> bool:
        """Sleep until somebody rings, `wake` is called or the time is over. True if it may be worth looking."""
        deadline = time.monotonic() + seconds
        connection = self._listen()
        if connection is not None and self._drain(connection):
            return True
        files = [self._stopped_r] if self._connection is None else [self._stopped_r, self._connection.fileno()]
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(files, [], [], left)
            if self._stopped_r in ready:
                os.read(self._stopped_r, 4096)
                return True
            if ready and (self._connection is None or self._drain(self._connection)):
                return True
            if ready and self._connection is None:
                files = [self._stopped_r]
        return False

    def announce(self, channel: str) -> None:
        """NOTIFY from here, in a transaction of its own that has nothing to flush."""
        if self._connection is not None:
            try:
                self._connection.execute(f"NOTIFY {channel}")
            except (psycopg.Error, PgsigError, OSError):
                self._lose()

    def wake(self) -> None:
        """End a `wait` from another thread or a signal handler."""
        os.write(self._stopped_w, b".")

    def close(self) -> None:
        self._lose()
        os.close(self._stopped_r)
        os.close(self._stopped_w)

    def _listen(self) -> Connection | None:
        if self._connection is None:
            try:
                connection = self._open()
                # A ring that comes in while another statement runs on this connection is handed to handlers.
                connection.add_notify_handler(self._heard)
                connection.execute(f"LISTEN {CHANNEL}")
                self._connection = connection
            except (psycopg.Error, PgsigError, OSError):
                self._connection = None
        return self._connection

    def _heard(self, _: object) -> None:
        self._rung = True

    def _drain(self, connection: Connection) -> bool:
        """Read what has arrived without waiting. True if that was a ring, or the end of the connection."""
        try:
            connection.pgconn.consume_input()
            while connection.pgconn.notifies() is not None:
                self._rung = True
            rung, self._rung = self._rung, False
            return rung
        except (psycopg.Error, PgsigError, OSError):
            self._lose()
            return True

    def _lose(self) -> None:
        self.held = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
