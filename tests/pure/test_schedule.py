"""Due times, compared with a computation that knows nothing of how they are found: every minute of a stretch of time is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pgsig.condition import schedule
from pgsig.condition.words import words

MINUTE = timedelta(minutes=1)
# Changes of clocks: both of a year, one by half an hour, one that leaves out a whole day, and a zone without any.
STRETCHES = [
    ("Europe/Berlin", "2027-03-27T20:00"),
    ("Europe/Berlin", "2026-10-24T20:00"),
    ("America/New_York", "2027-03-13T20:00"),
    ("America/New_York", "2026-10-31T20:00"),
    ("Australia/Lord_Howe", "2026-10-03T08:00"),
    ("Australia/Lord_Howe", "2027-04-03T08:00"),
    ("Pacific/Apia", "2011-12-29T00:00"),
    ("Africa/Casablanca", "2026-02-14T18:00"),
    ("UTC", "2026-10-24T20:00"),
]
# minute, hour, day, month, weekday as sets; None for any.
Fields = tuple[set[int] | None, set[int] | None, set[int] | None, set[int] | None, set[int] | None]
CRONS: list[tuple[str, Fields]] = [
    ("30 2 * * *", ({30}, {2}, None, None, None)),
    ("0,45 1-3 * * *", ({0, 45}, {1, 2, 3}, None, None, None)),
    ("15 */2 * * *", ({15}, set(range(0, 24, 2)), None, None, None)),
    ("*/20 2 * * sat,sun", ({0, 20, 40}, {2}, None, None, {5, 6})),
    ("*/30 * * * *", ({0, 30}, None, None, None, None)),
    ("10 * 28,25,30 * *", ({10}, None, {25, 28, 30}, None, None)),
    ("0 0 * * *", ({0}, {0}, None, None, None)),
    ("59 23 30 12 *", ({59}, {23}, {30}, {12}, None)),
]


def fits(fields: Fields, wall: datetime) -> bool:
    values = (wall.minute, wall.hour, wall.day, wall.month, wall.weekday())
    return all(allowed is None or value in allowed for allowed, value in zip(fields, values, strict=True))


def looked_for(fields: Fields, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """What is due in (begin, end] by the policy that `pgsig.condition.wall` writes down."""

    def minutes(first: datetime, last: datetime) -> Iterator[datetime]:
        while first <= last:
            yield first
            first += MINUTE

    if fields[1] is None:  # in real time: whenever the wall says so
        return [at for at in minutes(begin + MINUTE, end) if fits(fields, at.astimezone(zone))]
    # By the wall: each local time once, by the offset before a gap, the first time in a fold.
    walls = minutes(begin.replace(tzinfo=None) - timedelta(hours=40), end.replace(tzinfo=None) + timedelta(hours=40))
    found = {wall.replace(tzinfo=zone, fold=0).astimezone(UTC) for wall in walls if fits(fields, wall)}
    return sorted(at for at in found if begin < at <= end)


@pytest.mark.parametrize(("zone", "begin"), STRETCHES)
def test_crons_through_changes_of_clocks(zone: str, begin: str) -> None:
    first = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    last = first + timedelta(hours=50)
    for cron, fields in CRONS:
        trigger = schedule.build({"cron": cron, "tz": zone})
        expected = looked_for(fields, ZoneInfo(zone), first, last)
        assert schedule.due_between(trigger, first, last) == expected, cron
        # Whatever time it is asked from, the answer is the same.
        for hours in range(0, 50, 3):
            after = first + timedelta(hours=hours, minutes=7)
            assert trigger.next(after) == next((at for at in expected if at > after), trigger.next(last)), (cron, after)


def test_the_policy_in_the_words_of_the_documentation() -> None:
    def of(spec: dict[str, Any], day: str) -> list[str]:
        first = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=6)
        trigger = schedule.build({"tz": "Europe/Berlin", **spec})
        found = schedule.due_between(trigger, first, first + timedelta(hours=24))
        return [f"{at:%H:%M} {trigger.note(at) or ''}".strip() for at in found]

    gap, fold = "2027-03-28", "2026-10-25"
    assert of({"cron": "30 2 * * *"}, gap) == ["01:30 the clocks jump over 02:30: due at 03:30"]
    assert of({"cron": "30 2,3 * * *"}, gap) == ["01:30"]
    assert of({"cron": "30 2 * * *"}, fold) == ["00:30 02:30 comes twice: due the first time"]
    assert of({"calendar": "1 day", "time": "02:30"}, gap) == ["01:30 the clocks jump over 02:30: due at 03:30"]
    assert of({"calendar": "1 day", "time": "02:30"}, fold) == ["00:30 02:30 comes twice: due the first time"]
    assert of({"at": "2027-03-28T02:30:00"}, gap) == ["01:30 the clocks jump over 02:30: due at 03:30"]
    assert of({"at": "2026-10-25T02:30:00"}, fold) == ["00:30 02:30 comes twice: due the first time"]
    assert (
        len(of({"cron": "0 * * * *"}, gap))
        == len(of({"cron": "0 * * * *"}, fold))
        == len(of({"every": "1h"}, gap))
        == 24
    )


@pytest.mark.parametrize(
    ("spec", "after", "due"),
    [
        ({"calendar": "1 month", "anchor": "2026-01-31"}, "2026-02-01", ["2026-03-31", "2026-05-31", "2026-07-31"]),
        ({"calendar": "1 year", "anchor": "2024-02-29"}, "2026-01-01", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ({"calendar": "2 weeks", "anchor": "2026-01-05"}, "2026-01-05", ["2026-01-19", "2026-02-02", "2026-02-16"]),
        ({"calendar": "3 days", "anchor": "2026-01-05"}, "2020-01-05", ["2026-01-05", "2026-01-08", "2026-01-11"]),
        ({"cron": "@monthly", "begin": "2026-03-02", "end": "2026-06-01"}, "2026-01-01", ["2026-04-01", "2026-05-01"]),
        ({"cron": {"day": "last fri"}}, "2026-01-01", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ({"cron": "0 0 29 2 mon"}, "2026-01-01", ["2044-02-29", "2072-02-29"]),
        ({"times": "any", "of": [{"cron": "0 0 1 * *"}, {"cron": "0 0 * * mon"}]}, "2026-05-30", ["2026-06-01", "2026-06-08"]),
        ({"times": "all", "of": [{"cron": "0 0 1 * *"}, {"cron": "0 0 * * mon"}]}, "2026-05-30", ["2026-06-01", "2027-02-01"]),
        ({"every": "36h", "anchor": "2026-01-01", "begin": "2026-02-01"}, "2026-01-01", ["2026-02-01T12:00", "2026-02-03"]),
        ({"at": "2026-02-01T01:00:00+01:00"}, "2026-01-01", ["2026-02-01"]),
    ],
)  # fmt: skip
def test_forms(spec: dict[str, Any], after: str, due: list[str]) -> None:
    assert schedule.problems(spec, "") == []
    first = datetime.fromisoformat(after).replace(tzinfo=UTC)
    last = datetime(2073, 1, 1, tzinfo=UTC)
    found = schedule.due_between(schedule.build(spec), first, last, len(due))
    assert found == [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in due]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"cron": "0 0 30 2 *"}, "PS512 /x/cron: \"0 0 30 2 *\" never comes"),
        ({"cron": "* *"}, "PS510 /x/cron"),
        ({"cron": {"hours": 3}}, "PS510 /x/cron: \"hours\" is not a field of a cron"),
        ({"cron": "@daily", "tz": "Mars/Olympus"}, "PS511 /x/tz"),
        ({"every": "-5m"}, "PS510 /x/every"),
        ({"every": "1500ms"}, "PS510 /x/every: an interval is a whole number of seconds"),
        ({"every": "1m", "jitter": "1m"}, "PS513 /x/jitter: jitter is shorter than the interval"),
        ({"cron": "@daily", "jitter": "2d"}, "PS513 /x/jitter: jitter is a day at the most"),
        ({"cron": "@daily", "missed": "some"}, "PS518 /x/missed"),
        ({"cron": "@daily", "missed": "all(0)"}, "PS518 /x/missed: all takes a whole number from 1 to 10000"),
        ({"cron": "@daily", "params": [1]}, "PS515 /x/params"),
        ({"cron": "@daily", "begin": "2027-02-01", "end": "2027-01-01"}, "PS510 /x/end: it ends before it begins"),
        ({"cron": "0 0 29 2 *", "begin": "2026-01-01", "end": "2026-12-31"}, "PS512 /x/end: it never comes between"),
        ({"calendar": "2 weeks"}, "PS510 /x/calendar: weeks are counted from a date: add anchor"),
        ({"calendar": "0 days"}, "PS510 /x/calendar"),
        ({"calendar": "1 day", "time": "25:00"}, "PS510 /x/calendar: \"25:00\" is not a time of day"),
        ({"times": "all", "of": [{"cron": "0 1 * * *"}]}, "PS510 /x/times: of is a list of 2 to 20"),
        ({"times": "all", "of": [{"cron": "0 1 * * *"}, {"cron": "0 2 * * *"}]}, "PS512 /x/times: it never comes"),
        ({"times": "any", "of": [{"cron": "0 1 * * *"}, {"signal": "a"}]}, "PS510 /x/of/1"),
        ({"times": "any", "of": [{"cron": "0 1 * * *"}, {"every": "1h", "missed": "all"}]}, "PS502 /x/of/1/missed"),
        ({"trigger": "no module"}, "PS510 /x/trigger"),
        ({"at": "tomorrow"}, "PS510 /x/at"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(spec: dict[str, Any], said: str) -> None:
    (problem,) = schedule.problems(spec, "/x")
    assert str(problem).startswith(said)
    assert problem.fix


def test_words() -> None:
    for spec, said in (
        ({"cron": "30 2 * * mon-fri", "tz": "Europe/Berlin"}, "every weekday at 02:30 Europe/Berlin"),
        ({"cron": "0 9,17 * * *"}, "every day at 09:00 and 17:00 UTC"),
        ({"cron": "*/10 9-17 * * mon-fri"}, "every 10 minutes from 09:00 to 17:59, every weekday UTC"),
        ({"cron": "0 12 13 * fri"}, "on the 13th of the month, if it is a Friday, at 12:00 UTC"),
        ({"cron": "@yearly"}, "on the 1st in January at 00:00 UTC"),
        ({"cron": {"day": "last fri", "hour": 2}}, "on the last Friday of the month at 02:00 UTC"),
        ({"every": "10m", "jitter": "30s"}, "every 10 minutes, up to 30 seconds later"),
        (
            {"calendar": "2 weeks", "anchor": "2027-01-04", "time": "09:00"},
            "every 2 weeks at 09:00 UTC, counted from 2027-01-04",
        ),
        ({"at": "2027-01-31T09:00:00", "tz": "Asia/Tokyo"}, "once at 2027-01-31T09:00:00 Asia/Tokyo"),
        ({"times": "any", "of": [{"cron": "@daily"}, {"every": "5h"}]}, "every day at 00:00 UTC or every 5 hours"),
        ({"cron": 5}, "cron 5"),
    ):
        assert words(spec) == said


@pytest.mark.parametrize(
    ("at", "due", "note"),
    [
        ("2027-03-28T02:30:00", "2027-03-28T01:30:00+00:00", "the clocks jump over 02:30: due at 03:30"),
        ("2027-10-31T02:30:00", "2027-10-31T00:30:00+00:00", "02:30 comes twice: due the first time"),
        ("2027-03-28T03:30:00", "2027-03-28T01:30:00+00:00", None),
        ("2027-03-28T02:30:00+01:00", "2027-03-28T01:30:00+00:00", None),
        ("2027-01-31", "2027-01-30T23:00:00+00:00", None),
    ],
)
def test_a_moment_says_what_a_change_of_clocks_does_to_it(at: str, due: str, note: str | None) -> None:
    times = schedule.build({"at": at, "tz": "Europe/Berlin"})
    found = times.next(datetime(2026, 1, 1, tzinfo=UTC))
    assert found == datetime.fromisoformat(due)
    assert times.note(found) == note


def test_a_date_of_yaml_is_a_date() -> None:
    trigger = schedule.build({"cron": "@daily", "end": date(2026, 1, 2)})
    assert (
        len(schedule.due_between(trigger, datetime(2025, 12, 31, 12, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)))
        == 2
    )


def test_looking_back_costs_little_however_long_a_trigger_was_silent() -> None:
    asked = 0

    class Counted:
        inner = schedule.build({"every": "1s"})

        def next(self, after: datetime) -> datetime | None:
            nonlocal asked
            asked += 1
            return self.inner.next(after)

        def note(self, due: datetime) -> None:
            pass

    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert schedule.last_due(Counted(), now - timedelta(days=4000), now, 3) == [
        now - timedelta(seconds=n) for n in (2, 1, 0)
    ]
    assert asked < 40
