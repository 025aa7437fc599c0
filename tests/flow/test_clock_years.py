"""Twenty operators, four clocks, four hundred days with two changes of clocks a zone, kills, pauses, steps of every clock there is:
each due time of an independent computation is one tick, or stands in a gap that says why."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from pgsig import clock
from pgsig.store.definitions import apply
from tests.flow.clock_years import BEGIN, NEVER, Years

DAYS = 400
SEEDS = [int(text) for text in os.environ.get("PGSIG_CLOCK_SEEDS", "1").split(",")]
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"

TRIGGERS = [
    {"cron": "30 2 * * *", "tz": BERLIN},
    {"cron": "15 2 * * mon-fri", "tz": NEW_YORK, "missed": "all"},
    {"calendar": "3 days", "anchor": "2026-09-21", "time": "02:30", "tz": BERLIN, "missed": "none"},
]


def daily(zone: str, hour: int, minute: int, on: Callable[[date], bool]) -> list[datetime]:
    """The instants of a local time on some days, by the rule of RFC 5545 that PEP 495 has too: fold=0."""
    found, day = [], BEGIN.date() - timedelta(days=2)
    while day < BEGIN.date() + timedelta(days=DAYS + 2):
        if on(day):
            local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(zone), fold=0)
            found.append(local.astimezone(UTC))
        day += timedelta(days=1)
    return [at for at in found if BEGIN < at <= BEGIN + timedelta(days=DAYS)]


EXPECTED = [
    daily(BERLIN, 2, 30, lambda day: True),
    daily(NEW_YORK, 2, 15, lambda day: day.weekday() < 5),
    daily(BERLIN, 2, 30, lambda day: (day - date(2026, 9, 21)).days % 3 == 0),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_each_due_time_is_one_tick_or_explained(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(clock, "RELOAD_EVERY", NEVER)
    operator = {"batch": {"command": ["true"]}, "start": TRIGGERS}
    apply(connection, {"workflow": "w", "operators": {f"o{n}": operator for n in range(20)}})
    connection.execute("UPDATE pgsig_private.trigger SET created_at = %s", [BEGIN])
    years = Years(connection, clocks=4, days=DAYS, seed=seed)
    years.run()
    years.finish()
    assert all(count > 5 for count in years.done.values()), years.done

    found = connection.execute("SELECT id, spec FROM pgsig_private.trigger").fetchall()
    assert len(found) == 60
    ticks: dict[int, list[datetime]] = {trigger: [] for trigger, _ in found}
    for trigger, due in connection.execute("SELECT trigger_id, due_at FROM pgsig_private.tick ORDER BY due_at"):
        ticks[trigger].append(due)
    gaps: dict[int, list[tuple[datetime, datetime, int]]] = {trigger: [] for trigger, _ in found}
    for trigger, *gap in connection.execute("SELECT trigger_id, first_due, last_due, times FROM pgsig_private.gap"):
        gaps[trigger].append(tuple(gap))
    for trigger, spec in found:
        n = next(n for n, given in enumerate(TRIGGERS) if given.items() <= {"missed": "latest", **spec}.items())
        left_out = {due for first, last, _ in gaps[trigger] for due in EXPECTED[n] if first <= due <= last}
        assert len(ticks[trigger]) == len(set(ticks[trigger]))
        assert sorted([*ticks[trigger], *left_out]) == EXPECTED[n]  # none twice, none in both, none in neither
        assert sum(times for *_, times in gaps[trigger]) == len(left_out)
        assert all(first in left_out and last in left_out for first, last, _ in gaps[trigger])
        if n == 1:
            assert not left_out
        if n == 0:  # the latest of those that were missed is fired: what follows a gap is a tick
            assert all(EXPECTED[n][EXPECTED[n].index(last) + 1] in ticks[trigger] for _, last, _ in gaps[trigger])
    # What the rules hear is the same: a signal for each tick, and no other.
    signals = connection.execute("SELECT count(*), count(DISTINCT (key, value)) FROM pgsig.signals WHERE kind = 'tick'")
    assert signals.fetchone() == (sum(map(len, ticks.values())),) * 2
    assert any(gaps.values())
