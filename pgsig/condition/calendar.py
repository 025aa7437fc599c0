"""Calendar windows: slices of a day that begin at local midnight, local days, and local weeks that begin on Monday."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pgsig.model import Json

DAY = 86400.0
WEEK = 7 * DAY


def problems(length: float, zone: Json) -> Iterator[tuple[str, str]]:
    """(part, what is wrong) of a window."""
    if length not in (DAY, WEEK) and (length > DAY or DAY % length or length < 60):
        yield (
            "window",
            "a window is a week, a day, or a part of a day of a minute or more that divides it, like 15m, 1h or 6h",
        )
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        yield "tz", f'"{zone}" is not a time zone'


def window_of(at: float, length: float, zone: str) -> tuple[float, float]:
    """Begin and end of the window that holds a moment, in seconds since the epoch; the end is the begin of the next one.

    Slices count elapsed time from local midnight, so that they never overlap and leave no gap; on a day that is 23 or 25 hours
    long the last one is cut, or there are more of them.
    """
    local = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(zone))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if length == WEEK:
        monday = midnight - timedelta(days=midnight.weekday())
        return monday.timestamp(), (monday + timedelta(days=7)).timestamp()
    begin, end = midnight.timestamp(), (midnight + timedelta(days=1)).timestamp()
    if length < DAY:
        begin += (at - begin) // length * length
        end = min(end, begin + length)
    return begin, end
