"""Time on the wall and instants: what a change of clocks does to times that name an hour.

The policy, for every trigger that says a local time, is RFC 5545's (section 3.3.5):

gap   A local time that the clocks jump over is due at the instant that it would have been without the jump: with 02:30 in Berlin on a
      last Sunday of March that is 01:30 UTC, when the wall says 03:30. It is due, once; where another time falls on the same instant, once
      for both.
fold  A local time that comes twice is due the first time.

A cron with `*` for the hour names none: it goes on in real time through both, every hour that passes is one of its hours.
`every` counts elapsed time and knows no zone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of clocks. at: its instant. before, after: what the zone adds to UTC."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def jump(self) -> timedelta:
        """How far the clocks are put forward; negative: back."""
        return self.after - self.before


def offset_at(zone: ZoneInfo, moment: datetime) -> timedelta:
    """What a zone adds to UTC at an instant."""
    return moment.astimezone(zone).utcoffset() or timedelta(0)


@lru_cache(maxsize=4096)
def changes(zone: ZoneInfo, year: int) -> tuple[Change, ...]:
    """The changes of clocks in a year of UTC, in order. Two on one day are taken for one."""
    found = []
    begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    offset = offset_at(zone, begin)
    while begin < end:
        until = min(begin + DAY, end)
        if (after := offset_at(zone, until)) != offset:
            low, high = begin, until
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
                low, high = (low, middle) if offset_at(zone, middle) == after else (middle, high)
            found.append(Change(high, offset, after))
            offset = after
        begin = until
    return tuple(found)


def neighbours(zone: ZoneInfo, moment: datetime) -> tuple[Change | None, Change | None]:
    """The last change at or before an instant, and the next one after it, if they lie in its year or those beside it."""
    year = moment.year
    near = [change for y in (year - 1, year, year + 1) if 1 <= y < 9999 for change in changes(zone, y)]
    last = next((change for change in reversed(near) if change.at <= moment), None)
    return last, next((change for change in near if change.at > moment), None)


def instant(zone: ZoneInfo, wall: datetime) -> datetime:
    """The instant of a naive local time, by the policy."""
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def next_instant(
    matches: Callable[[datetime], datetime | None], zone: ZoneInfo, after: datetime, *, names_hour: bool
) -> datetime | None:
    """The first due time later than `after`, in UTC.

    matches: the first local time at or after one that a trigger asks for; local times are written as if they were UTC.
    """
    moment = after + MICROSECOND
    while True:
        last, following = neighbours(zone, moment)
        offset = offset_at(zone, moment)
        low, found = moment, None
        if last is not None and names_hour:
            if last.jump < timedelta(0):  # what comes a second time is not due
                low = max(low, last.at - last.jump)
            elif moment < last.at + last.jump:  # what the clocks have jumped over
                over = matches(moment + last.before)
                if over is not None and over - last.before < last.at + last.jump:
                    found = over - last.before
        wall = matches(low + offset)
        if wall is not None and (following is None or wall - offset < following.at):
            return wall - offset if found is None else min(found, wall - offset)
        if found is not None or wall is None:
            return found
        assert following is not None
        moment = following.at


def shifted(matches: Callable[[datetime], datetime | None], zone: ZoneInfo, due: datetime) -> str | None:
    """What a change of clocks has done to a due time that names an hour, in words; None for nothing. matches: see `next_instant`."""
    last, following = neighbours(zone, due)
    if last is not None and last.jump > timedelta(0) and due < last.at + last.jump:
        wall, shown = due + last.before, due + last.after
        return None if matches(shown) == shown else f"the clocks jump over {wall:%H:%M}: due at {shown:%H:%M}"
    if following is not None and following.jump < timedelta(0) and due >= following.at + following.jump:
        return f"{due + following.before:%H:%M} comes twice: due the first time"
    return None
