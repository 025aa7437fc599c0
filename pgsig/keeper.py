"""A worker's housekeeping: a thread that opens a connection now and then, and closes it again.

Beside the worker's own loop, so that no signal waits for it: a partition that is to go may have to wait for others' transactions.
"""

from __future__ import annotations

import logging
import random
import threading

import psycopg

from pgsig.errors import PgsigError
from pgsig.store.database import Connection, connect
from pgsig.store.housekeeping import Progress, look_after

log = logging.getLogger("pgsig.keeper")

EVERY = 300.0  # seconds between two turns, at most
FIRST_PAUSE = 5.0  # seconds after a turn that failed, doubled each time up to EVERY


class Keeper:
    """Works from `start` to `stop`. Of all keepers of a database one at a time does something. It bears a database that is away."""

    def __init__(self, url: str, name: str, *, every: float = EVERY) -> None:
        self._url, self._name, self._every = url, name, every
        self._progress = Progress()
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="pgsig keeper", daemon=True)

    @property
    def started(self) -> bool:
        return self._thread.ident is not None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the turn at its next step, and return when it has ended."""
        self._stop.set()
        with self._guard:
            if self._connection is not None:
                self._connection.cancel_safe(timeout=2)
        if self.started:
            self._thread.join(5)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            try:
                self._turn()
                pause = self._every
            except (PgsigError, psycopg.Error) as error:
                if not self._stop.is_set():
                    log.warning("housekeeping of %s: %s", self._name, str(error).strip().partition("\n")[0])
                pause = min(self._every, pause * 2)
            self._stop.wait(pause * random.uniform(0.8, 1.0))  # noqa: S311 - jitter, no secret

    def _turn(self) -> None:
        with connect(self._url, name=f"{self._name} (housekeeping)") as connection:
            with self._guard:
                self._connection = connection
            try:
                for partition in look_after(connection, self._progress, self._stop.wait):
                    log.info("partition %s is past retention: dropped", partition)
            finally:
                with self._guard:
                    self._connection = None
