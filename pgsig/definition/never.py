"""Conditions that can never be true: refused where that can be proved, code PS514.

contradiction   `all` or `seq` of parts that look at one and the same signal, the last one of a pattern, and want different things of
                it: levels and `latest` with two values of `eq`, a level together with its own negation, two `latest` in a `seq`
subjects        parts for different subjects in a rule that has an instance for each subject
too short       more ticks of a fixed interval than the span of a `within` or the length of a `window` has room for. Ticks that a
                clock makes up for after it was away do not count: a rule that needs them is a mistake all the same

Everything else may come true as far as a definition tells: two values of one key are two signals, predicates of `where` are not
compared, and nobody says how often a user's signal comes. A worker does not ask: a condition that is in force stays so.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, count, islice

from pgsig.condition import MISSING, Absent, Debounce, Group, Leaf, Node, Not, Tick, Window, leaves
from pgsig.condition import duration as durations
from pgsig.condition.calendar import DAY
from pgsig.condition.dump import digest
from pgsig.definition.check import PlacedRule
from pgsig.definition.values import Wrong
from pgsig.model import Json

CODE = "PS514"
Intervals = Mapping[str, Sequence[float]]  # of the ticks of a key that come at intervals alone


def check(rules: Sequence[PlacedRule], wrong: Wrong) -> None:
    """Name every condition of a definition that can never be true."""
    intervals = _intervals(rules)
    for rule in rules:
        told: str | None = None  # the place of a contradiction: what is in it would say the same again
        for node, where in _places(rule.root, rule.where):
            if isinstance(node, Group):
                if told is None or not f"{where}/".startswith(f"{told}/"):
                    told = where if _contradiction(node, where, wrong) else told
                if node.within is not None and (least := shortest(node, intervals)) > node.within:
                    _too_short(where, "within", node.within, least, wrong)
            elif isinstance(node, Window):
                # A day may have 25 hours.
                least, room = (
                    shortest(node.part, intervals),
                    node.length + (3600 if node.length >= DAY and node.zone != "UTC" else 0),
                )
                if least >= room:
                    _too_short(where, "window", node.length, least, wrong)
        if rule.by == "subject":
            _apart(rule, wrong)


def _too_short(where: str, key: str, given: float, least: float, wrong: Wrong) -> None:
    said, needed = durations.text(given), durations.text(least)
    fix = (
        f"give it {needed} or more, or wait for fewer" if key == "within" else "take a longer window, or wait for fewer"
    )
    wrong(f"{where}/{key}", f"never true: its ticks take {needed} at least, {key} is {said}", fix, CODE)


# ── one signal, two wishes ──


def _contradiction(group: Group, where: str, wrong: Wrong) -> bool:
    if group.kind == "any" or (group.kind == "at_least" and group.need < len(group.parts)):
        return False
    wanted = [part for part in group.parts for part in _together(part)]
    newest = [part for part in wanted if isinstance(part, Leaf)]
    denied = [part.part for part in wanted if isinstance(part, Not) and isinstance(part.part, Leaf)]
    for one, other in combinations(newest, 2):
        if _looks_at(one) != _looks_at(other):
            continue
        if MISSING not in (one.eq, other.eq) and not same(one.eq, other.eq):
            wrong(
                where,
                f"never true: the last {one.pattern} would have to be two values at once",
                "join them by any, or make them signals that happen: without sticky and latest",
                CODE,
            )
            return True
        if group.kind == "seq":
            wrong(where, f"never true: there is one latest {one.pattern}", "leave latest out", CODE)
            return True
    for one in newest:
        for other in denied:
            if _looks_at(one) == _looks_at(other) and _implies(one, other):
                wrong(where, f"never true: {one.pattern} is wanted and denied", "leave one out", CODE)
                return True
    return False


def _together(node: Node) -> Iterator[Leaf | Not]:
    """The parts of a part that have to hold at the same time: what looks at the last signal, and what is denied."""
    if isinstance(node, Not) or (isinstance(node, Leaf) and node.mode in ("sticky", "latest")):
        yield node
    elif isinstance(node, Group) and (node.kind in ("all", "seq") or node.need == len(node.parts)):
        for part in node.parts:
            yield from _together(part)


def _looks_at(leaf: Leaf) -> tuple[str, str | None, str | None]:
    return leaf.pattern, leaf.source, leaf.subject


def _implies(one: Leaf, other: Leaf) -> bool:
    value = other.eq is MISSING or (one.eq is not MISSING and same(one.eq, other.eq))
    return value and other.where in (None, one.where)


def same(a: Json, b: Json) -> bool:
    """Whether two values are equal as jsonb has it: 1 is 1.0, true is not 1."""
    return digest(_plain(a)) == digest(_plain(b))


def _plain(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ── instances ──


def _apart(rule: PlacedRule, wrong: Wrong) -> None:
    for node, where in _places(rule.root, rule.where):
        if not isinstance(node, Group) or node.kind not in ("all", "seq"):
            continue
        subjects = sorted({part.subject for part in node.parts if isinstance(part, Leaf) and part.subject})
        if len(subjects) > 1:
            wrong(
                where,
                f"never true: the rule has an instance for each subject, and {' and '.join(subjects[:2])} never meet in one",
                "add by: none to the rule, or a path that both have",
                CODE,
            )
            return


# ── ticks ──


def shortest(node: Node, intervals: Intervals) -> float:
    """The least number of seconds in which signals can make a node true; 0 where nothing is known."""
    if isinstance(node, Leaf):
        return _span_of(node.count, intervals.get(node.pattern, ())) if node.count > 1 else 0.0
    if isinstance(node, Debounce | Window):
        return shortest(node.part, intervals)
    if not isinstance(node, Group):
        return 0.0
    spans = sorted(shortest(part, intervals) for part in node.parts)
    if node.kind == "any":
        return spans[0]
    if node.kind != "seq":
        return spans[(node.need or len(spans)) - 1]
    names = [part.name for part in node.parts if isinstance(part, Tick)]
    every = {part.name: _every(part) for part in node.parts if isinstance(part, Tick)}
    return max(sum(spans), *(every[name] * (names.count(name) - 1) for name in every), 0.0)


def _span_of(n: int, every: Sequence[float]) -> float:
    """The least span that holds n ticks of triggers with these intervals."""
    if not every:
        return 0.0
    ticks = heapq.merge(*([step * number for number in range(n)] for step in every))
    return next(islice(ticks, n - 1, None))


def _intervals(rules: Iterable[PlacedRule]) -> Intervals:
    """By key of ticks: the intervals of an operator's triggers, where each of them has one."""
    found: dict[str, dict[str, float]] = {}
    for rule in rules:
        for leaf in leaves(rule.root):
            if isinstance(leaf, Tick):
                found.setdefault(leaf.pattern, {})[leaf.name] = _every(leaf)
    return {key: list(by_name.values()) for key, by_name in found.items() if all(by_name.values())}


def _every(tick: Tick) -> float:
    """Seconds between two ticks of a trigger, 0 where that varies."""
    return durations.seconds(tick.spec["every"]) if "every" in tick.spec and "jitter" not in tick.spec else 0.0


def _places(node: Node, where: str) -> Iterator[tuple[Node, str]]:
    """Each node with its JSON pointer, as its canonical form has it."""
    yield node, where
    if isinstance(node, Debounce | Window):
        yield from _places(node.part, where)
    elif isinstance(node, Not):
        yield from _places(node.part, f"{where}/not")
    elif isinstance(node, Group):
        beside = node.kind == "all" and len(node.parts) == 1 and isinstance(node.parts[0], Leaf) and node.within
        name = "of" if node.kind == "at_least" else node.kind
        for number, part in zip(count(), node.parts, strict=False):
            yield from _places(part, where if beside else f"{where}/{name}/{number}")
    elif isinstance(node, Absent):
        yield node.watch, f"{where}/absent"
