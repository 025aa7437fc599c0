"""THE MODEL of docs/scaling.md: what a signal costs in bytes of WAL, flushes and processor time.

Each step is measured by itself, worker and server apart. The model of one drain is the sum of both processor times and of the flushes of
its batches; it is checked against the clock of the same drain. On a machine that others use as well, the clock is behind.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pgsig.engine import Engine
from pgsig.settings import Settings
from tests.bench import drain
from tests.bench.report import Report
from tests.bench.server import Connection, Server, connect
from tests.support_core import operator

CASES = {"no rule interested": "batch", "an action each": "streaming", "a run each": "batch"}


@dataclass(frozen=True)
class Cost:
    """Of one signal. worker, server: µs of processor time. wal: bytes. wall: µs by the clock. batches: transactions a signal."""

    worker: float
    server: float
    wal: float
    wall: float
    batches: float

    def modelled(self, flush: float) -> float:
        """µs a signal when nothing overlaps and nobody else wants the cores. flush: µs of one."""
        return self.worker + self.server + self.batches * flush


def measure(server: Server, report: Report, *, rounds: int, backlog: int) -> None:
    with server.database() as address, connect(address) as log:
        flush = report.figure(
            "one flush (an empty transaction that writes)", [_flush(log) for _ in range(rounds)], "µs"
        )
        emit = [_emit(address, log, one_by_one=True, number=500) for _ in range(rounds)]
        bulk = [_emit(address, log, one_by_one=False, number=backlog) for _ in range(rounds)]
    _tell(report, "emit, a commit each", emit)
    _tell(report, "emit, in bulk", bulk)
    for name, kind in CASES.items():
        with server.database() as address, connect(address) as log:
            key = "other.key" if name == "no rule interested" else "load"
            operator(log, "o", ("START", {"signal": key}), kind=kind)
            found = []
            for turn in range(rounds):
                drain.fill(log, backlog, "'s' || i % 100" if kind == "streaming" else f"'{turn}-' || i")
                found.append(_drain(address, log, backlog))
        _tell(report, name, found)
        off = median(cost.wall / cost.modelled(flush) for cost in found)
        report.ratio(f"the model: measured / modelled time of a signal, {name}", off)


def _tell(report: Report, name: str, costs: list[Cost]) -> None:
    report.figure(f"{name}: WAL", [cost.wal for cost in costs], "bytes a signal")
    report.figure(f"{name}: client or worker", [cost.worker for cost in costs], "µs of processor a signal")
    report.figure(f"{name}: server", [cost.server for cost in costs], "µs of processor a signal")


def _drain(address: str, log: Connection, backlog: int) -> Cost:
    with connect(address) as connection:
        engine, steps, done = Engine(connection), 0, 0
        meter = _Meter(log, connection)
        while (step := engine.step(Settings().batch)).taken:
            done, steps = done + step.taken, steps + 1
        assert done == backlog
        return meter.cost(done, steps)


def _emit(address: str, log: Connection, *, one_by_one: bool, number: int) -> Cost:
    with connect(address) as connection:
        meter = _Meter(log, connection)
        if one_by_one:
            for i in range(number):
                connection.execute("SELECT pgsig.emit('model.trained', '{\"auc\": 0.9}', %s)", [f"s{i}"])
        else:
            drain_text = (
                "INSERT INTO pgsig.signals (key, subject, value) SELECT 'model.trained', 's' || i, '{\"auc\": 0.9}'"
            )
            connection.execute(f"{drain_text} FROM generate_series(1, {number}) i".encode())
        return meter.cost(number, number if one_by_one else 1)


def _flush(log: Connection) -> float:
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        log.execute("SELECT pg_logical_emit_message(true, 'bench', 'x')")
        times.append((time.perf_counter() - begin) * 1e6)
    return median(times)


class _Meter:
    """Clocks of this process and of one backend, and the place of the WAL."""

    def __init__(self, log: Connection, measured: Connection) -> None:
        self.log, self.pid = log, measured.info.backend_pid
        self.lsn = self._lsn()
        self.begin, self.worker, self.server = time.perf_counter(), time.process_time(), busy(self.pid)

    def cost(self, signals: int, steps: int) -> Cost:
        wall, worker, server = (
            time.perf_counter() - self.begin,
            time.process_time() - self.worker,
            busy(self.pid) - self.server,
        )
        row = self.log.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", [self.lsn]).fetchone()
        assert row is not None
        return Cost(
            worker / signals * 1e6,
            server / signals * 1e6,
            float(row[0]) / signals,
            wall / signals * 1e6,
            steps / signals,
        )

    def _lsn(self) -> str:
        row = self.log.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])


def busy(pid: int) -> float:
    """Seconds that the threads of a process have had a processor, by the scheduler's own clock, which knows nanoseconds."""
    tasks = Path("/proc", str(pid), "task").glob("*/schedstat")
    return sum(int(path.read_text(encoding="utf-8").split()[0]) for path in tasks) / 1e9
