"""A CLOCK: from the moment when a trigger is due until its tick is committed, with few triggers and with ten thousand.

One clock process; this process holds the bell, so that every commit of a tick rings it, and reads the ticks when it rings. Drift is how
much later ticks are at the end than at the beginning.
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

from tests.bench.report import Report, percentile
from tests.bench.server import Connection, Server, connect
from tests.support import wait_for
from tests.support_core import operator

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


def measure(server: Server, report: Report, *, seconds: float, many: int) -> None:
    """seconds: for which each part runs. many: triggers at once."""
    late = _lateness(server, [_every(1, n / 20) for n in range(20)], seconds)
    report.figure("due until its tick is committed, 20 a second: p50", [percentile(late, 0.5) * 1e3], "ms")
    report.figure("due until its tick is committed, 20 a second: p99", [percentile(late, 0.99) * 1e3], "ms")
    report.note(f"goal: p99 at most 50 ms; of {len(late)} ticks")

    late = _lateness(server, [_every(10, n * 10 / many) for n in range(many)], seconds + 10)
    quarter = len(late) // 4
    report.figure(f"{many} triggers, {many // 10} a second: p50", [percentile(late, 0.5) * 1e3], "ms")
    report.figure(f"{many} triggers, {many // 10} a second: p99", [percentile(late, 0.99) * 1e3], "ms")
    drift = percentile(late[-quarter:], 0.5) - percentile(late[:quarter], 0.5)
    report.figure(f"{many} triggers: later in the last quarter than in the first", [drift * 1e3], "ms")

    late = _lateness(server, [_every(10, 0.0) for _ in range(many)], seconds + 10, ready_within=60)
    report.figure(f"{many} triggers due at the same instant: until the last is committed", [max(late) * 1e3], "ms")


def _every(seconds: int, phase: float) -> str:
    anchor = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=phase)
    return json.dumps({"every": f"{seconds}s", "anchor": anchor.isoformat()})


def _lateness(server: Server, specs: list[str], seconds: float, ready_within: float = 0.5) -> list[float]:
    """How late each tick was committed, in seconds, in the order of the commits. Raises SystemExit if one is missing or there twice."""
    with server.database() as address, connect(address) as c, connect(address) as reader:
        c.execute(SAVE, [operator(c, "job"), specs])
        reader.execute("LISTEN pgsig_signals")
        reader.execute(BELL)
        with _clock(address, c):
            late, dues = _watch(reader, seconds, ready_within)
        rows = c.execute(
            "SELECT count(*), count(DISTINCT (trigger_id, due_at)) FROM pgsig_private.tick"
        ).fetchone() or (0, 0)
    if rows[0] != rows[1] or len(dues) < len(late):
        raise SystemExit(f"{rows[0]} ticks of {rows[1]} due times")
    return late


def _watch(reader: Connection, seconds: float, ready_within: float) -> tuple[list[float], set[tuple[str, str]]]:
    late: list[float] = []
    dues: set[tuple[str, str]] = set()
    end, seen, ready = time.time() + seconds, 0, False
    while time.time() < end:
        for _ in reader.notifies(timeout=0.5, stop_after=1):
            pass
        now = time.time()
        found = reader.execute(
            "SELECT id, source, value->>'due' FROM pgsig.signals WHERE id > %s AND kind = 'tick' ORDER BY id", [seen]
        ).fetchall()
        if found:
            seen = found[-1][0]
            here = [now - datetime.fromisoformat(due).timestamp() for _, _, due in found]
            ready = ready or max(here) < ready_within  # what was due while the clock got ready is not its doing
            if ready:
                late += here
                dues |= {(source, due) for _, source, due in found}
    return late, dues


@contextmanager
def _clock(address: str, connection: Connection) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", CLOCK], env={**os.environ, "DATABASE_URL": address})
    try:
        wait_for(lambda: connection.execute("SELECT 1 FROM pgsig_private.process WHERE role = 'clock'").fetchone(), 30)
        yield
    finally:
        process.terminate()
        process.wait(10)
