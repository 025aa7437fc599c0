"""Periodic triggers: what a spec means, what is wrong with it, and when it is due. Time is an argument.

A spec has one form (`cron`, `every`, `calendar`, `at`, `times` with `of`, `trigger`) and beside it `tz`, `begin`, `end`, `jitter`,
`missed` and `params`. What a change of clocks does to due times: see `wall`. What becomes of missed times: see `missed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.base import BaseTrigger

from pgsig.condition import duration, missed, times
from pgsig.condition.cron import Cron
from pgsig.condition.times import MICROSECOND, Times, due_between, last_due, next_due
from pgsig.errors import Problem
from pgsig.model import Json

__all__ = ["MICROSECOND", "Times", "build", "due_between", "form_of", "last_due", "next_due", "problems"]

FORMS = ("cron", "every", "calendar", "at", "times", "trigger")
# Intervals without an anchor count from here, so that every clock process of a trigger computes the same due times.
ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
MOST_PARTS = 20
LONGEST_JITTER = 86400.0
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")

FIXES = {
    "cron": "five fields: minute hour day month weekday",
    "every": "for instance 10m or 24h",
    "at": "for instance 2027-01-31T09:00:00, with tz beside it",
    "calendar": "for instance 1 month, with time: 02:30",
    "times": "for instance {times: all, of: [{cron: 0 9 * * mon}, {calendar: 2 weeks, anchor: 2027-01-04}]}",
    "trigger": "module:name of an APScheduler trigger",
}


def form_of(spec: dict[str, Any]) -> str:
    """The form of a spec: the key that says when it is due."""
    return next(form for form in FORMS if form in spec)


def build(spec: Json, imported: Callable[[str], BaseTrigger] | None = None) -> Times:
    """The due times of a spec. Raises ValueError with what is wrong.

    imported: gets the APScheduler trigger behind `module:name`. Without it the form `trigger` cannot be built.
    """
    zone = zone_of(spec.get("tz", "UTC"))
    form = form_of(spec)
    if form == "trigger":
        if imported is None:
            raise ValueError(f"{spec['trigger']} is known to the clocks alone")
        found: Times = times.Foreign(imported(spec["trigger"]))
    else:
        found = _FORMS[form](spec, zone)
    if "begin" in spec or "end" in spec:
        begin = moment(spec["begin"], zone) if "begin" in spec else None
        end = moment(spec["end"], zone, last=True) if "end" in spec else None
        if begin is not None and end is not None and end < begin:
            raise ValueError("it ends before it begins")
        return times.Bounded(found, begin, end)
    return found


def problems(spec: dict[str, Any], where: str) -> list[Problem]:
    """Everything wrong with a spec, as Problems with codes PS51x. A `trigger` is not imported: it may live where the clock runs."""
    found: list[Problem] = []
    form = form_of(spec)
    try:
        zone_of(spec.get("tz", "UTC"))
    except ValueError as error:
        found.append(Problem("PS511", str(error), f"{where}/tz", "use a name like Europe/Berlin or UTC"))
        spec = {**spec, "tz": "UTC"}
    found += _beside(spec, where)
    if form == "trigger":
        if not isinstance(spec["trigger"], str) or not TARGET.fullmatch(spec["trigger"]):
            found.append(
                Problem("PS510", f'"{spec["trigger"]}" does not name a trigger', f"{where}/trigger", FIXES["trigger"])
            )
        return found
    if form == "times" and isinstance(spec.get("of"), list):
        inner = [problem for i, part in enumerate(spec["of"]) for problem in _part(part, spec, f"{where}/of/{i}")]
        if inner:
            return [*found, *inner]
    try:
        trigger = build({key: value for key, value in spec.items() if key not in ("begin", "end")})
    except (ValueError, TypeError, OverflowError) as error:
        return [*found, Problem("PS510", str(error), f"{where}/{form}", FIXES[form])]
    if form != "at" and trigger.next(ANCHOR) is None:
        said = f'"{spec[form]}"' if form == "cron" else "it"
        found.append(
            Problem(
                "PS512",
                f"{said} never comes",
                f"{where}/{form}",
                "look at its day and month" if form == "cron" else "look at what its parts have in common",
            )
        )
    elif not found and form != "at" and "end" in spec and build(spec).next(ANCHOR) is None:
        found.append(
            Problem("PS512", "it never comes between its begin and its end", f"{where}/end", "move one of them")
        )
    return found


def _part(part: Json, whole: dict[str, Any], where: str) -> list[Problem]:
    """What is wrong with a part of a combination."""
    if not isinstance(part, dict) or sum(form in part for form in FORMS) != 1:
        return [Problem("PS510", f"a part has one of {', '.join(FORMS)}", where, "for instance {cron: 0 9 * * mon}")]
    form = form_of(part)
    allowed = {form, "tz", "anchor", "time", "of"}
    wrong = [
        Problem("PS502", f'"{key}" does not go with a part of times', f"{where}/{key}", "say it of the whole")
        for key in part
        if key not in allowed
    ]
    return wrong or problems({"tz": whole.get("tz", "UTC"), **part}, where)


def _beside(spec: dict[str, Any], where: str) -> list[Problem]:
    """What is wrong beside the form."""
    found: list[Problem] = []
    zone = zone_of(spec.get("tz", "UTC"))
    bounds: dict[str, datetime] = {}
    for name in ("begin", "end"):
        if name in spec:
            try:
                bounds[name] = moment(spec[name], zone, last=name == "end")
            except ValueError as error:
                found.append(Problem("PS510", str(error), f"{where}/{name}", "for instance 2027-01-31"))
    if len(bounds) == 2 and bounds["end"] < bounds["begin"]:
        found.append(Problem("PS510", "it ends before it begins", f"{where}/end", "exchange begin and end"))
    if "jitter" in spec:
        try:
            length = duration.seconds(spec["jitter"])
            if length > LONGEST_JITTER:
                raise ValueError("jitter is a day at the most")
            if "every" in spec and length >= duration.seconds(spec["every"]):
                raise ValueError("jitter is shorter than the interval")
        except ValueError as error:
            found.append(Problem("PS513", str(error), f"{where}/jitter", "for instance 30s"))
    if "missed" in spec:
        try:
            missed.policy(spec["missed"])
        except ValueError as error:
            found.append(Problem("PS518", str(error), f"{where}/missed", "none, latest, all or all(n)"))
    if "params" in spec and not isinstance(spec["params"], dict):
        found.append(
            Problem("PS515", "params is an object of names and values", f"{where}/params", "for instance {rows: 100}")
        )
    return found


# ── forms ──


def _every(spec: dict[str, Any], zone: ZoneInfo) -> Times:
    length = duration.seconds(spec["every"])
    if length < 1 or length != int(length):
        raise ValueError("an interval is a whole number of seconds, one at least")
    return times.Interval(int(length), moment(spec["anchor"], zone) if "anchor" in spec else ANCHOR)


def _at(spec: dict[str, Any], zone: ZoneInfo) -> Times:
    found = moment(spec["at"], zone)
    written = datetime.fromisoformat(str(spec["at"]))
    return times.Moment(written, zone) if written.tzinfo is None else times.Moment(found)


def _calendar(spec: dict[str, Any], zone: ZoneInfo) -> Times:
    months, days = times.period(spec["calendar"])
    if days % 7 == 0 and days and "anchor" not in spec and "week" in spec["calendar"]:
        raise ValueError("weeks are counted from a date: add anchor")
    anchor = moment(spec["anchor"], zone).astimezone(zone).date() if "anchor" in spec else ANCHOR.date()
    return times.Calendar(months, days, anchor, _time(spec.get("time", "00:00")), zone)


def _times(spec: dict[str, Any], zone: ZoneInfo) -> Times:
    parts = spec.get("of")
    if spec["times"] not in ("any", "all"):
        raise ValueError("times is any or all")
    if not isinstance(parts, list) or not 2 <= len(parts) <= MOST_PARTS:
        raise ValueError(f"of is a list of 2 to {MOST_PARTS} triggers")
    built = [build({"tz": zone.key, **part}) for part in parts]
    return times.All(built) if spec["times"] == "all" else times.Any(built)


_FORMS = {
    "cron": lambda spec, zone: Cron(spec["cron"], zone),
    "every": _every,
    "calendar": _calendar,
    "at": _at,
    "times": _times,
}


def zone_of(name: Json) -> ZoneInfo:
    """A time zone. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise ValueError(f'"{name}" is not a time zone') from error


def moment(text: Json, zone: ZoneInfo, *, last: bool = False) -> datetime:
    """An instant, in its own offset or a zone's local time. last: a date alone means the end of its day. Raises ValueError."""
    if isinstance(text, date) and not isinstance(text, datetime):
        text = text.isoformat()
    try:
        found = datetime.fromisoformat(text)
        if last and len(text.strip()) <= 10:
            found = datetime.combine(found.date(), time.max)
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f'"{text}" is not a date and time: write 2027-01-31T09:00:00') from error


def _time(text: Json) -> time:
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) > 23 or int(found[2]) > 59 or int(found[3] or 0) > 59:
        raise ValueError(f'"{text}" is not a time of day: write "02:30"')
    return time(int(found[1]), int(found[2]), int(found[3] or 0))
