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
BOTH = "CASE WHEN i % 200 < 100 THEN 'load' ELSE 'load2' END"
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
    report.figure("drain: take alone", taken, "a second")
    for name, (kind, condition, subject) in CASES.items():
        with server.database() as address, connect(address) as log:
            operator(log, "o", ("START", condition), kind=kind)
            found = []
            for _ in range(rounds):
                fill(log, backlog, subject, BOTH if "two terms" in name else "'load'")
                found.append(drain(address, backlog, batch))
        report.figure(f"drain: {name}", found, "a second")


def fill(log: Any, backlog: int, subject: str = "''", key: str = "'load'") -> None:
    """A backlog in one commit. subject, key: SQL expressions of the signal's number i."""
    log.execute(
        f"INSERT INTO pgsig.signals (key, subject) SELECT {key}, {subject} FROM generate_series(1, {backlog}) i".encode()
    )
    log.execute("VACUUM ANALYZE pgsig_private.signal")


def _take_only(log: Any, address: str, backlog: int, batch: int) -> float:
    fill(log, backlog)
    with connect(address) as connection:
        begin, done = time.perf_counter(), 0
        while rows := connection.execute("SELECT * FROM pgsig_private.take(%s)", [batch]).fetchall():
            done += len(rows)
        assert done == backlog
        return done / (time.perf_counter() - begin)


def drain(address: str, backlog: int, batch: int = Settings().batch, *, until: int | None = None) -> float:
    """Signals a second of one engine, alone, until nothing is left, or so many are done."""
    with connect(address) as connection:
        engine = Engine(connection)
        begin, done = time.perf_counter(), 0
        while (until is None or done < until) and (step := engine.step(batch)).taken:
            done += step.taken
        took = time.perf_counter() - begin
        assert done == backlog if until is None else done >= until
        return done / took
