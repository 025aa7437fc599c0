"""OLD AND LARGE: pages, lists and draining with a long history in the tables, and a large backlog before the worker."""

from __future__ import annotations

import time
from statistics import median

from pgsig.settings import Settings
from tests.bench import drain
from tests.bench.report import Report, paired
from tests.bench.server import Connection, Server, connect
from tests.support_core import one, operator
from tests.webapp import serving

PATHS = (
    "/", "/operators", "/operators/w/o1", "/processes", "/signals", "/signals?key=k7", "/signals?key=data.**", "/signals?subject=s7",
    "/signals/{signal}", "/actions", "/actions?operator=w.o1", "/actions?workflow=w", "/actions/{action}",
    "/runs", "/runs?state=failed", "/runs?state=running", "/runs?operator=w.o1", "/runs?workflow=w", "/storage", "/metrics",
    "/runs/{run}", "/api/v1/signals", "/api/v1/signals?key=k7", "/api/v1/signals?subject=s7", "/api/v1/signals/{signal}",
    "/api/v1/signals/{signal}/why", "/api/v1/actions", "/api/v1/runs", "/api/v1/runs?state=failed", "/api/v1/operators", "/api/v1/lag",
)  # fmt: skip
COMMITS = 40


def measure(server: Server, report: Report, *, rounds: int, signals: int, backlog: int, steady: int) -> None:
    with server.database() as old, server.database() as new, connect(old) as log, connect(new) as fresh:
        for connection in (log, fresh):
            operator(connection, "o1", ("START", {"signal": "load"}), kind="streaming")
        grow(log, signals)
        slowest = _pages(old, log, rounds, signals)
        drain.fill(log, backlog, "'s' || i % 100")
        # In turns, and in the middle of the large one the pages are asked for again.
        batch = Settings().batch
        part, half = backlog // rounds // batch * batch, rounds // 2 + 1
        large, usual, beside = list[float](), list[float](), list[tuple[float, str, list[float]]]()
        for number in range(rounds):
            drain.fill(fresh, steady, "'s' || i % 100")
            usual.append(drain.drain(new, steady))
            if number == half:
                beside = _pages(old, log, rounds, signals)
            rest = backlog - number * part
            large.append(drain.drain(old, rest, until=part if number < rounds - 1 else None))
    for name, pages in (
        (f"{signals:,} signals of history", slowest),
        (f"{half * part:,} of {backlog:,} signals of backlog evaluated", beside),
    ):
        for _, path, taken in pages:
            report.figure(f"GET {path}, {name}", taken, "ms")
        report.ratio(f"slowest of {len(PATHS)} pages and lists, {name}", pages[0][0], "≤ 200", "ms")
        report.note(f"{name}: the slowest is {pages[0][1]}; the first request of each is not counted.")
    report.figure(f"drain: parts of {backlog:,} of backlog, {signals:,} of history", large, "a second")
    report.figure(f"drain: {steady:,} of backlog, no history", usual, "a second")
    report.ratio(
        f"drain with {backlog:,} of backlog and {signals:,} of history / with neither", paired(large, usual), "≥ 0.9"
    )


def grow(connection: Connection, signals: int) -> None:
    """Evaluated signals of many transactions, with an outcome each, and a tenth as many actions and runs."""
    for number in range(20):
        operator(connection, f"p{number}", ("START", {"signal": f"k{number}"}))
    for _ in range(COMMITS):
        connection.execute(
            f"INSERT INTO pgsig.signals (key, subject, value) SELECT 'k' || i % 50, 's' || i % 1000, '{{\"auc\": 0.9}}'"
            f" FROM generate_series(1, {signals // COMMITS}) i".encode()
        )
    tenth = signals // 10
    connection.execute(
        "INSERT INTO pgsig_private.cursor (lane, seq, s1) SELECT lane, 2, pgsig_private.here() FROM pgsig_private.lane"
    )
    for statement in (
        "ALTER TABLE pgsig_private.run DISABLE TRIGGER USER",  # no run begins as an old one
        "INSERT INTO pgsig_private.outcome (signal_id, rule_id, outcome)"
        f" SELECT i, 1 + i % 20, 'superseded' FROM generate_series(1, {signals}) i WHERE i % 10 > 0",
        "INSERT INTO pgsig_private.action (id, operator_id, action, result, version, cause_id, rule_id, run_id, evidence, consumed)"
        f" SELECT nextval('pgsig_private.action_id'), 1 + i % 20, 'START', 'recorded', 1, i * 10, 1 + i % 20, i, ARRAY[i * 10], true"
        f" FROM generate_series(1, {tenth}) i",
        "INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth, state, ended_at, exit_code)"
        f" SELECT nextval('pgsig_private.run_id'), 1 + i % 20, 's' || i % 1000, i, 1, i, 1, CASE WHEN i % 97 = 0 THEN 'failed' ELSE"
        f" 'succeeded' END, now(), 0 FROM generate_series(1, {tenth}) i",
        "ALTER TABLE pgsig_private.run ENABLE TRIGGER USER",
        "VACUUM ANALYZE",
    ):
        connection.execute(statement.encode())


def _pages(address: str, log: Connection, rounds: int, signals: int) -> list[tuple[float, str, list[float]]]:
    """How long each takes, the slowest first: the median, its path, and all but the first request, in ms."""
    names = {
        "signal": one(log, "SELECT max(id) - 1000 FROM pgsig.signals"),
        "action": signals // 20,
        "run": signals // 20,
    }
    found: list[tuple[float, str, list[float]]] = []
    with serving(address) as client:
        for path in (text.format(**names) for text in PATHS):
            taken = []
            for _ in range(rounds + 1):
                begin = time.perf_counter()
                status = client.get(path).status_code
                taken.append((time.perf_counter() - begin) * 1e3)
                if status != 200:
                    raise SystemExit(f"{path} answered {status}")
            found.append((median(taken[1:]), path, taken[1:]))
    return sorted(found, reverse=True)
