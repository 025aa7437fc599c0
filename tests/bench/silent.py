"""SILENT AND IDLE: how late a signal is when no NOTIFY arrives, and what a worker costs that has nothing to do."""

from __future__ import annotations

import random
import time
from pathlib import Path

from pgsig.settings import Settings
from tests.bench.model import busy
from tests.bench.report import Report, percentile
from tests.bench.server import Connection, Server, connect
from tests.support_core import one, operator, workers

POLL = Settings().poll_seconds
LATENESS = """
SELECT extract(epoch FROM x.recorded_at - s.emitted_at)::float8 FROM pgsig_private.action x JOIN pgsig.signals s ON s.id = x.cause_id
 WHERE x.cause_id > %s
"""


def dropped(server: Server, report: Report, *, rounds: int, events: int) -> None:
    """Emitters that never ring (`SET pgsig.bell = 'off'`): the worker's own poll finds the signal. The action's time of recording is
    compared with the signal's: one clock, the database's. events: of a round, at any moments of a poll and a half."""
    with server.database() as address, connect(address) as a:
        operator(a, "evaluate", ("START", {"signal": "model.trained"}))
        a.execute("SET pgsig.bell = 'off'")
        late: list[list[float]] = []
        with workers(address):
            for number in range(rounds):
                first = one(a, "SELECT coalesce(max(id), 0) FROM pgsig.signals")
                for event in range(events):
                    a.execute("SELECT pgsig.emit('model.trained', 'null', %s)", [f"s{number}-{event}"])
                    time.sleep(random.uniform(0, 3 * POLL / events))  # noqa: TID251 - time passes between signals
                deadline = time.monotonic() + 10 * POLL
                while len(found := a.execute(LATENESS, [first]).fetchall()) < events:
                    if time.monotonic() > deadline:
                        raise SystemExit("a signal was lost without NOTIFY")
                    time.sleep(0.05)  # noqa: TID251 - the benchmark looks on
                late.append([float(row[0]) for row in found])
    report.figure("no NOTIFY arrives: p50", [percentile(times, 0.5) for times in late], "s")
    p99 = report.pooled("no NOTIFY arrives: p99", late, 0.99, "s")
    report.ratio(f"no NOTIFY arrives, p99 (poll {POLL:g} s, goal poll + 0.5 s)", p99, f"≤ {POLL + 0.5:g}", "s")
    report.note(f"{rounds * events} signals, none lost.")


def cost(server: Server, report: Report, *, seconds: float, rounds: int) -> None:
    """Processor time and memory of an idle worker with its connections' backends, from /proc. Memory: the process as it is, and
    what backends have for themselves (shared buffers belong to the server)."""
    with server.database() as address, connect(address) as a:
        operator(a, "evaluate", ("START", {"signal": "model.trained"}))
        with workers(address) as (worker,):
            pids = [worker.process.pid, *_backends(a)]
            time.sleep(3)  # noqa: TID251 - until it has come to rest
            pids = [worker.process.pid, *_backends(a)]
            shares = []
            for _ in range(rounds):
                before, begin = sum(map(busy, pids)), time.monotonic()
                time.sleep(seconds)  # noqa: TID251 - idle is what is measured
                shares.append((sum(map(busy, pids)) - before) / (time.monotonic() - begin) * 100)
            process, *backends = pids
            memory = (
                _kib(process, "Rss"),
                sum(_kib(pid, "Private_Dirty") + _kib(pid, "Private_Clean") for pid in backends),
            )
            connections = len(backends)
    share = report.figure("idle worker: share of a core", shares, "%")
    report.figure("idle worker: memory of the process", [memory[0] / 1024], "MB")
    report.figure("idle worker: memory of its backends", [memory[1] / 1024], "MB")
    report.ratio("idle worker and its connections, share of a core", share, "≤ 1", "%")
    report.ratio("idle worker and its connections, memory", sum(memory) / 1024, "≤ 60", "MB")
    report.ratio("connections of a worker", connections, "≤ 2", "")


def _backends(connection: Connection) -> list[int]:
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgsig worker%' AND datname = current_database()"
    )
    return [int(row[0]) for row in rows]


def _kib(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:"))
