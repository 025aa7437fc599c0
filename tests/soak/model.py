"""What the soak's rules mean, once more and in the simplest way: four forms, one signal after the other. Shares no code with pgsig."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.soak.evidence import Rule, Signal

READABLE = {"0", "1", "2", "3"}  # values of `load.picky` that are no poison


@dataclass
class Expected:
    """fired: the evidence of each action, by (rule, subject, cause). consumed: (signal, rule, subject). aside: (signal, rule)."""

    fired: dict[tuple[int, str, int], tuple[int, ...]] = field(default_factory=dict)
    consumed: set[tuple[int, int, str]] = field(default_factory=set)
    aside: set[tuple[int, int]] = field(default_factory=set)
    pending: dict[tuple[int, str], frozenset[int]] = field(default_factory=dict)


def expect(rules: Iterable[Rule], order: Iterable[tuple[Signal, int]]) -> Expected:
    """order: the signals as they were evaluated; between namespaces it does not matter."""
    interested: dict[tuple[str, str], list[Rule]] = defaultdict(list)
    for rule in rules:
        for key in keys(rule):
            interested[rule.namespace, key].append(rule)
    expected = Expected()
    waiting: dict[tuple[int, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for signal, _ in order:
        for rule in interested.get((signal.namespace, signal.key), ()):
            if "eq" in rule.condition:
                if signal.value not in READABLE:
                    expected.aside.add((signal.id, rule.id))
                    continue
                if signal.value != str(rule.condition["eq"]):
                    continue
            held = waiting[rule.id, signal.subject]
            held[signal.key].append(signal.id)
            used = _complete(rule, held)
            if used:
                expected.fired[rule.id, signal.subject, signal.id] = tuple(sorted(used))
                expected.consumed |= {(number, rule.id, signal.subject) for number in used}
    for place, held in waiting.items():
        left = frozenset(number for numbers in held.values() for number in numbers)
        if left:
            expected.pending[place] = left
    return expected


def keys(rule: Rule) -> list[str]:
    """The keys that a rule is interested in. A tick is `every` here: its key is that of the operator."""
    condition = rule.condition
    if "signal" in condition:
        return [condition["signal"]]
    if "every" in condition:
        return [f"tick.soak.{rule.operator}"]
    return [leaf["signal"] for leaf in condition["all"]]


def _complete(rule: Rule, held: dict[str, list[int]]) -> list[int]:
    """What a firing uses up, oldest first; nothing where something is missing."""
    portion = int(rule.condition.get("count", 1))
    wanted = keys(rule)
    if any(len(held[key]) < portion for key in wanted):
        return []
    return [held[key].pop(0) for key in wanted for _ in range(portion)]
