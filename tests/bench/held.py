"""HELD BACK: the same work while something else keeps the database from cleaning up, or a transaction from ending."""

from __future__ import annotations

import time

from tests.bench import drain, latency
from tests.bench.report import Report, paired, percentile
from tests.bench.server import Connection, Server, connect
from tests.support_core import operator, workers

# What is only inserted, and what changes a row that is there: of each, what a backlog of it consists of (see `drain.fill`).
KEPT = {
    "an action each": ("'s' || i % 100", "'load'"),
    "two terms, an action for two": ("'s' || i % 100", "CASE WHEN i % 200 < 100 THEN 'left' ELSE 'right' END"),
}


def snapshot(server: Server, report: Report, *, rounds: int, seconds: float, backlog: int) -> None:
    """Drain rates in turns, of a database in which a REPEATABLE READ snapshot is held under load for some time, and of one in which none is
    (a snapshot holds back its own database only). Nothing is truncated in between. What is compared is the last third of the time, when
    most has piled up: both have the same history by then. rounds: before it, not counted."""
    with server.database() as held_back, server.database() as free, connect(held_back) as log, connect(free) as other:
        for connection in (log, other):
            operator(connection, "o", ("START", {"signal": "load"}), kind="streaming")
            operator(connection, "p", ("START", {"all": [{"signal": "left"}, {"signal": "right"}]}), kind="streaming")

        def once(connection: Connection, address: str, name: str) -> float:
            drain.fill(connection, backlog, *KEPT[name])
            return drain.drain(address, backlog)

        for _ in range(rounds):
            for name in KEPT:
                once(log, held_back, name)
                once(other, free, name)
        with connect(held_back) as holder, holder.transaction():
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM pgsig_private.lane")
            begin = time.monotonic()
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in KEPT}
            while (since := time.monotonic() - begin) < seconds:
                for name, pairs in found.items():
                    pairs.append((since, once(log, held_back, name), once(other, free, name)))
    for name, pairs in found.items():
        last = [pair for pair in pairs if pair[0] > seconds * 2 / 3] or pairs[-1:]
        beside, without = [pair[1] for pair in last], [pair[2] for pair in last]
        report.figure(f"drain, {name}, after {seconds * 2 / 3:.0f} s of a held snapshot", beside, "a second")
        report.figure(f"drain, {name}, no snapshot held, the same history", without, "a second")
        report.ratio(
            f"drain, {name}, with a snapshot held for {seconds:.0f} s / without", paired(beside, without), "≥ 0.9"
        )
    drained = sum(map(len, found.values())) * backlog
    report.note(
        f"the snapshot was held for {seconds:.0f} s, while {drained:,} signals were emitted and drained in each database. An action of a"
        " service that runs already inserts rows; what waits for a second term is a row that changes with each batch."
    )


def open_writer(server: Server, report: Report, *, rounds: int, events: int) -> None:
    """Latency of others' signals while a transaction that has emitted stays open, and without it, in turns. A percentile is of the events
    of a round; what is compared are rounds."""
    with server.database() as address, connect(address) as a, connect(address) as c, connect(address) as writer:
        operator(a, "evaluate", ("START", {"signal": "model.trained"}))
        c.execute("LISTEN pgsig_runs")
        say = latency.emitter(a)
        free, beside = list[list[float]](), list[list[float]]()
        with workers(address):
            latency.listen(c, say, 20)
            for _ in range(rounds):
                free.append(latency.listen(c, say, events))
                with writer.transaction(force_rollback=True):
                    writer.execute("SELECT pgsig.emit('another.key')")
                    beside.append(latency.listen(c, say, events))
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        without, took = ([percentile(found, part) * 1e3 for found in side] for side in (free, beside))
        report.figure(f"commit to action, {name}", without, "ms")
        report.figure(f"commit to action, a writer open elsewhere, {name}", took, "ms")
        report.ratio(
            f"commit to action {name}: writer open elsewhere / none",
            paired(took, without),
            "≤ 1.2" if part > 0.9 else "",
        )
    report.note(f"percentiles of {events} events in each round; of fewer than 100 the p99 is the slowest.")
