"""IDLE LATENCY: from the commit of a signal until its action is recorded, beside the least that two hops through Postgres can take.

Raw: A commits INSERT + NOTIFY; B, listening, wakes, does one transaction (select, insert, update) and NOTIFY; C, listening, wakes.
pgsig: A commits a signal; a worker with one operator whose rule it meets wakes and records action and run; C, listening for runs, wakes.
A and C are this process, B one of its own; both measure from before A's statement until C has the notification.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count

from tests.bench.report import Report, paired, percentile
from tests.bench.server import Connection, Server, connect
from tests.support_core import operator, workers

RAW = """
CREATE SCHEMA raw;
CREATE TABLE raw.signal (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body jsonb);
CREATE TABLE raw.action (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cause bigint);
CREATE TABLE raw.cursor (last bigint);
INSERT INTO raw.cursor VALUES (0);
"""

B = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    connection.execute("LISTEN raw_signals")
    print("ready", flush=True)
    while True:
        for _ in connection.notifies(stop_after=1):
            pass
        with connection.pipeline(), connection.transaction():
            rows = connection.execute("SELECT id FROM raw.signal WHERE id > (SELECT last FROM raw.cursor) ORDER BY id").fetchall()
            if rows:
                connection.execute("INSERT INTO raw.action (cause) SELECT unnest(%s::bigint[])", [[row[0] for row in rows]])
                connection.execute("UPDATE raw.cursor SET last = %s", [rows[-1][0]])
                connection.execute("NOTIFY raw_actions")
"""


def measure(server: Server, report: Report, *, rounds: int, events: int) -> None:
    with server.database() as address, connect(address) as a, connect(address) as c:
        a.execute(RAW.encode())
        operator(a, "evaluate", ("START", {"signal": "model.trained"}))
        hop = subprocess.Popen([sys.executable, "-c", B, address], stdout=subprocess.PIPE, text=True)
        try:
            assert hop.stdout is not None
            assert hop.stdout.readline() == "ready\n"
            for channel in ("raw_actions", "pgsig_runs"):
                c.execute(f"LISTEN {channel}".encode())
            with workers(address):
                raw, ours = _interleave(a, c, rounds, events)
        finally:
            hop.kill()
            hop.wait()
    limits, took = ([percentile(times, 0.5) for times in side] for side in (raw, ours))
    report.figure("two raw hops, p50", limits, "ms")
    report.figure("commit to action, p50", took, "ms")
    report.ratio("idle latency p50: pgsig / two raw hops", paired(took, limits), "≤ 1.5")
    limit = report.pooled("two raw hops, p99", raw, 0.99, "ms")
    slow = report.pooled("commit to action, p99", ours, 0.99, "ms")
    report.ratio("idle latency p99: pgsig / two raw hops", slow / limit, "≤ 3", events=rounds * events)


def emitter(a: Connection) -> Callable[[], None]:
    """A call that commits one signal, of a new subject each time."""
    subjects = count()

    def emit() -> None:
        a.execute("SELECT pgsig.emit('model.trained', '{\"auc\": 0.9}', %s)", [f"s{next(subjects)}"])

    return emit


def _interleave(a: Connection, c: Connection, rounds: int, events: int) -> tuple[list[list[float]], list[list[float]]]:
    """Milliseconds of each event of each round, raw and ours."""
    ours = emitter(a)

    def raw() -> None:
        a.execute(
            "WITH said AS (INSERT INTO raw.signal (body) VALUES ('{\"auc\": 0.9}')) SELECT pg_notify('raw_signals', '')"
        )

    for warm_up in (raw, ours):
        listen(c, warm_up, 20)
    found: tuple[list[list[float]], list[list[float]]] = ([], [])
    for _ in range(rounds):
        for call, into in zip((raw, ours), found, strict=True):
            into.append([seconds * 1e3 for seconds in listen(c, call, events)])
    return found


def listen(c: Connection, call: Callable[[], None], events: int) -> list[float]:
    """The seconds from before each call until c hears of what it led to."""
    times = []
    for _ in range(events):
        time.sleep(random.uniform(0.045, 0.065))  # noqa: TID251 - idle means that nothing is going on
        begin = time.perf_counter()
        call()
        if next(iter(c.notifies(timeout=5, stop_after=1)), None) is None:
            raise SystemExit("nothing was recorded within 5 s")
        times.append(time.perf_counter() - begin)
    return times
