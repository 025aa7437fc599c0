"""Loops: operators whose runs start each other for ever, with nothing from outside.

What counts is the signals that pgsig itself writes about runs; which signals a job emits no definition says (their causal depth
ends such a loop at run time). A START or RESTART rule feeds itself where signals of runs alone can make it true: one part of an
`any`, every part of an `all`. A signal of somebody else, a periodic trigger or an absence in an `all` breaks the loop: each round
then waits for that. So does `max`, unless `then` starts all the same. Levels only let pass, except as a whole condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pgsig.condition import Absent, Debounce, Leaf, Node, Not, Tick, Window, is_level, leaves
from pgsig.condition.parse import STATES
from pgsig.condition.pattern import matches
from pgsig.definition.check import PlacedRule
from pgsig.definition.values import Wrong

STARTING = ("start", "restart")


def check(workflow: str, rules: Sequence[PlacedRule], wrong: Wrong) -> None:
    """Refuse (PS533) each set of operators that could start each other for ever; the cycle is in the message."""
    by_operator: dict[str, list[PlacedRule]] = {}
    for rule in rules:
        if rule.action in STARTING and not _is_limited(rule):
            by_operator.setdefault(rule.operator, []).append(rule)
    # From all operators, take away whoever the rest cannot start again: what stays keeps itself going.
    alive = set(by_operator)
    while True:
        going = {name for name in alive if any(_can(rule.root, workflow, alive) for rule in by_operator[name])}
        if going == alive:
            break
        alive = going
    feeders = {name: _feeders(by_operator[name], workflow, alive) for name in by_operator if name in alive}
    left = dict(feeders)
    while left:
        cycle = _cycle(left)
        first = cycle[0]
        place = next(rule.where for rule in by_operator[first] if _can(rule.root, workflow, alive))
        shown = " → ".join([*cycle, first])
        wrong(
            place,
            f"{shown}: each run starts the next one, for ever"
            if len(cycle) > 1
            else f"{first} is started by what becomes of its own runs, for ever",
            "add a limit to a rule of the cycle, for instance max: 3/1h, or join it with a signal from outside",
            "PS533",
        )
        # Whoever hangs on this cycle would only repeat the message.
        left = {name: by for name, by in left.items() if not _reached_from(name, set(cycle), feeders)}


def _is_limited(rule: PlacedRule) -> bool:
    limited = "max" in rule.options and rule.options.get("then", "").lower() not in STARTING
    return limited or "shadow" in rule.options


def _can(node: Node, workflow: str, alive: set[str], inside: bool = False) -> bool:
    """Whether signals about runs of `alive` operators alone can make a node true. inside: another part has to happen anyway."""
    if isinstance(node, Leaf):
        return (inside and node.mode == "sticky") or bool(_named(node, workflow, alive))
    if isinstance(node, Not):
        return inside
    if isinstance(node, Tick | Absent):
        return False
    if isinstance(node, Debounce | Window):
        return _can(node.part, workflow, alive, inside)
    joined = node.kind in ("all", "at_least") and not is_level(node)
    true = sum(_can(part, workflow, alive, inside or joined) for part in node.parts)
    return true >= {"any": 1, "at_least": node.need}.get(node.kind, len(node.parts))


def _named(leaf: Leaf, workflow: str, operators: Iterable[str]) -> set[str]:
    """The operators whose runs a leaf hears of."""
    return {
        name for name in operators if any(matches(leaf.pattern, f"run.{workflow}.{name}.{state}") for state in STATES)
    }


def _feeders(rules: Iterable[PlacedRule], workflow: str, alive: set[str]) -> set[str]:
    return {
        name
        for rule in rules
        if _can(rule.root, workflow, alive)
        for leaf in leaves(rule.root)
        if isinstance(leaf, Leaf) and (leaf is rule.root or leaf.mode not in ("sticky", "watch", "arm"))
        for name in _named(leaf, workflow, alive)
    }


def _cycle(feeders: Mapping[str, set[str]]) -> list[str]:
    """One cycle, in the order in which its operators start each other; an operator that feeds itself goes first."""
    for name in feeders:
        if name in feeders[name]:
            return [name]
    path = [next(iter(feeders))]
    while True:
        before = min(feeders[path[-1]])
        if before in path:
            return path[path.index(before) :][::-1]
        path.append(before)


def _reached_from(name: str, cycle: set[str], feeders: Mapping[str, set[str]]) -> bool:
    """Whether a cycle is behind an operator, directly or through others."""
    seen: set[str] = set()
    pending = [name]
    while pending:
        here = pending.pop()
        if here in cycle:
            return True
        if here not in seen:
            seen.add(here)
            pending += feeders.get(here, ())
    return False
