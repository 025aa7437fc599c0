"""Due times of the forms beside cron: intervals, calendar intervals, single moments, combinations, triggers of the user's own.

All of them answer `next(after)`: the first due time later than an instant, in UTC, or None. None of them remembers anything, so every
clock process computes the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger

from pgsig.condition import wall

MICROSECOND = timedelta(microseconds=1)
MOST_STEPS = 10_000  # of a search for a time that several triggers have in common
PERIOD = re.compile(r"\s*(\d{1,4})\s*(day|week|month|year)s?\s*")


class Times(Protocol):
    """When a trigger is due."""

    def next(self, after: datetime) -> datetime | None:
        """The first due time later than `after`, in UTC."""

    def note(self, due: datetime) -> str | None:
        """What a change of clocks did to a due time, in words; None for nothing."""


class _Plain:
    def note(self, due: datetime) -> str | None:  # noqa: ARG002
        return None


class Interval(_Plain):
    """Each time a length has passed since the anchor, in elapsed time: no change of clocks moves it."""

    def __init__(self, seconds: int, anchor: datetime) -> None:
        self.length = timedelta(seconds=seconds)
        self.anchor = anchor.astimezone(UTC)

    def next(self, after: datetime) -> datetime | None:
        if after < self.anchor:
            return self.anchor
        return self.anchor + ((after - self.anchor) // self.length + 1) * self.length


class Moment:
    """Once. zone: where it was written as a local time, so that a change of clocks may have moved it."""

    def __init__(self, at: datetime, zone: ZoneInfo | None = None) -> None:
        self.at, self.zone = (at.replace(tzinfo=zone) if zone is not None else at).astimezone(UTC), zone
        self._wall = at.replace(tzinfo=UTC)

    def next(self, after: datetime) -> datetime | None:
        return self.at if self.at > after else None

    def note(self, due: datetime) -> str | None:
        return wall.shifted(self._matches, self.zone, due) if self.zone is not None else None

    def _matches(self, moment: datetime) -> datetime | None:
        return self._wall if self._wall >= moment else None


class Calendar:
    """The same time of day every so many days, weeks, months or years, counted from a date.

    A month or a year that does not have the day of the date is left out.
    """

    def __init__(self, months: int, days: int, anchor: date, at: time, zone: ZoneInfo) -> None:
        self.months, self.days, self.anchor, self.at, self.zone = months, days, anchor, at, zone

    def next(self, after: datetime) -> datetime | None:
        return wall.next_instant(self._matches, self.zone, after, names_hour=True)

    def note(self, due: datetime) -> str | None:
        return wall.shifted(self._matches, self.zone, due)

    def _matches(self, moment: datetime) -> datetime | None:
        day = max(moment.date(), self.anchor)
        n = self._number(day)
        while True:
            found = self._date(n)
            if found is None and n * self.months > 12 * 8000:
                return None
            if found is not None:
                wanted = datetime.combine(found, self.at, UTC)
                if wanted >= moment:
                    return wanted
            n += 1

    def _number(self, day: date) -> int:
        """The number of the last date that may not be later than a day."""
        if self.days:
            return (day - self.anchor).days // self.days
        gone = (day.year - self.anchor.year) * 12 + day.month - self.anchor.month
        return max(0, gone // self.months - 1)

    def _date(self, n: int) -> date | None:
        try:
            if self.days:
                return self.anchor + timedelta(days=n * self.days)
            year, month = divmod(self.anchor.year * 12 + self.anchor.month - 1 + n * self.months, 12)
            return self.anchor.replace(year=year, month=month + 1)
        except (ValueError, OverflowError):
            return None


def period(text: object) -> tuple[int, int]:
    """A calendar interval like "2 weeks" as (months, days). Raises ValueError."""
    found = PERIOD.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) < 1:
        raise ValueError(f'"{text}" is not a calendar interval: write 1 day, 2 weeks, 3 months or 1 year')
    count = int(found[1])
    return {"day": (0, count), "week": (0, 7 * count), "month": (count, 0), "year": (12 * count, 0)}[found[2]]


class Any:
    """Whenever one of several is due; once where several are due at the same instant."""

    def __init__(self, parts: Sequence[Times]) -> None:
        self.parts = parts

    def next(self, after: datetime) -> datetime | None:
        return min((due for part in self.parts if (due := part.next(after)) is not None), default=None)

    def note(self, due: datetime) -> str | None:
        return next(
            (note for part in self.parts if part.next(due - MICROSECOND) == due and (note := part.note(due))), None
        )


class All(Any):
    """Whenever all of several are due at the same instant."""

    def next(self, after: datetime) -> datetime | None:
        moment = after
        for _ in range(MOST_STEPS):
            due = [part.next(moment) for part in self.parts]
            known = [one for one in due if one is not None]
            if len(known) < len(due):
                return None
            if min(known) == max(known):
                return known[0]
            moment = max(known) - MICROSECOND
        return None


class Bounded:
    """The due times of another from `begin` to `end`, both inclusive; None for no bound."""

    def __init__(self, inner: Times, begin: datetime | None, end: datetime | None) -> None:
        self.inner, self.begin, self.end = inner, begin, end

    def next(self, after: datetime) -> datetime | None:
        if self.begin is not None:
            after = max(after, self.begin - MICROSECOND)
        due = self.inner.next(after)
        return None if due is None or (self.end is not None and due > self.end) else due

    def note(self, due: datetime) -> str | None:
        return self.inner.note(due)


class Foreign(_Plain):
    """A trigger of the user's own: an APScheduler trigger object. It is asked with no previous time, so it has to know its due times by
    itself; what it makes of changes of clocks is its own affair."""

    def __init__(self, trigger: BaseTrigger) -> None:
        self.trigger = trigger

    def next(self, after: datetime) -> datetime | None:
        found = self.trigger.get_next_fire_time(None, after + MICROSECOND)
        if found is None:
            return None
        due: datetime = found.astimezone(UTC)
        if due <= after:
            raise ValueError(
                f"the trigger {self.trigger!r} answers {due.isoformat()} when it is asked for what comes after {after.isoformat()}"
            )
        return due


class Remembered:
    """Another's due times, of which the last few answers are kept: many triggers say the same, and ask the same."""

    MOST = 500

    def __init__(self, inner: Times) -> None:
        self.inner = inner
        self._known: dict[datetime, datetime | None] = {}

    def next(self, after: datetime) -> datetime | None:
        if after not in self._known:
            if len(self._known) >= self.MOST:
                self._known.clear()
            self._known[after] = self.inner.next(after)
        return self._known[after]

    def note(self, due: datetime) -> str | None:
        return self.inner.note(due)


def due_between(trigger: Times, after: datetime, until: datetime, most: int = 1000) -> list[datetime]:
    """The due times in (after, until] in UTC, the first `most` of them."""
    found: list[datetime] = []
    while len(found) < most:
        due = trigger.next(after)
        if due is None or due > until:
            break
        found.append(due)
        after = due
    return found


def next_due(trigger: Times, after: datetime) -> datetime | None:
    """The first due time later than `after`, in UTC; None when there is none."""
    return trigger.next(after.astimezone(UTC))


def last_due(trigger: Times, after: datetime, until: datetime, most: int = 1) -> list[datetime]:
    """The last `most` due times in (after, until], in their order.

    Looks back in growing steps, so that a second's trigger that was silent for a month does not cost a month's due times.
    """
    span = timedelta(seconds=1)
    if (first := trigger.next(after)) is None or first > until:
        return []
    while after < until:
        start = max(after, until - span)
        # The span is at most doubled: what it holds is bounded by what the one before lacked, but for a time of day that is crowded.
        found = due_between(trigger, start, until, 100_000)
        if len(found) >= most or start == after:
            return found[-most:]
        span *= 2
    return []
