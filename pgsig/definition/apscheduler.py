"""APScheduler's trigger objects as specs: what they say is kept, so that a clock needs nothing of the program that made them.

What a change of clocks makes of their times is pgsig's policy (`pgsig.condition.wall`), the same for every trigger.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from importlib import import_module
from typing import Any

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from pgsig.condition import duration
from pgsig.errors import InvalidInput, Problem


def imported(target: str) -> BaseTrigger:
    """The trigger behind `module:name`: an object, or what a function or class without arguments gives. Raises ValueError."""
    module, _, name = target.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        if not isinstance(found, BaseTrigger):
            found = found()
    except Exception as error:
        raise ValueError(f"{target} cannot be had: {type(error).__name__}: {error}") from error
    if not isinstance(found, BaseTrigger):
        raise ValueError(f"{target} is not an APScheduler trigger")
    return found


def spec_of(trigger: Any) -> dict[str, Any]:
    """A trigger's spec. Raises InvalidInput (PS516) for a class that is not APScheduler's own, or what cannot be said in a spec."""
    kind = next((kind for kind in _KINDS if type(trigger) is kind), None)
    if kind is None:
        name = type(trigger).__name__
        raise _refused(
            f"{name} is not a trigger of APScheduler itself, its due times cannot be stored",
            'give it a name in a module that the clock can import, and write trigger("module:name")',
        )
    spec: dict[str, Any] = _KINDS[kind](trigger)
    if getattr(trigger, "jitter", None):
        spec["jitter"] = duration.text(float(trigger.jitter))
    return spec


def _cron(trigger: CronTrigger) -> dict[str, Any]:
    fields = {field.name: str(field) for field in trigger.fields if not field.is_default}
    return {"cron": fields or {"second": "*"}, "tz": _zone(trigger.timezone), **_bounds(trigger)}


def _interval(trigger: IntervalTrigger) -> dict[str, Any]:
    start = trigger.start_date.isoformat()
    # Without a start APScheduler takes the moment when the object is made: that would be another trigger at each apply. It is told by its
    # microseconds, which nobody writes. With a start it is not due before that, other than with an anchor alone.
    return {
        "every": duration.text(trigger.interval_length),
        **({} if trigger.start_date.microsecond else {"anchor": start, "begin": start}),
        **({"end": trigger.end_date.isoformat()} if trigger.end_date else {}),
    }


def _calendar(trigger: CalendarIntervalTrigger) -> dict[str, Any]:
    months, days = 12 * trigger.years + trigger.months, 7 * trigger.weeks + trigger.days
    if months and days:
        raise _refused(
            "a calendar interval of months and days at once cannot be stored", "use one of them, or two triggers"
        )
    at = trigger._time  # noqa: SLF001  there is no other way to it
    return {
        "calendar": f"{months} months" if months else f"{days} days", "time": at.strftime("%H:%M:%S" if at.second else "%H:%M"),
        "anchor": trigger.start_date.isoformat(), "tz": _zone(trigger.timezone),
        **({"end": trigger.end_date.isoformat()} if trigger.end_date else {}),
    }  # fmt: skip


def _date(trigger: DateTrigger) -> dict[str, Any]:
    return {"at": trigger.run_date.isoformat()}


def _combination(word: str) -> Any:
    def combine(trigger: Any) -> dict[str, Any]:
        parts = [spec_of(part) for part in trigger.triggers]
        for part in parts:
            if "jitter" in part:
                raise _refused("jitter of a part cannot be stored", "give it to the combination")
            if "begin" in part and part["begin"] == part.get("anchor"):
                del part["begin"]
            if "begin" in part or "end" in part:
                raise _refused("start and end of a part cannot be stored", "give them to the combination")
        return {"times": word, "of": parts}

    return combine


def _bounds(trigger: Any) -> dict[str, Any]:
    found: dict[str, datetime | None] = {"begin": trigger.start_date, "end": trigger.end_date}
    return {name: moment.isoformat() for name, moment in found.items() if moment is not None}


def _zone(zone: tzinfo) -> str:
    name = getattr(zone, "key", None) or str(zone)
    return "UTC" if name in ("UTC", "utc", "Etc/UTC") else name


def _refused(message: str, fix: str) -> InvalidInput:
    return InvalidInput([Problem("PS516", message, "", fix)], subject="the trigger")


_KINDS: dict[type, Any] = {
    CronTrigger: _cron,
    IntervalTrigger: _interval,
    CalendarIntervalTrigger: _calendar,
    DateTrigger: _date,
    AndTrigger: _combination("all"),
    OrTrigger: _combination("any"),
}
