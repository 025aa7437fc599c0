"""Periodic triggers in words: "every weekday at 02:30 Europe/Berlin"."""

from __future__ import annotations

import re
from typing import Any

from pgsig.condition import cron
from pgsig.model import Json

DAYS = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
UNITS = (("d", "day"), ("h", "hour"), ("m", "minute"), ("s", "second"))
_STEP = re.compile(r"\*/(\d+)")
_PLACE = re.compile(r"(last|1st|2nd|3rd|4th|5th) (mon|tue|wed|thu|fri|sat|sun)")
_ONE = re.compile(r"(\d+)([smhd])")


def words(spec: Json) -> str:
    """A trigger in words, with its zone where one matters. What cannot be read is told as it was written."""
    try:
        told = _words(spec)
    except (ValueError, KeyError, TypeError, IndexError):
        told = " ".join(f"{key} {value}" for key, value in spec.items()) if isinstance(spec, dict) else str(spec)
    return told


def _words(spec: dict[str, Any]) -> str:
    zone = spec.get("tz", "UTC")
    if "cron" in spec:
        told = f"{_cron(cron.read(spec['cron']))} {zone}"
    elif "every" in spec:
        told = f"every {_length(spec['every'])}"
    elif "calendar" in spec:
        found = re.fullmatch(r"\s*(\d+)\s*([a-z]+?)s?\s*", spec["calendar"])
        count, unit = found.groups() if found else ("", spec["calendar"])
        told = f"every {unit}" if count == "1" else f"every {count} {unit}s"
        told += f" at {spec.get('time', '00:00')} {zone}" + (
            f", counted from {spec['anchor']}" if "anchor" in spec else ""
        )
    elif "at" in spec:
        told = f"once at {spec['at']}" + ("" if re.search(r"(Z|[+-]\d\d:?\d\d)$", str(spec["at"])) else f" {zone}")
    elif "times" in spec:
        parts = [_words({"tz": zone, **part}) for part in spec["of"]]
        told = " or ".join(parts) if spec["times"] == "any" else "when these coincide: " + ", and ".join(parts)
    else:
        told = f"as {spec['trigger']} says"
    if "jitter" in spec:
        told += f", up to {_length(spec['jitter'])} later"
    if "begin" in spec:
        told += f", from {spec['begin']}"
    if "end" in spec:
        told += f", until {spec['end']}"
    return told


def _length(text: str) -> str:
    found = _ONE.fullmatch(str(text))
    if not found:
        return str(text)
    unit = next(word for short, word in UNITS if short == found[2])
    return unit if found[1] == "1" else f"{found[1]} {unit}s"


def _cron(fields: dict[str, str]) -> str:
    """A cron's fields in words. The two rarest fields, year and week, are told as they are."""
    day = _day(fields.get("day", "*"), fields.get("day_of_week", "*"), fields.get("month", "*"))
    time, often = _time(fields)
    rest = "".join(f", {name} {fields[name]}" for name in ("week", "year") if fields.get(name, "*") != "*")
    if often:
        return f"{time}{'' if day == 'every day' else f', {day}'}{rest}"
    return f"{day}{',' if ', if' in day else ''} {time}{rest}"


def _time(fields: dict[str, str]) -> tuple[str, bool]:
    """The time of day, and whether it is a rhythm rather than a time."""
    given = list(fields)
    # As APScheduler has it: what is left out after the last field named is the least, before it is every one.
    order = ("hour", "minute", "second")
    last = max((order.index(name) for name in order if name in given), default=-1)
    hour, minute, second = (fields.get(name, "*" if i < last else "0") for i, name in enumerate(order))
    if last == -1:
        hour = minute = second = "0"
    if hour.isdigit() and minute.isdigit() and second.isdigit():
        return f"at {_clock(hour, minute, second)}", False
    if second == "0" and minute.isdigit() and re.fullmatch(r"\d+(,\d+)+", hour):
        return "at " + _list([_clock(one, minute, "0") for one in hour.split(",")]), False
    if second == "0" and hour.isdigit() and re.fullmatch(r"\d+(,\d+)+", minute):
        return "at " + _list([_clock(hour, one, "0") for one in minute.split(",")]), False
    parts = []
    if second != "0":
        parts.append(_rhythm(second, "second"))
    if minute != "*" or second == "0":
        if minute.isdigit() and second == "0":
            parts.append(
                "every hour"
                if minute == "0" and hour == "*"
                else f"at minute {minute}" + (" of every hour" if hour == "*" else "")
            )
        elif minute != "*" or second == "0":
            parts.append(_rhythm(minute, "minute"))
    if hour != "*":
        parts.append(_hours(hour))
    return " ".join(parts), True


def _hours(hour: str) -> str:
    if (step := _STEP.fullmatch(hour)) is not None:
        return f"of every {_nth(step[1])} hour"
    if (span := re.fullmatch(r"(\d+)-(\d+)", hour)) is not None:
        return f"from {int(span[1]):02}:00 to {int(span[2]):02}:59"
    return f"in hour {hour}"


def _rhythm(field: str, unit: str) -> str:
    if field == "*":
        return f"every {unit}"
    if (step := _STEP.fullmatch(field)) is not None:
        return f"every {unit}" if step[1] == "1" else f"every {step[1]} {unit}s"
    return f"at {unit} {field}" if field.isdigit() else f"at {unit}s {field}"


def _day(day: str, weekday: str, month: str) -> str:
    months = "" if month == "*" else " in " + _list([_month(part) for part in month.split(",")])
    week = _week(weekday)
    if day == "*":
        return f"every {week or 'day'}{months}"
    if day == "last":
        told = "the last day"
    elif day.isdigit():
        told = f"the {_nth(day)}"
    elif re.fullmatch(r"\d+(,\d+)+", day):
        told = "the " + _list([_nth(one) for one in day.split(",")])
    elif (step := _STEP.fullmatch(day)) is not None:
        told = f"every {_nth(step[1])} day"
    elif (place := _PLACE.fullmatch(day.lower())) is not None:
        told = f"the {place[1]} {DAYS[place[2]]}"
    else:
        told = f"day {day}"
    told += months or " of the month"
    # APScheduler wants both, other crons take either: this is where it shows.
    return f"on {told}" + (f", if it is a {week}" if week else "")


def _week(weekday: str) -> str:
    if weekday in ("*", "?"):
        return ""
    names: list[str] = []
    for part in weekday.lower().split(","):
        ends = part.split("-")
        known = list(DAYS)
        if len(ends) == 2 and all(end in DAYS for end in ends):
            names += known[known.index(ends[0]) : known.index(ends[1]) + 1]
        elif part.isdigit() and int(part) < 7:
            names.append(known[int(part)])
        elif part in DAYS:
            names.append(part)
        else:
            return f"weekday {weekday}"
    if set(names) == {"mon", "tue", "wed", "thu", "fri"}:
        return "weekday"
    if set(names) == set(DAYS):
        return ""
    return _list([DAYS[name] for name in names], "or")


def _month(part: str) -> str:
    names = {name[:3].lower(): name for name in MONTHS}
    if part.isdigit():
        return MONTHS[int(part) - 1]
    return names.get(part.lower(), part)


def _clock(hour: str, minute: str, second: str) -> str:
    return f"{int(hour):02}:{int(minute):02}" + (f":{int(second):02}" if int(second) else "")


def _nth(number: str) -> str:
    n = int(number)
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def _list(parts: list[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
