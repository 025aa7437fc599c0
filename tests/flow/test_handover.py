"""A service that is restarted under load: no request fails. `make handovers` restarts it fifty times."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from tests import support_jobs as do
from tests.flow.test_replicas import order, walk
from tests.flow.workshop import Workshop
from tests.support import wait_for
from tests.support_jobs import Connection

RESTARTS = int(os.environ.get("PGSIG_HANDOVERS", "3"))
CALLERS, PAUSE = 2, 0.004  # how many ask, each with a new connection, so many seconds after the last answer
SLOW = 60


class Load:
    """A constant load on a port, from `start` to `stop`. failed: what went wrong, in words."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered, self.longest = 0, 0.0
        self.failed: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._over.wait(PAUSE):
            began = monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SLOW)
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                if answer.status != 200 or b"generation" not in answer.read():
                    self.failed.append(f"status {answer.status}")
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            finally:
                connection.close()
            self.longest = max(self.longest, monotonic() - began)


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with psycopg.connect(database, autocommit=True) as other:
        yield Workshop(connection, other)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays ours, and that a service can share."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_restarts_under_load_fail_no_request(shop: Workshop, database: str, tmp_path: Path, port: int) -> None:
    spec = {
        "command": [sys.executable, str(do.ROOT / "tests" / "jobs" / "service.py"), str(port)], "env": {"PYTHONPATH": str(do.ROOT)},
        "handover": "start_first", "ready": {"http": "http://127.0.0.1:{port}/", "every": "100ms", "timeout": "20s"},
    }  # fmt: skip
    shop.apply(serve={"streaming": spec})

    def serving(generation: int) -> bool:
        rows = shop.connection.execute(
            "SELECT generation FROM pgsig_private.run WHERE ready_at IS NOT NULL AND state = 'running'"
        ).fetchall()
        return rows == [(generation,)]

    with do.running(do.settings(database, tmp_path)):
        order(shop, "START")
        wait_for(lambda: serving(1), SLOW, about="the first one")
        with Load(port) as load:
            for number in range(RESTARTS):
                before = load.answered
                order(shop, "RESTART")
                wait_for(lambda number=number: serving(number + 2), SLOW, about=f"restart {number + 1}")  # type: ignore[misc]
                assert load.answered > before
        order(shop, "STOP")
        wait_for(lambda: not shop.call("SELECT count(*) FROM pgsig_private.run WHERE state <> 'stopped'"), SLOW)
    text = f"{RESTARTS} restarts, {load.answered} requests, {len(load.failed)} failed, the longest took {load.longest:.3f} s"
    print(text)
    assert load.failed == [], text
    alive, ready = walk(shop)
    assert max(alive) == max(ready) == 2
