"""APScheduler's trigger objects in the Python form: what they say is kept, and due when APScheduler itself says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from pgsig import Workflow, signal
from pgsig.condition import schedule
from pgsig.definition.apscheduler import imported, spec_of
from pgsig.errors import InvalidInput

START = datetime(2027, 1, 1, 12, tzinfo=UTC)


class EveryThirdHour(BaseTrigger):  # type: ignore[misc]
    """A trigger of the user's own, which needs no previous time."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        hours = int(now.timestamp() // 10800) + 1
        return datetime.fromtimestamp(hours * 10800, UTC)


class Stuck(EveryThirdHour):
    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return START - timedelta(days=1)


OWN = EveryThirdHour()


def by_apscheduler(trigger: Any, most: int) -> list[datetime]:
    """As APScheduler's scheduler asks: with the previous time. A combination of crons would then look for ever (3.11.3), and needs none."""
    found: list[datetime] = []
    previous, now = None, START
    combined = isinstance(trigger, AndTrigger | OrTrigger)
    while len(found) < most and (due := trigger.get_next_fire_time(None if combined else previous, now)) is not None:
        if due > START:
            found.append(due.astimezone(UTC))
        previous, now = due, max(now, due + timedelta(microseconds=1))
    return found


@pytest.mark.parametrize(
    "trigger",
    [
        CronTrigger(hour=2, minute="*/20", timezone="UTC"),
        CronTrigger(day="last fri", hour=3, timezone="Asia/Tokyo"),
        CronTrigger(year="2028", month="2", day="29", timezone="UTC"),
        CronTrigger(week="5", day_of_week="sun", hour=1, timezone="UTC"),
        CronTrigger(minute=5, timezone="UTC", start_date=datetime(2027, 2, 1, tzinfo=UTC), end_date=datetime(2027, 2, 2, tzinfo=UTC)),
        CronTrigger.from_crontab("0 5 1 * *", timezone="Asia/Tokyo"),
        IntervalTrigger(hours=7, start_date=datetime(2026, 12, 30, 1, tzinfo=UTC), timezone="UTC"),
        IntervalTrigger(days=2, start_date=datetime(2027, 3, 1, tzinfo=UTC), end_date=datetime(2027, 3, 20, tzinfo=UTC), timezone="UTC"),
        CalendarIntervalTrigger(months=1, hour=5, start_date="2027-01-31", timezone="UTC"),
        CalendarIntervalTrigger(weeks=2, minute=30, start_date="2027-01-04", end_date="2027-06-01", timezone="Asia/Tokyo"),
        DateTrigger(run_date=datetime(2027, 5, 5, 5, tzinfo=UTC)),
        AndTrigger([CronTrigger(day=1, hour=0, timezone="UTC"), CronTrigger(day_of_week="mon", hour=0, timezone="UTC")]),
        OrTrigger([CronTrigger(day=1, hour=0, timezone="UTC"), CronTrigger(day=15, hour=6, timezone="Asia/Tokyo")]),
    ],
    ids=lambda trigger: type(trigger).__name__,
)  # fmt: skip
def test_it_is_due_when_apscheduler_says_so(trigger: Any) -> None:
    spec = spec_of(trigger)
    assert schedule.problems(spec, "") == []
    expected = by_apscheduler(trigger, 8)
    assert expected
    times = schedule.build(spec)
    assert schedule.due_between(times, START, START + timedelta(days=3000), len(expected)) == expected


def test_an_interval_without_a_start_is_the_same_each_time_it_is_made() -> None:
    assert spec_of(IntervalTrigger(hours=2, timezone="UTC")) == {"every": "2h"}


def test_they_stand_alone_and_among_conditions() -> None:
    wf = Workflow("w")
    night = CronTrigger(hour=2, timezone="Europe/Berlin", jitter=30)
    wf.batch("a", command=["true"], start=night)
    wf.batch("b", command=["true"], start=[night & signal("ready"), signal("x") | night])
    operators = wf.as_document()["operators"]
    spec = {"cron": {"hour": "2"}, "tz": "Europe/Berlin", "jitter": "30s"}
    assert operators["a"]["start"] == spec
    assert operators["b"]["start"] == [{"all": [spec, {"signal": "ready"}]}, {"any": [{"signal": "x"}, spec]}]


@pytest.mark.parametrize(
    "trigger",
    [
        OWN,
        CalendarIntervalTrigger(months=1, days=1, start_date="2027-01-31", timezone="UTC"),
        OrTrigger([CronTrigger(hour=1, jitter=5, timezone="UTC"), CronTrigger(hour=2, timezone="UTC")]),
        OrTrigger([CronTrigger(hour=1, end_date=START, timezone="UTC"), CronTrigger(hour=2, timezone="UTC")]),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_what_cannot_be_stored_is_refused_with_a_way_out(trigger: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec_of(trigger)
    assert caught.value.code == "PS516"
    assert caught.value.problems[0].fix


def test_a_trigger_of_ones_own_is_named_and_imported_where_it_is_asked() -> None:
    spec = {"trigger": f"{__name__}:OWN"}
    assert schedule.problems(spec, "") == []
    with pytest.raises(ValueError, match="known to the clocks alone"):
        schedule.build(spec)
    times = schedule.build(spec, imported)
    assert times.next(START) == START + timedelta(hours=3)
    assert schedule.build({"trigger": f"{__name__}:EveryThirdHour"}, imported).next(START) == START + timedelta(hours=3)
    with pytest.raises(ValueError, match="is asked for what comes after"):
        schedule.build({"trigger": f"{__name__}:Stuck"}, imported).next(START)
    for target, said in (
        (f"{__name__}:NOTHING", "cannot be had"),
        ("no.such:thing", "cannot be had"),
        ("builtins:dict", "not an APScheduler trigger"),
    ):
        with pytest.raises(ValueError, match=said):
            imported(target)
