"""Crons: five fields, six with seconds first, a name like @daily, or APScheduler's fields by name."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from pgsig.condition import wall
from pgsig.model import Json

ALIASES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * sun", "@monthly": "0 0 1 * *",
           "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}  # fmt: skip
FIELDS = CronTrigger.FIELD_NAMES
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Cron:
    """The times of a cron in a zone. APScheduler finds the local times, `wall` knows what a change of clocks makes of them."""

    def __init__(self, given: Json, zone: ZoneInfo) -> None:
        self.fields = read(given)
        self.zone = zone
        # On a wall without changes of clocks: in UTC.
        self._trigger = CronTrigger(**self.fields, timezone="UTC")
        self.names_hour = any(field.name == "hour" and str(field) != "*" for field in self._trigger.fields)

    def next(self, after: datetime) -> datetime | None:
        """The first due time later than `after`, in UTC."""
        return wall.next_instant(self._matches, self.zone, after, names_hour=self.names_hour)

    def note(self, due: datetime) -> str | None:
        """What a change of clocks did to a due time."""
        return wall.shifted(self._matches, self.zone, due) if self.names_hour else None

    def _matches(self, moment: datetime) -> datetime | None:
        found: datetime | None = self._trigger.get_next_fire_time(None, moment)
        return found


def read(given: Json) -> dict[str, str]:
    """A cron as APScheduler's fields by name. Raises ValueError with what is wrong."""
    if isinstance(given, dict):
        unknown = [name for name in given if name not in FIELDS]
        if unknown or not given:
            raise ValueError(
                f'"{unknown[0]}" is not a field of a cron: use {", ".join(FIELDS)}'
                if unknown
                else "a cron names at least one field"
            )
        return {name: str(value) for name, value in given.items()}
    if not isinstance(given, str):
        raise ValueError("a cron is a text like 30 2 * * mon-fri")
    fields = ALIASES.get(given.strip().lower(), given).split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise ValueError(f'"{given}" has {len(fields)} fields, a cron has 5, or 6 with seconds first')
    second, minute, hour, day, month, weekday = fields
    return {"second": second, "minute": minute, "hour": hour, "day": day, "month": month, "day_of_week": _weekdays(weekday)}  # fmt: skip


def _weekdays(text: str) -> str:
    """Cron counts weekdays from Sunday = 0 (and 7), APScheduler from Monday = 0: names mean the same to both."""
    parts = []
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        ends = span.split("-")
        if not all(end in ("*", *WEEKDAYS) or (end.isdigit() and int(end) <= 7) for end in ends):
            raise ValueError(f'"{part}" is not a weekday: use mon to sun, or 0 to 7 with 0 and 7 for Sunday')
        numbers = [end if end == "*" else (WEEKDAYS.index(end) if end in WEEKDAYS else int(end)) for end in ends]
        if numbers == ["*"]:
            parts.append(part)
            continue
        first, last = int(numbers[0]), int(numbers[-1])
        if first > last and last == 0:
            last = 7
        if first > last:
            raise ValueError(f'"{part}" runs backwards: write two ranges')
        parts.extend(WEEKDAYS[day] for day in range(first, last + 1, int(step) if slash else 1))
    return ",".join(parts)
