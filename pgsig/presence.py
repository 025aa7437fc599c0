"""The web process among the living: a row that a thread keeps up, over a connection that it opens for each beat and closes again."""

from __future__ import annotations

import logging
import os
import socket
import threading

import psycopg

from pgsig import __version__
from pgsig.errors import PgsigError
from pgsig.store import processes
from pgsig.store.database import connect

logger = logging.getLogger(__name__)

LEASE = 60.0  # seconds after which one that is not heard of counts as gone
BEAT = LEASE / 3


class Presence:
    """Begins with `start`, ends with `stop`, which takes the row off the list of the living. It bears a database that is away."""

    def __init__(self, url: str, role: str = "web") -> None:
        self._url, self._role = url, role
        self._process: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pgsig presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._say(leaving=False)
            self._stop.wait(BEAT)
        if self._process is not None:
            self._say(leaving=True)

    def _say(self, *, leaving: bool) -> None:
        try:
            with connect(self._url, name=f"{self._role} presence", connect_timeout="3") as connection:
                if leaving and self._process is not None:
                    processes.leave(connection, self._process)
                elif self._process is None or not processes.renew(connection, self._process, lease=LEASE):
                    name = f"{socket.gethostname()}:{os.getpid()}"
                    self._process = processes.join(connection, self._role, name, __version__, lease=LEASE)
        except (PgsigError, psycopg.Error) as error:
            logger.info("the %s process cannot be announced: %s", self._role, error)
