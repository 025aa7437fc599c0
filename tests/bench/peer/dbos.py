"""DBOS: a durable workflow without steps, from a queue. It looks for work every second, or as often as BENCH_DBOS_POLL says."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, DBOSClient

from tests.bench.peer import main, now, pause, say

POLL = float(os.environ.get("BENCH_DBOS_POLL", "1.0"))
PATIENCE = 300


def _client(address: str) -> DBOSClient:
    client = DBOSClient(system_database_url=address)
    client.register_queue("queue", polling_interval_sec=POLL)
    return client


def _enqueue(client: DBOSClient, at: float) -> None:
    client.enqueue({"workflow_name": "noop", "queue_name": "queue", "app_version": "1"}, at)


def _launch(address: str, number: int, found: list[float]) -> threading.Event:
    ended = threading.Event()
    DBOS(config={
        "name": "bench", "system_database_url": address, "application_version": "1", "log_level": "ERROR",
        "run_migrations": True,
    })  # fmt: skip

    @DBOS.workflow(name="noop")
    def noop(at: float) -> None:
        found.append(now() - at)
        if len(found) >= number:
            ended.set()

    DBOS.launch()
    DBOS.register_queue("queue", polling_interval_sec=POLL)
    return ended


def _install(address: str, _: int) -> None:
    _launch(address, 1, [])
    DBOS.destroy()


def _fill(address: str, number: int) -> None:
    client = _client(address)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _enqueue(client, 0.0), range(number)))
    client.destroy()


def _drain(address: str, number: int) -> float:
    found: list[float] = []
    ended = _launch(address, number, found)
    assert ended.wait(PATIENCE)
    took = time.time() - found[0]  # enqueued at 0: the time at which the first began
    DBOS.destroy()
    return took


def _work(address: str, number: int) -> list[float]:
    found: list[float] = []
    ended = _launch(address, number, found)
    say("ready")
    assert ended.wait(PATIENCE)
    DBOS.destroy()
    return found


def _send(address: str, number: int) -> None:
    client = _client(address)
    waiting = threading.Event()
    for _ in range(number):
        waiting.wait(pause())
        _enqueue(client, now())
    client.destroy()


if __name__ == "__main__":
    main({"install": _install, "fill": _fill, "drain": _drain, "work": _work, "send": _send})
