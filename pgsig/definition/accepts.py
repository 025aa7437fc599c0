"""Which parameters an operator takes: `accepts: {rows: {type: integer, least: 1}, mode: {one_of: [fast, deep], required: true}}`.

An operator that says nothing takes any. What is checked when: the operator's own `params` and those of its triggers at the apply, here;
those given by hand at the order, by `pgsig_private.param_problems`, in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pgsig.definition.reading import escape
from pgsig.model import Json

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")

TYPES = ("text", "integer", "number", "flag", "list", "object")
KEYS = ("type", "one_of", "least", "most", "required")
FIX = "for instance {type: integer, least: 1}"


def accepts(value: Json, where: str, wrong: Callable[..., None]) -> Json:
    """Check what an operator says that it takes."""
    if not isinstance(value, dict) or len(value) > 100:
        wrong(where, "accepts is an object of at most 100 names and what each may be", FIX)
        return value
    for name, rule in value.items():
        place = f"{where}/{escape(name)}"
        if not NAME.fullmatch(name):
            wrong(place, f'"{name}" is not the name of a parameter', "letters, digits and _")
        elif not isinstance(rule, dict) or not set(rule) <= set(KEYS):
            wrong(place, f"a parameter is an object of {', '.join(KEYS)}", FIX)
        else:
            for key, said in _mistakes(rule):
                wrong(f"{place}/{key}", said, FIX)
    return value


def _mistakes(rule: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "type" in rule and rule["type"] not in TYPES:
        yield "type", f"a type is one of {', '.join(TYPES)}"
    if "one_of" in rule and (not isinstance(rule["one_of"], list) or not rule["one_of"]):
        yield "one_of", "one_of is a list of at least one value"
    for bound in ("least", "most"):
        if bound in rule and not _is_number(rule[bound]):
            yield bound, f"{bound} is a number"
        elif bound in rule and rule.get("type", "number") not in ("integer", "number"):
            yield bound, f"{bound} goes with a number"
    if "required" in rule and not isinstance(rule["required"], bool):
        yield "required", "required is true or false"


def unfit(given: dict[str, Any], taken: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of parameters that an operator does not take. Whether one is missing is known at an order alone."""
    for name, value in given.items():
        if name not in taken:
            yield name, f'there is no parameter "{name}": it takes {", ".join(sorted(taken)) or "none"}'
        elif (said := _unfit(value, taken[name])) is not None:
            yield name, said


def _unfit(value: Json, rule: dict[str, Any]) -> str | None:
    kind = rule.get("type")
    if kind is not None and not _IS[kind](value):
        return f"is to be {'an' if kind in ('integer', 'object') else 'a'} {kind}"
    if "one_of" in rule and value not in rule["one_of"]:
        return "is not one of those that are taken"
    if _is_number(value) and "least" in rule and value < rule["least"]:
        return f"is at least {rule['least']}"
    if _is_number(value) and "most" in rule and value > rule["most"]:
        return f"is at most {rule['most']}"
    return None


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: dict[str, Callable[[Json], bool]] = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "flag": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
