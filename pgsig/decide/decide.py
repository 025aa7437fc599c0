"""DECIDE: what a batch of matched signals leads to: orders, outcomes, and the state that the rules are left in.

Signals go one after the other, in the order of the log. For each, every interested rule advances in each instance that the signal reaches;
where several rules of one operator fire by the same signal, STOP wins, else the one declared first, and all consume what they used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pgsig.condition import Leaf, Tick
from pgsig.decide.advance import Firing, Hit, advance
from pgsig.decide.catalog import Catalog, CompiledRule
from pgsig.decide.explain import explain
from pgsig.decide.find import View
from pgsig.decide.match import Answers, Match, found_at, satisfied
from pgsig.decide.pass_time import next_due
from pgsig.decide.plan import Order
from pgsig.decide.state import RuleState
from pgsig.model import Action, Json, Operator, Outcome, Signal

StateKey = tuple[int, str]  # rule id, instance


@dataclass(frozen=True, slots=True)
class Fate:
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
    remember; timers: when each changed instance of a rule that knows time wants to be looked at, None for not at all."""

    orders: list[Order] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    states: dict[StateKey, Json | None] = field(default_factory=dict)
    timers: dict[StateKey, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """What of the past a batch needs: single states, rules of which every instance is reached, operators whose live instances are."""

    states: frozenset[StateKey]
    whole_rules: frozenset[int]
    operators: frozenset[int]


def needs(matches: Iterable[Match], answers: Answers) -> Needs:
    """Which states to load before `decide`."""
    states: set[StateKey] = set()
    whole: set[int] = set()
    operators: set[int] = set()
    for found in matches:
        if (rule := found.rule) is None:
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


def instance_of(rule: CompiledRule, signal: Signal, answers: Answers) -> str:
    """The instance of a rule that a signal belongs to; "" where it names none."""
    if rule.rule.by == "subject":
        return signal.subject
    if rule.rule.by == "none":
        return ""
    return str(answers.get((signal.id, rule.rule.by)) or "")


def decide(
    catalog: Catalog,
    matches: Sequence[Match],
    states: Mapping[StateKey, Json],
    live: Mapping[int, Sequence[str]],
    answers: Answers,
) -> Decision:
    """The whole decision for a batch. states: bodies by (rule, instance), everything that `needs` named. live: subjects of the live
    instances of the operators that `needs` named."""
    return _Decider(catalog, states, live, answers).run(matches)


class _Decider:
    def __init__(
        self, catalog: Catalog, states: Mapping[StateKey, Json], live: Mapping[int, Sequence[str]], answers: Answers
    ) -> None:
        self.catalog, self.live, self.answers = catalog, live, answers
        self.states = {key: RuleState.from_json(body) for key, body in states.items()}
        self.by_rule: dict[int, set[str]] = {}
        for rule_id, subject in self.states:
            self.by_rule.setdefault(rule_id, set()).add(subject)
        self.dirty: set[StateKey] = set()
        self.decision = Decision()

    def run(self, matches: Sequence[Match]) -> Decision:
        start = 0
        while start < len(matches):
            # The matches of one signal and one operator compete with each other.
            first = matches[start]
            end = start + 1
            while (
                end < len(matches)
                and matches[end].signal is first.signal
                and _operator(matches[end]) is _operator(first)
            ):
                end += 1
            self.contest(matches[start:end])
            start = end
        for key in self.dirty:
            state = self.states[key]
            rule = self.catalog.rules[key[0]]
            if rule.timed:
                due = self.decision.timers[key] = next_due(rule, state, state.clock)
                if due is None and not rule.windows:
                    state.clock = 0.0
            self.decision.states[key] = state.to_json()
        return self.decision

    def contest(self, matches: Sequence[Match]) -> None:
        fired: list[tuple[CompiledRule, str, Firing]] = []
        by_hand = [
            order
            for found in matches
            if found.operator is not None and (order := self.manual(found.signal, found.operator))
        ]
        fates: list[tuple[int, str, int, Outcome, int | None, str | None]] = []
        for found in matches:
            if found.rule is None:
                continue
            try:
                hits = [self.hit(leaf, found.signal) for leaf in found.hits]
            except (ValueError, RecursionError) as error:
                fates.append(
                    (
                        found.rule.rule.id,
                        "",
                        found.signal.id,
                        Outcome.QUARANTINED,
                        None,
                        f"its value cannot be read: {type(error).__name__}",
                    )
                )
                continue
            if not hits:
                targets, home = [found.signal.subject], found.signal.subject
            elif not any(ok or (isinstance(leaf, Leaf) and leaf.mode != "edge") for leaf, ok, _ in hits):
                continue
            else:
                home = instance_of(found.rule, found.signal, self.answers)
                targets = self.instances(found.rule, home)
            for subject in targets:
                firings, ends = self.meet(found.rule, subject, found.signal, hits, visiting=subject != home)
                fired += [(found.rule, subject, firing) for firing in firings]
                fates += [(found.rule.rule.id, subject, *end) for end in ends]
        numbers = self.order(matches[0].signal, fired, by_hand)
        for rule_id, subject, signal_id, outcome, nth, detail in fates:
            number = numbers.get((rule_id, subject, nth)) if nth is not None else None
            fate = Fate(signal_id, rule_id, subject, outcome, number, detail)
            if nth is not None and number is None:
                why = f"the causal chain is longer than {self.catalog.depth_limit}"
                fate = Fate(signal_id, rule_id, subject, Outcome.QUARANTINED, None, why)
            self.decision.fates.append(fate)

    def meet(
        self, rule: CompiledRule, subject: str, signal: Signal, hits: list[Hit], visiting: bool
    ) -> tuple[list[Firing], list[tuple[int, Outcome, int | None, str | None]]]:
        if rule.simple:
            return _fire_simple(rule, signal)
        key = (rule.rule.id, subject)
        state = self.states.get(key)
        if state is None:
            state = self.states[key] = RuleState()
            self.by_rule.setdefault(rule.rule.id, set()).add(subject)
        shared = self.states.get((rule.rule.id, ""))
        result = advance(rule, state, shared, signal, hits, visiting=visiting, timer=not hits)
        self.dirty.add(key)
        return result.firings, result.outcomes

    def hit(self, leaf: Leaf | Tick, signal: Signal) -> Hit:
        there, x = found_at(leaf, signal, self.answers)
        return leaf, there and satisfied(leaf, signal, self.answers), x

    def instances(self, rule: CompiledRule, subject: str) -> list[str]:
        """A signal with a subject belongs to its instance; one without reaches every live instance, or the one without subject."""
        if subject != "" or rule.rule.by == "none":
            return [subject]
        alive = self.live.get(rule.operator.id, ()) if rule.rule.action is not Action.START else ()
        if rule.simple:
            return sorted(alive) or [""]
        return sorted({"", *alive, *self.by_rule.get(rule.rule.id, ())})

    def order(
        self, signal: Signal, fired: list[tuple[CompiledRule, str, Firing]], by_hand: list[Order]
    ) -> dict[tuple[int, str, int | None], int]:
        """Turn firings into orders. Returns the order's number by (rule, instance, nth); a chain that is too long has none."""
        numbers: dict[tuple[int, str, int | None], int] = {}
        self.decision.orders += by_hand
        for subject in sorted({subject for _, subject, _ in fired}):
            here = [
                (rule, firing)
                for rule, at, firing in fired
                if at == subject and firing.depth <= self.catalog.depth_limit
            ]
            if not here:
                continue
            winner: CompiledRule | None = min((rule for rule, _ in here), key=_rank)
            if any(order.subject == subject and order.action is Action.STOP for order in by_hand):
                winner = None
            for rule, firing in here:
                numbers[rule.rule.id, subject, firing.nth] = len(self.decision.orders)
                self.decision.orders.append(Order(
                    rule.operator, rule.rule.id, subject, rule.rule.action, signal.id, firing.nth, firing.depth, firing.evidence,
                    firing.explanation, outranked=rule is not winner,
                ))  # fmt: skip
        return numbers

    def manual(self, signal: Signal, operator: Operator) -> Order | None:
        try:
            value = json.loads(signal.value)
            action = Action(value["action"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None  # pgsig.act writes no such value
        reason = value.get("reason") or "no reason given"
        return Order(operator, 0, signal.subject, action, signal.id, 0, signal.depth + 1, (signal.id,),
                     {"text": f"by hand, {signal.source}: {reason}", "met": True, "have": 1, "need": 1, "evidence": [signal.id]},
                     params=value.get("params"))  # fmt: skip


def _fire_simple(
    rule: CompiledRule, signal: Signal
) -> tuple[list[Firing], list[tuple[int, Outcome, int | None, str | None]]]:
    explanation = {**explain(rule.root, View({}, {})), "met": True, "have": 1, "evidence": [signal.id]}
    return [Firing(0, (signal.id,), signal.depth + 1, explanation)], [(signal.id, Outcome.CONSUMED, 0, None)]


def _rank(rule: CompiledRule) -> tuple[bool, int]:
    return rule.rule.action is not Action.STOP, rule.rule.ordinal


def _operator(found: Match) -> Operator | None:
    return found.operator if found.rule is None else found.rule.operator
