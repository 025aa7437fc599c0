"""What becomes of due times that nobody fired in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgsig.condition import missed, schedule
from pgsig.condition.missed import Gap, Settled

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURLY = schedule.build({"every": "1h"})
SECOND = timedelta(seconds=1)


def hour(ago: float) -> datetime:
    return NOON - timedelta(hours=ago)


def hours(*ago: float) -> tuple[datetime, ...]:
    return tuple(map(hour, ago))


def settled(how: str, since: datetime, now: datetime = NOON, every: str = "1h") -> Settled | None:
    return missed.settle(schedule.build({"every": every}), since, now, missed.policy(how))


@pytest.mark.parametrize(
    ("how", "ticks", "gap"),
    [
        ("none", (), (3, 1, 3)),
        ("latest", (1,), (3, 2, 2)),
        ("all", (3, 2, 1), None),
        ("all(2)", (2, 1), (3, 3, 1)),
    ],
)
def test_a_policy_decides_of_the_times_that_were_missed(
    how: str, ticks: tuple[int, ...], gap: tuple[int, int, int] | None
) -> None:
    since, now = NOON - timedelta(hours=3, minutes=30), NOON - timedelta(minutes=30)
    left_out = Gap(hour(gap[0]), hour(gap[1]), gap[2], "missed") if gap else None
    assert settled(how, since, now) == Settled(hours(*ticks), left_out, hour(1))


def test_a_time_that_is_not_missed_is_fired_whatever_the_policy() -> None:
    assert settled("none", hour(1), NOON + SECOND) == Settled((NOON,), None, NOON)
    assert settled("none", hour(3), NOON + SECOND) == Settled((NOON,), Gap(hour(2), hour(1), 2, "missed"), NOON)
    assert settled("latest", hour(3), NOON + SECOND) == Settled((NOON,), Gap(hour(2), hour(1), 2, "missed"), NOON)
    assert settled("all", hour(3), NOON + SECOND) == Settled(hours(2, 1, 0), None, NOON)


def test_nothing_is_due() -> None:
    assert settled("all", NOON, NOON + timedelta(minutes=30)) is None
    assert (
        missed.settle(schedule.build({"at": NOON.isoformat()}), NOON, NOON + timedelta(days=1), missed.policy("all"))
        is None
    )


def test_short_delays_lose_no_tick() -> None:
    found = settled("latest", NOON - 5 * SECOND, NOON, every="1s")
    assert found == Settled(tuple(NOON - n * SECOND for n in (4, 3, 2, 1, 0)), None, NOON)


def test_a_long_gap_is_not_counted() -> None:
    found = settled("latest", NOON - timedelta(days=30), NOON, every="1s")
    assert found is not None
    assert found.gap is not None
    assert (found.gap.times, found.gap.first) == (None, NOON - timedelta(days=30) + SECOND)
    assert found.ticks[0] == found.gap.last + SECOND


def test_every_time_is_a_tick_or_in_a_gap_whenever_it_is_looked_at() -> None:
    for how in ("none", "latest", "all(2)"):
        place, left_out = NOON, 0
        ticks: list[datetime] = []
        for minutes in (30, 61, 61.1, 400, 900, 901, 960.05, 3000):
            now = NOON + timedelta(minutes=minutes)
            found = missed.settle(HOURLY, place, now, missed.policy(how))
            if found is not None:
                ticks += found.ticks
                left_out += (found.gap.times or 0) if found.gap else 0
                place = found.until
        assert len(ticks) + left_out == 50
        assert ticks == sorted(set(ticks))


def test_jitter_is_the_same_for_everyone_and_spreads() -> None:
    found = [missed.jitter("7", NOON + n * timedelta(hours=1), 60) for n in range(1000)]
    assert found == [missed.jitter("7", NOON + n * timedelta(hours=1), 60) for n in range(1000)]
    assert found != [missed.jitter("8", NOON + n * timedelta(hours=1), 60) for n in range(1000)]
    assert all(timedelta(0) <= one < timedelta(seconds=60) for one in found)
    assert 25 < sum(one.total_seconds() for one in found) / 1000 < 35
    late = missed.jitter("7", NOON, 60)
    how = missed.policy("none")
    assert missed.settle(HOURLY, hour(0.5), NOON + late - SECOND / 10, how, seed="7", jitter_most=60) is None
    assert missed.settle(HOURLY, hour(0.5), NOON + late, how, seed="7", jitter_most=60) == Settled((NOON,), None, NOON)
