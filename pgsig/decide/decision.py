"""What a decision needs of the past, and what it comes to: values that the store loads and records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pgsig.decide.custom import StateKey, instance_of
from pgsig.decide.match import Answers, Match
from pgsig.decide.plan import Order
from pgsig.model import Action, Json, Outcome


class Fate(NamedTuple):
    """How a signal ended for one instance of a rule. order: index into `Decision.orders` of the action that consumed it."""

    signal_id: int
    rule_id: int
    subject: str
    outcome: Outcome
    order: int | None = None
    detail: str | None = None


@dataclass(slots=True)
class Decision:
    """orders, in the order in which they are carried out; fates; the states that changed, None for those with nothing left to
    remember; timers: when each changed instance of a rule that knows time wants to be looked at, None for not at all; pauses: by
    operator, None where it was resumed; released: (signal, rule) that were held and are no longer.
    """

    orders: list[Order] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    states: dict[StateKey, Json | None] = field(default_factory=dict)
    timers: dict[StateKey, float | None] = field(default_factory=dict)
    pauses: dict[int, str | None] = field(default_factory=dict)
    released: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Needs:
    """What of the past a batch needs: single states, rules of which every instance is reached, operators whose live instances are."""

    states: frozenset[StateKey]
    whole_rules: frozenset[int]
    operators: frozenset[int]


@dataclass(frozen=True, slots=True)
class Past:
    """What was loaded of it. states: bodies by (rule, instance). live: subjects of live instances by operator, true where a run is in
    the hands of a runner (as all are without that word), so that a STOP does not end it at once. held: the matches that wait for the
    resume of operators that are resumed in this batch."""

    states: Mapping[StateKey, Json] = field(default_factory=dict)
    live: Mapping[int, Mapping[str, bool] | Sequence[str]] = field(default_factory=dict)
    held: Sequence[Match] = ()


def needs(matches: Iterable[Match], answers: Answers) -> Needs:
    """Which states to load before `decide`."""
    states: set[StateKey] = set()
    whole: set[int] = set()
    operators: set[int] = set()
    for found in matches:
        if (rule := found.rule) is None or (rule.simple and found.signal.subject and rule.rule.by == "subject"):
            continue
        timer = not found.hits
        subject = found.signal.subject if timer else instance_of(rule, found.signal, answers)
        if subject == "" and rule.rule.by != "none" and not timer:
            if not rule.simple:
                whole.add(rule.rule.id)
            if rule.rule.action is not Action.START:
                operators.add(rule.operator.id)
        if not rule.simple:
            states.add((rule.rule.id, subject))
            states.add((rule.rule.id, ""))
    return Needs(frozenset(states), frozenset(whole), frozenset(operators))
