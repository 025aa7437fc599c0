"""Across a whole definition: can its values be stored, does what it refers to exist, which paths and
functions does it use.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgsig.condition import Node, Tick, leaves
from pgsig.condition.parse import STATES
from pgsig.definition.accepts import unfit
from pgsig.definition.reading import DEEPEST, MOST_NODES, escape
from pgsig.definition.values import Wrong
from pgsig.model import Json, Kind


@dataclass(frozen=True)
class PathUse:
    """A SQL/JSON path and its place. predicate: it has to be true or false, not to select."""

    path: str
    where: str
    predicate: bool


@dataclass(frozen=True)
class FunctionUse:
    """A condition that is a SQL function, by its name with schema, and its place."""

    name: str
    where: str


@dataclass(frozen=True)
class PlacedRule:
    """A rule whose condition could be read, with its place in the document, for checks that look at several."""

    operator: str
    action: str
    root: Node
    by: str
    options: dict[str, Any]
    where: str


def plain(value: Json, where: str, wrong: Wrong) -> None:
    """Refuse what JSON or Postgres cannot keep, and what is too much or too deep.

    That is: other types, infinite numbers, NUL characters, lone surrogates.
    """
    count = 0
    pending: list[tuple[Json, str, int]] = [(value, where, 0)]
    while pending:
        item, place, depth = pending.pop()
        count += 1
        if count > MOST_NODES or depth > DEEPEST:
            wrong(
                place,
                f"a definition has at most {MOST_NODES} values, {DEEPEST} levels deep",
                "split it",
                "PS529",
            )
            return
        if isinstance(item, dict):
            for key, inner in item.items():
                if isinstance(key, str):
                    _text(key, place, wrong)
                    pending.append((inner, f"{place}/{escape(key)}", depth + 1))
                else:
                    wrong(place, f"a key is a text, {key!r} is none", code="PS526")
        elif isinstance(item, list):
            pending.extend((inner, f"{place}/{i}", depth + 1) for i, inner in enumerate(item))
        elif isinstance(item, str):
            _text(item, place, wrong)
        elif isinstance(item, float) and not math.isfinite(item):
            wrong(place, f"{item} is not a number that JSON has", code="PS526")
        elif isinstance(item, int) and not isinstance(item, bool) and abs(item) >= 10**400:
            wrong(place, "a number has at most 400 digits", code="PS526")
        elif item is not None and not isinstance(item, bool | int | float):
            wrong(
                place,
                f"{type(item).__name__} is not a type that JSON has",
                "use texts, numbers, true, false, null, lists and objects",
                "PS526",
            )


def _text(text: str, where: str, wrong: Wrong) -> None:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        wrong(
            where,
            "the text has a character that Postgres cannot keep (NUL, or half of a surrogate pair)",
            code="PS526",
        )


def tick_params(root: Node, taken: Json, where: str, wrong: Wrong) -> None:
    """Refuse parameters of a rule's triggers that its operator does not take. taken: what the operator says, None for any."""
    for leaf in leaves(root):
        if isinstance(taken, dict) and isinstance(leaf, Tick):
            for _, said in unfit(leaf.spec.get("params", {}), taken):
                wrong(where, f"params of {leaf.name}: {said}", "change it, or what accepts says", "PS517")


def references(workflow: str, operators: dict[str, Any], wrong: Wrong) -> None:
    """Refuse keys of pgsig's own signals that can never come.

    They name an operator that this workflow lacks, or a state that does not exist.
    """
    for key, place in (
        (part[name], f"{where}/{name}")
        for part, where in _leaves(operators)
        for name in ("signal", "absent", "after")
        if isinstance(part.get(name), str)
    ):
        head, *rest = key.split(".")
        if head not in ("run", "tick", "manual") or not rest:
            continue
        wanted = 3 if head == "run" else 2
        open_end = rest[-1] == "**"
        if len(rest) != wanted and not (open_end and len(rest) - 1 <= wanted):
            form = "run.workflow.operator.state" if head == "run" else f"{head}.workflow.operator"
            wrong(place, f'"{key}" never comes: such keys are {form}', code="PS527")
            continue
        named = rest[:-1] if open_end else rest
        if len(named) > 1 and named[0] == workflow and named[1] != "*" and named[1] not in operators:
            near = difflib.get_close_matches(named[1], operators, 1)
            fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(operators)[:20])}"
            wrong(place, f'the workflow has no operator "{named[1]}"', fix, "PS527")
        if head == "run" and len(named) > 2 and named[2] != "*" and named[2] not in STATES:
            near = difflib.get_close_matches(named[2], STATES, 1)
            fix = f"did you mean {near[0]}?" if near else f"use {', '.join(STATES)}"
            wrong(place, f'"{named[2]}" is not a state of a run', fix, "PS527")


def paths(operators: dict[str, Any]) -> Iterator[PathUse]:
    """Every SQL/JSON path of a definition."""
    for leaf, place in _leaves(operators):
        if isinstance(leaf.get("where"), str):
            yield PathUse(leaf["where"], f"{place}/where", predicate=True)
        if isinstance(leaf.get("by"), str) and leaf["by"] not in ("subject", "none"):
            yield PathUse(leaf["by"], f"{place}/by", predicate=False)
        if isinstance(leaf.get("distinct"), str):
            yield PathUse(leaf["distinct"], f"{place}/distinct", predicate=False)
        if isinstance(leaf.get("sum"), dict) and isinstance(leaf["sum"].get("of"), str):
            yield PathUse(leaf["sum"]["of"], f"{place}/sum/of", predicate=False)
    for name, body in operators.items():
        for kind in Kind:
            spec = body.get(kind) if isinstance(body, dict) else None
            given = spec.get("params_from") if isinstance(spec, dict) else None
            for param, path in (given if isinstance(given, dict) else {}).items():
                where = f"/operators/{escape(name)}/{kind}/params_from/{escape(param)}"
                yield PathUse(str(path), where, predicate=False)


def functions(operators: dict[str, Any]) -> Iterator[FunctionUse]:
    """Every SQL function that a definition names."""
    for leaf, place in _leaves(operators):
        if isinstance(leaf.get("met_by"), str):
            yield FunctionUse(leaf["met_by"], f"{place}/met_by")


def _leaves(operators: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of every condition, groups too, with their places. `eq` holds a value: not looked into."""
    for name, body in operators.items():
        if not isinstance(body, dict):
            continue
        pending: list[tuple[Json, str]] = [
            (body[action], f"/operators/{escape(name)}/{action}")
            for action in ("reload", "restart", "stop", "start")
            if action in body
        ]
        while pending:
            item, place = pending.pop()
            if isinstance(item, list):
                pending.extend((part, f"{place}/{i}") for i, part in reversed(list(enumerate(item))))
            elif isinstance(item, dict):
                yield item, place
                pending.extend(
                    (item[key], f"{place}/{key}")
                    for key in ("all", "any", "seq", "of", "not", "absent", "after")
                    if key in item
                )
