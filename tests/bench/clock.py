"""A CLOCK: from the moment when a trigger is due until its tick is committed, with few triggers and with ten thousand; and from the
commit of a change until it is in force.

One clock process; this process holds the bell, so that every commit of a tick rings it, and reads the ticks when it rings: a lateness
has a ring and a read in it. Every time counts that was due after the clock's first tick: what fell due while its process started is the
start's. Drift is how much later ticks are at the end than at the beginning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pgsig.store.definitions import apply
from tests.bench.report import Report, percentile
from tests.bench.server import Connection, Server, connect
from tests.support import wait_for
from tests.support_core import operator

PER_SECOND = 20
PERIOD = 3  # seconds: several times what it takes when all are due at once
PATIENCE = 30  # seconds, until a clock is past the last round
CLOCK = """
import signal
from pgsig.clock import Clock
from pgsig.settings import Settings
clock = Clock(Settings.from_env())
signal.signal(signal.SIGTERM, lambda *_: clock.stop())
clock.run()
"""
BELL = "SELECT pg_advisory_lock(1885827945, 1000)"
SAVE = """
    INSERT INTO pgsig_private.trigger (operator_id, name, spec)
    SELECT %s, 'every-' || n, s FROM unnest(%s::jsonb[]) WITH ORDINALITY u(s, n)
"""
TICKS = """
    SELECT id, extract(epoch FROM (value->>'due')::timestamptz)::float8 FROM pgsig.signals WHERE id > %s AND kind = 'tick' ORDER BY id
"""
MISSING = """
    SELECT coalesce(sum((last - first) / length + 1 - dues), 0)::int, coalesce(sum(ticks - dues), 0)::int FROM (
        SELECT extract(epoch FROM min(due)) AS first, extract(epoch FROM max(due)) AS last, count(*) AS ticks,
               count(DISTINCT due) AS dues, extract(epoch FROM (t.spec->>'every')::interval) AS length
          FROM pgsig.signals s, LATERAL (SELECT (s.value->>'due')::timestamptz AS due) d, pgsig_private.trigger t
         WHERE s.kind = 'tick' AND 'trigger:' || t.name = s.source AND t.spec ? 'every'
         GROUP BY t.id) x
"""
CHANGED = "SELECT 1 FROM pgsig.signals WHERE kind = 'tick' AND key = 'tick.changed.o' AND id > %s LIMIT 1"


def measure(
    server: Server, report: Report, *, rounds: int, seconds: float, many: int, changes: int, instants: int
) -> None:
    """seconds: of a round, in which a clock is watched. many: triggers at once. changes: applies, each with a trigger that is due soon.
    instants: rounds in which all are due at once."""
    with _clock_of(server, [_every(1, n / PER_SECOND) for n in range(PER_SECOND)]) as (_, reader):
        late = _watch(reader, rounds, seconds)
    p99 = _figures(report, f"due until its tick is committed, {PER_SECOND} a second", late)
    report.ratio("due until its tick is committed, idle, p99", p99, "≤ 50", "ms")

    with _clock_of(server, [_every(10, n * 10 / many) for n in range(many)]) as (address, reader):
        late = _watch(reader, rounds, 1.5 * seconds)
        waits = [_change(address, reader, n) for n in range(changes)]
    p99 = _figures(report, f"{many:,} triggers, {many // 10:,} a second", late)
    report.ratio(f"due until its tick is committed, {many:,} triggers, p99", p99, "≤ 50", "ms")
    every = [tick for found in late for tick in found]
    quarter = len(every) // 4
    # By the fastest tenth: what falls behind is late with all of them, a burst of the machine's with some.
    drift = percentile(every[-quarter:], 0.1) - percentile(every[:quarter], 0.1)
    report.ratio(
        f"drift of {many:,} triggers: last quarter later than the first", drift, "≤ 5", "ms", events=len(every)
    )
    report.figure(f"a changed trigger beside {many:,} is in force", waits, "s")
    report.ratio(
        f"a changed trigger beside {many:,} is in force, slowest of {changes}", max(waits), "≤ 1", "s", events=changes
    )

    with _clock_of(server, [_every(PERIOD, 0.0) for _ in range(many)]) as (_, reader):
        late = _watch(reader, instants, PERIOD)
    report.figure(
        f"{many:,} triggers due at the same instant: until the last is committed", [max(found) for found in late], "ms"
    )


def _figures(report: Report, name: str, late: list[list[float]]) -> float:
    """Its p99, in ms."""
    report.figure(f"{name}: p50", [percentile(found, 0.5) for found in late], "ms")
    report.pooled(f"{name}: slowest", late, 1, "ms")
    report.note(f"{name}: {sum(map(len, late)):,} ticks, none missing, none twice")
    return report.pooled(f"{name}: p99", late, 0.99, "ms")


def _every(seconds: int, phase: float) -> str:
    anchor = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=phase)
    return json.dumps({"every": f"{seconds}s", "anchor": anchor.isoformat()})


@contextmanager
def _clock_of(server: Server, specs: list[str]) -> Iterator[tuple[str, Connection]]:
    """A clock that has these triggers and has said its first tick; the address, and a connection that holds the bell."""
    with server.database() as address, connect(address) as c, connect(address) as reader:
        first = json.dumps({"at": (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()})
        c.execute(SAVE, [operator(c, "job"), [first, *specs]])
        reader.execute("LISTEN pgsig_signals")
        reader.execute(BELL)
        with _clock(address):
            wait_for(lambda: c.execute("SELECT 1 FROM pgsig_private.tick LIMIT 1").fetchone(), 30)
            yield address, reader


def _watch(reader: Connection, rounds: int, seconds: float) -> list[list[float]]:
    """How late each tick of the times due from now on was committed, in ms, in the order of the commits; of each part of the time.

    Raises SystemExit if a due time has none, or two.
    """
    begin, seen, last = time.time(), 0, 0.0
    late: list[list[float]] = [[] for _ in range(rounds)]
    while last < begin + rounds * seconds:  # not by this process's clock: what is late is counted
        if time.time() > begin + rounds * seconds + PATIENCE:
            raise SystemExit(f"the clock is more than {PATIENCE} s late")
        _ring(reader)
        now = time.time()
        for number, due in reader.execute(TICKS, [seen]).fetchall():
            seen = number
            last = max(last, due)
            if 0 <= due - begin < rounds * seconds:
                late[min(rounds - 1, int((due - begin) / seconds))].append((now - due) * 1e3)
    missing, twice = reader.execute(MISSING).fetchone() or (0, 0)
    if missing or twice:
        raise SystemExit(f"{missing} due times without a tick, {twice} with two")
    if not all(late):
        raise SystemExit(f"no tick came in some of the rounds of {seconds:g} s")
    return late


def _change(address: str, reader: Connection, number: int) -> float:
    """Seconds from the commit of a change until a tick comes of it. What is new in it is due every 25 ms."""
    last = (reader.execute("SELECT max(id) FROM pgsig.signals").fetchone() or (0,))[0]
    start = datetime.now(UTC)
    dues = [{"at": (start + timedelta(milliseconds=25 * n)).isoformat()} for n in range(100)]
    with connect(address) as c:
        apply(c, {"workflow": "changed", "operators": {"o": {"batch": {"command": ["true"]}, "start": dues}}})
    committed = time.time()
    while time.time() < committed + 10:
        _ring(reader)
        now = time.time()
        if reader.execute(CHANGED, [last]).fetchone():
            return now - committed
    raise SystemExit(f"change {number} was not in force within 10 s")


def _ring(reader: Connection) -> None:
    """Wait for the bell, half a second at most."""
    for _ in reader.notifies(timeout=0.5, stop_after=1):
        pass


@contextmanager
def _clock(address: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", CLOCK], env={**os.environ, "DATABASE_URL": address})
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
