"""Periodic triggers in APScheduler's terms: what `cron`, `every` and `at` mean, and what is wrong with them. Time is an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from pgsig.condition import duration
from pgsig.errors import Problem
from pgsig.model import Json

# Intervals without an anchor count from here, so that every clock process of a trigger computes the same due times.
ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
ALIASES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * sun", "@monthly": "0 0 1 * *",
           "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}  # fmt: skip


def build(spec: Json) -> BaseTrigger:
    """The APScheduler trigger of a spec. Raises ValueError with what is wrong."""
    zone = _zone(spec.get("tz", "UTC"))
    if "cron" in spec:
        return _cron(spec["cron"], zone)
    if "every" in spec:
        length = duration.seconds(spec["every"])
        if length < 1 or length != int(length):
            raise ValueError("an interval is a whole number of seconds, one at least")
        anchor = _moment(spec["anchor"], zone) if "anchor" in spec else ANCHOR
        return IntervalTrigger(seconds=int(length), start_date=anchor, timezone=zone)
    return DateTrigger(run_date=_moment(spec["at"], zone), timezone=zone)


def problems(spec: dict[str, Any], where: str) -> list[Problem]:
    """Everything wrong with a spec, as Problems with codes PS51x."""
    form = next(key for key in ("cron", "every", "at") if key in spec)
    found: list[Problem] = []
    try:
        _zone(spec.get("tz", "UTC"))
    except ValueError as error:
        found.append(Problem("PS511", str(error), f"{where}/tz", "use a name like Europe/Berlin or UTC"))
        spec = {**spec, "tz": "UTC"}
    if "jitter" in spec:
        found.append(Problem("PS513", "jitter is not there yet", f"{where}/jitter", "leave it out"))
    try:
        trigger = build(spec)
    except (ValueError, TypeError) as error:
        return [
            *found,
            Problem(
                "PS510",
                str(error),
                f"{where}/{form}",
                "five fields: minute hour day month weekday" if form == "cron" else "",
            ),
        ]
    if form == "cron" and trigger.get_next_fire_time(None, ANCHOR) is None:
        found.append(Problem("PS512", f'"{spec["cron"]}" never comes', f"{where}/cron", "look at its day and month"))
    return found


def due_between(trigger: BaseTrigger, after: datetime, until: datetime, most: int = 1000) -> list[datetime]:
    """The due times in (after, until] in UTC, at most `most` of them.

    A local time that a change of clocks repeats is due at its first occurrence where the trigger names the hour, in both where it does
    not. The trigger is asked with instants in UTC alone: with a previous fire time in local time, APScheduler 3.11 answers the same
    repeated hour for ever.
    """
    found: list[datetime] = []
    after, until = after.astimezone(UTC), until.astimezone(UTC)
    while len(found) < most:
        fire = next_due(trigger, after)
        if fire is None or fire > until:
            break
        found.append(fire)
        after = fire
    return found


def next_due(trigger: BaseTrigger, after: datetime) -> datetime | None:
    """The first due time later than `after`, in UTC; None when there is none."""
    moment = after.astimezone(UTC)
    for _ in range(1000):
        local: datetime | None = trigger.get_next_fire_time(None, moment + timedelta(microseconds=1))
        if local is None:
            return None
        fire: datetime = local.astimezone(UTC)
        if fire > after and not (local.fold and _names_hour(trigger)):
            return fire
        moment = max(fire, moment + timedelta(minutes=1))
    return None


def _names_hour(trigger: BaseTrigger) -> bool:
    """Whether a cron says at which hours it is due, so that a repeated hour would run it twice."""
    return isinstance(trigger, CronTrigger) and any(
        field.name == "hour" and str(field) != "*" for field in trigger.fields
    )


def _cron(text: Json, zone: ZoneInfo) -> CronTrigger:
    if not isinstance(text, str):
        raise ValueError("a cron is a text like 30 2 * * mon-fri")
    fields = ALIASES.get(text.strip().lower(), text).split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise ValueError(f'"{text}" has {len(fields)} fields, a cron has 5, or 6 with seconds first')
    second, minute, hour, day, month, weekday = fields
    return CronTrigger(
        second=second, minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=zone
    )


def _weekdays(text: str) -> str:
    """Cron counts weekdays from Sunday = 0 (and 7), APScheduler from Monday = 0: names mean the same to both."""
    names = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
    parts = []
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        ends = span.split("-")
        if not all(end in ("*", *names) or (end.isdigit() and int(end) <= 7) for end in ends):
            raise ValueError(f'"{part}" is not a weekday: use mon to sun, or 0 to 7 with 0 and 7 for Sunday')
        numbers = [end if end == "*" else (names.index(end) if end in names else int(end)) for end in ends]
        if numbers == ["*"]:
            parts.append(part)
            continue
        first, last = int(numbers[0]), int(numbers[-1])
        if first > last and last == 0:
            last = 7
        if first > last:
            raise ValueError(f'"{part}" runs backwards: write two ranges')
        parts.extend(names[day] for day in range(first, last + 1, int(step) if slash else 1))
    return ",".join(parts)


def _zone(name: Json) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise ValueError(f'"{name}" is not a time zone') from error


def _moment(text: Json, zone: ZoneInfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f'"{text}" is not a date and time: write 2027-01-31T09:00:00') from error
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)
