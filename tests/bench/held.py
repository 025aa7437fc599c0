"""HELD BACK: the same work while something else keeps the database from cleaning up, or a transaction from ending."""

from __future__ import annotations

import time
from statistics import median

from tests.bench import drain, latency
from tests.bench.report import Report, percentile
from tests.bench.server import Server, connect
from tests.support_core import operator, workers


def snapshot(server: Server, report: Report, *, rounds: int, seconds: float, backlog: int) -> None:
    """Drain rates before, and while a REPEATABLE READ snapshot is held under load for some time. Nothing is truncated in between. What
    is compared is the median before with the median of the last third of the time, when most has piled up."""
    with server.database() as address, connect(address) as log:
        operator(log, "o", ("START", {"signal": "load"}), kind="streaming")

        def once() -> float:
            drain.fill(log, backlog, "'s' || i % 100")
            return drain.drain(address, backlog)

        once()
        before = [once() for _ in range(rounds)]
        with connect(address) as holder, holder.transaction():
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM pgsig_private.lane")
            begin, held = time.monotonic(), list[tuple[float, float]]()
            while (since := time.monotonic() - begin) < seconds:
                held.append((since, once()))
    last = [rate for since, rate in held if since > seconds * 2 / 3] or [held[-1][1]]
    report.figure("drain, no snapshot held", before, "a second")
    report.figure(f"drain, after {seconds * 2 / 3:.0f} s of a held snapshot", last, "a second")
    report.ratio(f"drain with a snapshot held for {seconds:.0f} s / without", median(last) / median(before), "≥ 0.9")
    report.note(
        f"the snapshot was held for {seconds:.0f} s, while {len(held) * backlog:,} signals were emitted and drained."
    )


def open_writer(server: Server, report: Report, *, rounds: int, events: int) -> None:
    """Latency of others' signals while a transaction that has emitted stays open, and without it, in turns."""
    with server.database() as address, connect(address) as a, connect(address) as c, connect(address) as writer:
        operator(a, "evaluate", ("START", {"signal": "model.trained"}))
        c.execute("LISTEN pgsig_runs")
        say = latency.emitter(a)
        free, beside = list[float](), list[float]()
        with workers(address):
            latency.listen(c, say, 20)
            for _ in range(rounds):
                free += latency.listen(c, say, events)
                with writer.transaction(force_rollback=True):
                    writer.execute("SELECT pgsig.emit('another.key')")
                    beside += latency.listen(c, say, events)
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        without = report.figure(f"commit to action, {name}", [percentile(free, part) * 1e3], "ms")
        took = report.figure(
            f"commit to action, a writer open elsewhere, {name}", [percentile(beside, part) * 1e3], "ms"
        )
        report.ratio(
            f"commit to action {name}: writer open elsewhere / none", took / without, "≤ 1.2" if part > 0.9 else ""
        )
    report.note(f"percentiles of {len(free)} events each.")
