"""Lengths of time as people write them: `500ms`, `30s`, `10m`, `2h`, `1d`, `1h30m`, or a number of seconds."""

from __future__ import annotations

import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONGEST = 3660 * 86400.0  # ten years: beyond it somebody mistook a unit
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def seconds(text: str | int | float) -> float:
    """Seconds of a duration. Raises ValueError with what is wrong; zero and negative lengths are refused."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError("a duration is a text like 30s, 10m or 1h30m, or a number of seconds")
    if isinstance(text, str):
        compact = text.replace(" ", "")
        parts = _PART.findall(compact)
        if not parts or "".join(number + unit for number, unit in parts) != compact:
            raise ValueError(f'"{text}" is not a duration: write 500ms, 30s, 10m, 2h, 1d or 1h30m')
        length = sum(float(number) * UNITS[unit] for number, unit in parts)
    else:
        length = float(text)
    if not 0 < length <= LONGEST:
        raise ValueError(f'"{text}" is not between 1 ms and 10 years')
    return length


def text(length: float) -> str:
    """The shortest way to write a number of seconds: 5400 is `1h30m`."""
    rest, parts = round(length * 1000), []
    for unit, size in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def limit(text: object) -> tuple[int, float]:
    """A rate like `3/1h` as (count, seconds). Raises ValueError with what is wrong."""
    count, slash, length = str(text).partition("/")
    if not slash or not count.isdecimal() or not 1 <= int(count) <= 1000:
        raise ValueError(f'"{text}" is not a limit: write a count from 1 to 1000 and a duration, like 3/1h')
    return int(count), seconds(length)
