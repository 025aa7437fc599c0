"""DRAIN: a backlog of signals through one worker's engine: matched, decided, recorded. No other process is at work."""

from __future__ import annotations

import time
from typing import Any

from pgsig.engine import Engine
from pgsig.settings import Settings
from tests.bench.report import Report
from tests.bench.server import Server, connect
from tests.support_core import operator

# What a signal leads to: nothing; an action each, of a service that runs already; an action and a run each.
CASES: dict[str, tuple[str, Any, str]] = {
    "no rule interested": ("batch", {"signal": "other.key"}, "'s' || i"),
    "an action each": ("streaming", {"signal": "load"}, "'s' || i % 100"),
    "a run each": ("batch", {"signal": "load"}, "'s' || i"),
    "two terms, an action for two": ("streaming", {"all": [{"signal": "load"}, {"signal": "load2"}]}, "'s' || i % 100"),
}


def measure(server: Server, report: Report, *, rounds: int, backlog: int) -> None:
    batch = Settings().batch
    with server.database() as address, connect(address) as log:
        taken = [_take_only(log, address, backlog, batch) for _ in range(rounds)]
    report.figure("drain: take alone", taken, "signals/s")
    for name, (kind, condition, subject) in CASES.items():
        with server.database() as address, connect(address) as log:
            operator(log, "o", ("START", condition), kind=kind)
            found = []
            for _ in range(rounds):
                fill(log, backlog, subject)
                found.append(_drain(address, backlog, batch))
        report.figure(f"drain: {name}", found, "signals/s")


def fill(log: Any, backlog: int, subject: str = "''") -> None:
    keys = "CASE WHEN i % 200 < 100 THEN 'load' ELSE 'load2' END" if "%" in subject and "100" in subject else "'load'"
    log.execute(
        f"INSERT INTO pgsig.signals (key, subject) SELECT {keys}, {subject} FROM generate_series(1, {backlog}) i".encode()
    )
    log.execute("VACUUM ANALYZE pgsig.signals")


def _take_only(log: Any, address: str, backlog: int, batch: int) -> float:
    fill(log, backlog)
    with connect(address) as connection:
        begin, done = time.perf_counter(), 0
        while rows := connection.execute("SELECT * FROM pgsig_private.take(%s)", [batch]).fetchall():
            done += len(rows)
        assert done == backlog
        return done / (time.perf_counter() - begin)


def _drain(address: str, backlog: int, batch: int) -> float:
    with connect(address) as connection:
        engine = Engine(connection)
        begin, done = time.perf_counter(), 0
        while (step := engine.step(batch)).taken:
            done += step.taken
        assert done == backlog
        return done / (time.perf_counter() - begin)
