"""Plain values of a definition's fields: what each may be. A check says what is wrong, and answers with the canonical form."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

from pgsig.condition import duration
from pgsig.errors import Problem
from pgsig.model import Json

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
NOTHING = object()  # a default that no value equals

Wrong = Callable[..., None]  # wrong(where, message, fix="", code="PS523")
Check = Callable[[Json, str, Wrong], Json]
Fields = dict[str, tuple[Check, Any]]  # the check of each field and its default


def problems_of(problems: list[Problem]) -> Wrong:
    """A short way to add a problem."""

    def wrong(where: str, message: str, fix: str = "", code: str = "PS523") -> None:
        problems.append(Problem(code, message, where, fix))

    return wrong


def text(value: Json, where: str, wrong: Wrong) -> Json:
    """A text of some length."""
    if not isinstance(value, str) or not value or len(value) > 4096:
        wrong(where, "a text of 1 to 4096 characters is needed")
    return value


def plain_name(value: Json, where: str, wrong: Wrong) -> Json:
    """A name, as operators and pools have."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        wrong(where, f"{shown(value)} is not a name", "a lower-case letter, then up to 62 of a-z 0-9 _ -")
    return value


def length(value: Json, where: str, wrong: Wrong) -> Json:
    """A length of time, like 5m; seconds as a number."""
    try:
        return duration.text(duration.seconds(value))
    except ValueError as error:
        wrong(where, str(error))
        return value


def flag(value: Json, where: str, wrong: Wrong) -> Json:
    """True or false."""
    if not isinstance(value, bool):
        wrong(where, f"true or false is needed, not {shown(value)}")
    return value


def number(low: int, high: int) -> Check:
    """A whole number from `low` to `high`."""

    def check(value: Json, where: str, wrong: Wrong) -> Json:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            wrong(where, f"a whole number from {low} to {high} is needed, not {shown(value)}")
        return value

    return check


def choice(*words: str) -> Check:
    """One of some words."""

    def check(value: Json, where: str, wrong: Wrong) -> Json:
        if value not in words:
            near = difflib.get_close_matches(str(value), words, 1)
            wrong(
                where,
                f"{shown(value)} is none of {', '.join(words)}",
                f"did you mean {near[0]}?" if near else "",
            )
        return value

    return check


def shown(value: Json) -> str:
    """A value as a message quotes it."""
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
