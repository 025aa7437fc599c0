"""MATCH: which rules are interested in which signals, and what has to be asked of the database before it can be decided."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import NamedTuple

from pgsig.condition import MISSING, Leaf, Tick
from pgsig.decide.catalog import Catalog, CompiledRule
from pgsig.model import Json, Operator, Signal, State

# (signal id, SQL/JSON path) → what Postgres says of it: a truth for a predicate, a text for a correlation path, None for neither
Answers = Mapping[tuple[int, str], object]


class Match(NamedTuple):
    """One signal and one rule: the leaves whose key, source and subject it meets; none for a timer of the rule.

    For an order by hand `operator` is set and `rule` is not.
    """

    signal: Signal
    rule: CompiledRule | None
    hits: tuple[Leaf | Tick, ...] = ()
    operator: Operator | None = None


def match(catalog: Catalog, signals: Iterable[Signal]) -> list[Match]:
    """The interested rules of each signal: signals in their order, the rules of one in order of declaration."""
    found: list[Match] = []
    for signal in signals:
        index = catalog.interest.get(signal.namespace)
        if index is None:
            continue
        if (ordered := catalog.manual.get((signal.namespace, signal.key))) is not None:
            found.append(Match(signal, None, (), ordered))
        if (signal.namespace, signal.key) in catalog.timed and (timed := _timed(catalog, signal)) is not None:
            found.append(Match(signal, timed))
        entries = index[signal.key]
        if not entries:
            continue
        if len(entries) == 1:
            rule, leaf = entries[0]
            if _cheap(leaf, signal) and not rule.is_older(signal.xid):
                found.append(Match(signal, rule, (leaf,)))
            continue
        by_rule: dict[CompiledRule, list[Leaf | Tick]] = {}
        for rule, leaf in entries:
            if _cheap(leaf, signal) and not rule.is_older(signal.xid):
                by_rule.setdefault(rule, []).append(leaf)
        found += [
            Match(signal, rule, tuple(sorted(by_rule[rule], key=_index))) for rule in sorted(by_rule, key=_declared)
        ]
    return found


def questions(matches: Iterable[Match]) -> list[tuple[Signal, str, bool]]:
    """What only Postgres can answer: (signal, path, whether the path is a predicate), each once."""
    asked: dict[tuple[int, str], tuple[Signal, str, bool]] = {}
    for found in matches:
        if found.rule is None or not found.rule.asks:
            continue
        listed = [leaf for leaf in found.hits if isinstance(leaf, Leaf)]
        paths = [(leaf.where, True) for leaf in listed if leaf.where is not None]
        paths += [(leaf.path, False) for leaf in listed if leaf.path is not None]
        if found.rule.rule.by not in ("subject", "none"):
            paths.append((found.rule.rule.by, False))
        for path, predicate in paths:
            asked.setdefault((found.signal.id, path), (found.signal, path, predicate))
    return list(asked.values())


STARTS = f"run.%.{State.STARTING}"  # the keys of what `is_start`, as LIKE wants them


def is_start(signal: Signal) -> bool:
    """Whether it says that a run is starting."""
    return signal.key.startswith("run.") and signal.key.endswith(f".{State.STARTING}")


def is_resume(signal: Signal) -> bool:
    """Whether an order by hand ends a pause."""
    return '"RESUME"' in signal.value


def satisfied(leaf: Leaf | Tick, signal: Signal, answers: Answers) -> bool:
    """Whether a signal whose key a leaf names also meets its predicates.

    Raises ValueError or RecursionError on a value that cannot be read.
    """
    if isinstance(leaf, Tick):
        return True
    if leaf.where is not None and answers.get((signal.id, leaf.where)) is not True:
        return False
    return leaf.eq is MISSING or equal(signal.value, leaf.eq)


def is_asked(leaf: Leaf | Tick, signal: Signal, answers: Answers) -> bool:
    """Whether a leaf's function has a say in a signal: where the predicates beside it are not met, it neither hears nor remembers it."""
    if not isinstance(leaf, Leaf) or leaf.met_by is None:
        return False
    try:
        return satisfied(leaf, signal, answers)
    except (ValueError, RecursionError):
        return False


def found_at(leaf: Leaf | Tick, signal: Signal, answers: Answers) -> tuple[bool, Json]:
    """What a leaf counts or adds up of a signal, and whether there is such a thing: a sum takes numbers only."""
    if isinstance(leaf, Tick) or leaf.path is None:
        return True, None
    text = answers.get((signal.id, leaf.path))
    if leaf.total is None or text is None:
        return text is not None, text
    try:
        number = float(str(text))
    except ValueError:
        return False, None
    return isfinite(number), number


def equal(text: str, wanted: Json) -> bool:
    """Whether a value's JSON text means `wanted`, as jsonb compares: 1 is 1.0, true is not 1."""
    return text == json.dumps(wanted, ensure_ascii=False) or _same(json.loads(text), wanted)


def _same(a: Json, b: Json) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _cheap(leaf: Leaf | Tick, signal: Signal) -> bool:
    if isinstance(leaf, Tick):
        return signal.source == f"trigger:{leaf.name}"
    return (leaf.source is None or leaf.source == signal.source) and (
        leaf.subject is None or leaf.subject == signal.subject
    )


def _timed(catalog: Catalog, signal: Signal) -> CompiledRule | None:
    """The rule that a timer signal is for, if it is still in force."""
    try:
        return catalog.rules.get(int(json.loads(signal.value)["rule"]))
    except (ValueError, KeyError, TypeError):
        return None  # pgsig writes no such value


def _declared(rule: CompiledRule) -> tuple[int, int]:
    return rule.operator.id, rule.rule.ordinal


def _index(leaf: Leaf | Tick) -> int:
    return leaf.index
