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
CHANGED = (
    "SELECT 1 FROM pgsig.signals WHERE kind = 'tick' AND key = 'tick.changed.o' AND (value->>'due')::timestamptz = %s"
)
MISSING = """
    SELECT coalesce(sum((last - first) / length + 1 - dues), 0)::int, coalesce(sum(ticks - dues), 0)::int FROM (
        SELECT extract(epoch FROM min(due)) AS first, extract(epoch FROM max(due)) AS last, count(*) AS ticks,
               count(DISTINCT due) AS dues, extract(epoch FROM (t.spec->>'every')::interval) AS length
          FROM pgsig.signals s, LATERAL (SELECT (s.value->>'due')::timestamptz AS due) d, pgsig_private.trigger t
         WHERE s.kind = 'tick' AND 'trigger:' || t.name = s.source AND t.spec ? 'every'
         GROUP BY t.id) x
"""
CHANGED = "SELECT 1 FROM pgsig.signals WHERE kind = 'tick' AND key = 'tick.changed.o' AND id > %s LIMIT 1"


def measure(server: Server, report: Report, *, seconds: float, many: int, changes: int) -> None:
    """seconds: for which each part runs. many: triggers at once. changes: applies, each with a trigger that is due at once."""
    late = _lateness(server, [_every(1, n / PER_SECOND) for n in range(PER_SECOND)], seconds)
    p99 = _figures(report, f"due until its tick is committed, {PER_SECOND} a second", late)
    report.ratio("due until its tick is committed, idle, p99", p99, "≤ 50", "ms")

    with _clock_of(server, [_every(10, n * 10 / many) for n in range(many)]) as (address, reader):
        late = _watch(reader, 2 * seconds)
        p99 = _figures(report, f"{many:,} triggers, {many // 10:,} a second", late)
        quarter = len(late) // 4
        # By the fastest tenth: what falls behind is late with all of them, a burst of the machine's with some.
        drift = percentile(late[-quarter:], 0.1) - percentile(late[:quarter], 0.1)
        report.ratio(f"due until its tick is committed, {many:,} triggers, p99", p99, "≤ 50", "ms")
        report.ratio(f"drift of {many:,} triggers: last quarter later than the first", drift * 1e3, "≤ 5", "ms")
        waits = [_change(address, reader, n) for n in range(changes)]
    report.figure(f"a changed trigger beside {many:,} is in force: p50", [percentile(waits, 0.5) * 1e3], "ms")
    report.ratio(f"a changed trigger beside {many:,} is in force, slowest of {changes}", max(waits), "≤ 1", "s")

    late = _lateness(server, [_every(6, 0.0) for _ in range(many)], max(seconds, 7))
    report.figure(f"{many:,} triggers due at the same instant: until the last is committed", [max(late) * 1e3], "ms")


def _figures(report: Report, name: str, late: list[float]) -> float:
    """Its p99, in ms."""
    report.figure(f"{name}: p50", [percentile(late, 0.5) * 1e3], "ms")
    report.figure(f"{name}: slowest", [max(late) * 1e3], "ms")
    report.note(f"{name}: {len(late):,} ticks, none missing, none twice")
    return report.figure(f"{name}: p99", [percentile(late, 0.99) * 1e3], "ms")


def _every(seconds: int, phase: float) -> str:
    anchor = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=phase)
    return json.dumps({"every": f"{seconds}s", "anchor": anchor.isoformat()})


def _lateness(server: Server, specs: list[str], seconds: float) -> list[float]:
    with _clock_of(server, specs) as (_, reader):
        return _watch(reader, seconds)


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


def _watch(reader: Connection, seconds: float) -> list[float]:
    """How late each tick of the times due from now on was committed, in seconds, in the order of the commits.

    Raises SystemExit if a due time has none, or two.
    """
    begin, late, seen = time.time(), [], 0
    while time.time() < begin + seconds:
        _ring(reader)
        now = time.time()
        found = reader.execute(TICKS, [seen]).fetchall()
        seen = found[-1][0] if found else seen
        late += [now - due for _, due in found if due >= begin]
    missing, twice = reader.execute(MISSING).fetchone() or (0, 0)
    if missing or twice:
        raise SystemExit(f"{missing} due times without a tick, {twice} with two")
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
