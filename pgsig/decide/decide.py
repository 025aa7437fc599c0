"""DECIDE: what a batch of matched signals leads to: orders, outcomes, and the state that the rules are left in.

Signals go one after the other, in the order of the log. For each, every interested rule advances in each instance that the signal reaches;
where several rules of one operator fire by the same signal, STOP wins, else the one declared first, and all consume what they used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from pgsig.condition import Leaf, Tick
from pgsig.decide.advance import Firing, Hit, advance
from pgsig.decide.catalog import Catalog, CompiledRule
from pgsig.decide.custom import StateKey, Verdict, custom_key, instance_of
from pgsig.decide.decision import Decision, Fate, Past
from pgsig.decide.explain import words
from pgsig.decide.match import Answers, Match, found_at, satisfied
from pgsig.decide.pass_time import next_due
from pgsig.decide.plan import Order
from pgsig.decide.state import RuleState
from pgsig.model import Action, Json, Operator, Outcome, Result, Signal

ORDERS = (Action.START, Action.STOP, Action.RESTART, Action.RELOAD)


def decide(
    catalog: Catalog, matches: Sequence[Match], past: Past, answers: Answers, suspects: Mapping[int, str] | None = None
) -> Decision:
    """The whole decision for a batch. past: everything that `needs` named. answers: what Postgres said of `questions`.

    suspects: signals whose evaluation has failed before, with the error. A rule that fails at one again puts that signal aside and is
    left as it was; every other rule goes on. They are to come alone: the rule goes back to what it was before the batch.
    """
    return _Decider(catalog, past, answers, suspects or {}).run(matches)


End = tuple[int, Outcome, int | None, str | None]  # signal, outcome, which firing consumed it, detail
Fired = tuple[CompiledRule, str, Firing]  # rule, instance, firing


class _Decider:
    def __init__(self, catalog: Catalog, past: Past, answers: Answers, suspects: Mapping[int, str]) -> None:
        self.suspects = suspects
        self.catalog, self.answers = catalog, answers
        self.live = {
            operator: dict(alive) if isinstance(alive, Mapping) else dict.fromkeys(alive, True)
            for operator, alive in past.live.items()
        }
        self.past = past.states
        self.states: dict[StateKey, RuleState] = {}
        self.by_rule: dict[int, set[str]] = {}
        for rule_id, subject in past.states:
            self.by_rule.setdefault(rule_id, set()).add(subject)
        self.paused = dict(catalog.paused)
        self.held: dict[int, list[Match]] = {}
        for found in past.held:
            if found.rule is not None:
                self.held.setdefault(found.rule.operator.id, []).append(found)
        self.told: dict[int, Json] = {}  # the words of simple rules that the database does not have
        self.dirty: set[StateKey] = set()
        self.decision = Decision()

    def run(self, matches: Sequence[Match]) -> Decision:
        # The matches of one signal and one operator compete with each other.
        begin, end = 0, len(matches)
        while begin < end:
            place = _signal_and_operator(matches[begin])
            after = begin + 1
            while (
                after < end
                and matches[after].signal is matches[begin].signal
                and _signal_and_operator(matches[after]) == place
            ):
                after += 1
            if after > begin + 1 or not self.alone(matches[begin]):
                self.contest(matches[begin:after])
            begin = after
        for key in self.dirty:
            self.decision.states[key] = self.states[key].to_json()
        return self.decision

    def alone(self, found: Match) -> bool:
        """The commonest case, on a short way: one simple START rule by subject, and nobody to compete with. False: it is not that."""
        rule, signal = found.rule, found.signal
        if (
            rule is None or not rule.plain or rule.operator.id in self.paused or signal.id in self.suspects
            or signal.depth >= self.catalog.depth_limit or not found.hits
        ):  # fmt: skip
            return False
        if not rule.sure and self.hits(found, rule) is None:
            return True
        orders, number = self.decision.orders, rule.rule.id
        self.decision.fates.append(Fate(signal.id, number, signal.subject, Outcome.CONSUMED, len(orders)))
        orders.append(Order(
            rule.operator, number, signal.subject, Action.START, signal.id, 0, signal.depth + 1, (signal.id,), self.explained(rule, signal),
            _given(rule, signal),
        ))  # fmt: skip
        self.live.setdefault(rule.operator.id, {}).setdefault(signal.subject, False)
        return True

    def contest(self, matches: Sequence[Match]) -> None:
        signal = matches[0].signal
        by_hand: list[Order] = []
        fired: list[Fired] = []
        ends: list[tuple[int, str, End]] = []
        for found in matches:
            if found.operator is not None:
                by_hand += self.manual(found.signal, found.operator)
            elif found.rule is not None and found.rule.operator.id in self.paused:
                self.hold(found, found.rule)
            elif found.rule is not None and signal.id in self.suspects:
                self.evaluate_suspect(found, found.rule, fired, ends)
            elif found.rule is not None:
                self.evaluate(found, found.rule, fired, ends)
        numbers = self.order(signal, fired, by_hand)
        for rule_id, subject, (signal_id, outcome, nth, detail) in ends:
            number = numbers.get((rule_id, subject, nth)) if nth is not None else None
            fate = Fate(signal_id, rule_id, subject, outcome, number, detail)
            if nth is not None and number is None:
                why = f"the causal chain is longer than {self.catalog.depth_limit}"
                fate = Fate(signal_id, rule_id, subject, Outcome.QUARANTINED, None, why)
            self.decision.fates.append(fate)

    def evaluate_suspect(
        self, found: Match, rule: CompiledRule, fired: list[Fired], ends: list[tuple[int, str, End]]
    ) -> None:
        here: list[Fired] = []
        ended: list[tuple[int, str, End]] = []
        try:
            self.evaluate(found, rule, here, ended)
        except Exception as error:  # noqa: BLE001 - rule 11: whatever one rule trips over, the others go on
            for key in [key for key in self.states if key[0] == rule.rule.id]:
                del self.states[key]
                self.dirty.discard(key)
                self.decision.timers.pop(key, None)
            why = f"{type(error).__name__}: {error}"[:500]
            self.decision.fates.append(Fate(found.signal.id, rule.rule.id, "", Outcome.QUARANTINED, None, why))
            return
        fired += here
        ends += ended

    def state(self, key: StateKey) -> RuleState | None:
        """What an instance of a rule remembers, read when it is first asked for."""
        found = self.states.get(key)
        if found is None and key in self.past:
            found = self.states[key] = RuleState.from_json(self.past[key])
        return found

    def evaluate(self, found: Match, rule: CompiledRule, fired: list[Fired], ends: list[tuple[int, str, End]]) -> None:
        """Let one rule meet one signal in every instance that the signal reaches."""
        signal = found.signal
        hits = self.hits(found, rule)
        if hits is None:
            return
        home = instance_of(rule, signal, self.answers) if hits else signal.subject
        for subject in self.instances(rule, home) if hits else [home]:
            firings, here = self.meet(rule, subject, signal, hits, visiting=subject != home)
            fired += [(rule, subject, firing) for firing in firings]
            ends += [(rule.rule.id, subject, end) for end in here]

    def hits(self, found: Match, rule: CompiledRule) -> list[Hit] | None:
        """The leaves that a signal names, with their truth; none for a timer; None where the rule is not interested after all."""
        try:
            hits = [self.hit(leaf, found.signal) for leaf in found.hits]
        except (ValueError, RecursionError) as error:
            why = f"its value cannot be read: {type(error).__name__}"
            self.decision.fates.append(Fate(found.signal.id, rule.rule.id, "", Outcome.QUARANTINED, None, why))
            return None
        if hits and not any(ok or (isinstance(leaf, Leaf) and leaf.mode != "edge") for leaf, ok, _ in hits):
            return None
        return hits

    def hit(self, leaf: Leaf | Tick, signal: Signal) -> Hit:
        there, x = found_at(leaf, signal, self.answers)
        return leaf, there and satisfied(leaf, signal, self.answers), x

    def meet(
        self, rule: CompiledRule, subject: str, signal: Signal, hits: list[Hit], visiting: bool
    ) -> tuple[list[Firing], list[End]]:
        if rule.simple:
            return self.fire_simple(rule, signal)
        key = (rule.rule.id, subject)
        state = self.state(key)
        if state is None:
            state = self.states[key] = RuleState()
        if rule.custom:
            for leaf in (leaf for leaf, _, _ in hits if isinstance(leaf, Leaf) and leaf.met_by):
                verdict = self.answers.get((signal.id, custom_key(rule, leaf, subject)))
                if isinstance(verdict, str):
                    return [], [(signal.id, Outcome.QUARANTINED, None, f"{leaf.met_by}: {verdict}")]
            hits = [self.custom(rule, state, subject, signal, hit) for hit in hits]
        shared = self.state((rule.rule.id, ""))
        result = advance(rule, state, shared, signal, hits, visiting=visiting, timer=not hits)
        self.dirty.add(key)
        # Settled after each signal, not at the end: a batch must not decide otherwise than its signals one by one.
        if rule.timed:
            due = self.decision.timers[key] = next_due(rule, state, max(state.clock, signal.at.timestamp()))
            if due is None and not rule.windows:
                state.clock = 0.0
        there = self.by_rule.setdefault(rule.rule.id, set())
        if state.is_empty():
            there.discard(subject)
        else:
            there.add(subject)
        return result.firings, result.outcomes

    def fire_simple(self, rule: CompiledRule, signal: Signal) -> tuple[list[Firing], list[End]]:
        firing = Firing(0, (signal.id,), signal.depth + 1, self.explained(rule, signal))
        return [firing], [(signal.id, Outcome.CONSUMED, 0, None)]

    def explained(self, rule: CompiledRule, signal: Signal) -> Json:
        """The explanation of a simple rule that fired; None where the database has the words."""
        if rule.rule.told:
            return None
        told = self.told.get(rule.rule.id)
        if told is None:
            told = self.told[rule.rule.id] = words(rule.leaves[0])
        return {**told, "evidence": [signal.id]}

    def custom(self, rule: CompiledRule, state: RuleState, subject: str, signal: Signal, hit: Hit) -> Hit:
        """What a `met_by` function said of a signal, in one instance."""
        leaf, ok, x = hit
        if isinstance(leaf, Tick) or leaf.met_by is None or not ok:
            return hit
        verdict = self.answers.get((signal.id, custom_key(rule, leaf, subject)))
        if not isinstance(verdict, Verdict):
            return leaf, False, x
        state.custom[str(leaf.index)] = verdict.state
        return leaf, verdict.met, x

    def instances(self, rule: CompiledRule, subject: str) -> list[str]:
        """A signal with a subject belongs to its instance; one without reaches every live instance, or the one without subject."""
        if subject != "" or rule.rule.by == "none":
            return [subject]
        alive = self.live.get(rule.operator.id, {}) if rule.rule.action is not Action.START else {}
        if rule.simple:
            return sorted(alive) or [""]
        return sorted({"", *alive, *self.by_rule.get(rule.rule.id, ())})

    def order(self, signal: Signal, fired: list[Fired], by_hand: list[Order]) -> dict[tuple[int, str, int | None], int]:
        """Turn firings into orders. Returns the order's number by (rule, instance, nth); a chain that is too long has none."""
        numbers: dict[tuple[int, str, int | None], int] = {}
        self.decision.orders += by_hand
        for order in by_hand:
            self.follow(order)
        for subject in sorted({subject for _, subject, _ in fired}):
            here = [
                (rule, firing, _instead(rule, firing))
                for rule, at, firing in fired
                if at == subject and firing.depth <= self.catalog.depth_limit
            ]
            able = [(_rank(rule, firing), rule) for rule, firing, instead in here if instead is None]
            winner = min(able, key=itemgetter(0))[1] if able else None
            if any(order.subject == subject and order.action is Action.STOP for order in by_hand):
                winner = None
            for rule, firing, instead in here:
                numbers[rule.rule.id, subject, firing.nth] = len(self.decision.orders)
                beaten = Result.OUTRANKED if rule is not winner else None
                order = Order(
                    rule.operator,
                    rule.rule.id,
                    subject,
                    _action(rule, firing),
                    signal.id,
                    firing.nth,
                    firing.depth,
                    firing.evidence,
                    firing.explanation,
                    params=_given(rule, signal),
                    instead=instead or beaten,
                )
                self.decision.orders.append(order)
                self.follow(order)
        return numbers

    def follow(self, order: Order) -> None:
        """Keep up what is alive: the next signal without subject reaches what this one started, and not what it ended."""
        if order.instead is not None or order.only_for:
            return
        alive = self.live.setdefault(order.operator.id, {})
        if order.action in (Action.START, Action.RESTART):
            alive.setdefault(order.subject, False)
        elif order.action is Action.STOP and not alive.get(order.subject):
            alive.pop(order.subject, None)

    # ── by hand ──

    def manual(self, signal: Signal, operator: Operator) -> list[Order]:
        """An order by hand. PAUSE and RESUME change the operator itself, from this place of the log on."""
        try:
            value = json.loads(signal.value)
            word = value["action"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return []  # pgsig.act writes no such value
        reason = value.get("reason") or "no reason given"
        told = f"by hand, {signal.source}: {reason}"
        evidence = (*value.get("evidence", ()), signal.id)
        order = Order(
            operator,
            0,
            signal.subject,
            Action.NONE,
            signal.id,
            0,
            signal.depth + 1,
            evidence,
            {"text": told, "met": True, "have": 1, "need": 1, "evidence": list(evidence)},
            params=value.get("params"),
            only_for=value.get("run"),
        )
        if word == "PAUSE":
            self.paused[operator.id] = self.decision.pauses[operator.id] = value.get("mode", "hold")
            return [order._replace(instead=Result.PAUSED)]
        if word == "RESUME":
            self.resume(operator)
            return [order._replace(instead=Result.RESUMED)]
        return [order._replace(action=Action(word))] if word in ORDERS else []

    def hold(self, found: Match, rule: CompiledRule) -> None:
        """Rule 8: a signal for a paused operator is kept for its resume, or dropped; both are recorded. Timers are always kept: what
        came before the pause must not wait for ever."""
        if self.hits(found, rule) is None:
            return
        mode = self.paused[rule.operator.id]
        if mode == "drop" and found.hits:
            fate = Fate(found.signal.id, rule.rule.id, "", Outcome.EXPIRED, None, "dropped, its operator was paused")
        else:
            fate = Fate(found.signal.id, rule.rule.id, "", Outcome.HELD, None, mode)
            self.held.setdefault(rule.operator.id, []).append(found)
        self.decision.fates.append(fate)

    def resume(self, operator: Operator) -> None:
        """Evaluate what was held, in its order, as if it came now; of a collapsed pause only the newest of each rule and instance."""
        mode = self.paused.pop(operator.id, None)
        self.decision.pauses[operator.id] = None
        held = self.held.pop(operator.id, [])
        again = {(found.signal.id, found.rule.rule.id) for found in held if found.rule is not None}
        self.decision.released += sorted(again)
        self.decision.fates = [
            fate
            for fate in self.decision.fates
            if fate.outcome is not Outcome.HELD or (fate.signal_id, fate.rule_id) not in again
        ]
        if mode == "collapse":
            held = self.newest(held)
        for _, competing in groupby(held, key=_signal_and_operator):
            self.contest(list(competing))

    def newest(self, held: list[Match]) -> list[Match]:
        last: dict[tuple[int, str], Match] = {}
        for found in held:
            if found.rule is None or not found.hits:
                continue
            place = (found.rule.rule.id, instance_of(found.rule, found.signal, self.answers))
            if (before := last.get(place)) is not None:
                why = f"collapsed at resume, by signal {found.signal.id}"
                fate = Fate(before.signal.id, place[0], place[1], Outcome.SUPERSEDED, None, why)
                self.decision.fates.append(fate)
            last[place] = found
        kept = {id(found) for found in last.values()}
        return [found for found in held if not found.hits or id(found) in kept]


def _given(rule: CompiledRule, signal: Signal) -> Json:
    """The parameters that a rule's ticks hand to the run: those of the tick that completes it as they stand in the tick, which a person
    may have fired with others; and those of a tick that it cannot have fired without."""
    if not rule.given and not signal.source.startswith("trigger:"):
        return None
    found: dict[str, Json] = {}
    for always, source, params in rule.given:
        if always or source == signal.source:
            found |= params
    if (
        signal.source.startswith("trigger:")
        and '"params"' in signal.value
        and signal.key == f"tick.{rule.operator.path}"
    ):
        found |= json.loads(signal.value)["params"]
    return found or None


def _instead(rule: CompiledRule, firing: Firing) -> Result | None:
    if rule.rule.shadow:
        return Result.SHADOW
    return Result.LIMITED if firing.limited and rule.rule.then is None else None


def _action(rule: CompiledRule, firing: Firing) -> Action:
    return rule.rule.then if firing.limited and rule.rule.then is not None else rule.rule.action


def _rank(rule: CompiledRule, firing: Firing) -> tuple[bool, int]:
    return _action(rule, firing) is not Action.STOP, rule.rule.ordinal


def _signal_and_operator(found: Match) -> tuple[int, int]:
    operator = found.operator if found.rule is None else found.rule.operator
    return found.signal.id, operator.id if operator is not None else 0
