"""A judge beside the engine. It looks at the tables that it finds after each step, keeps a ledger of its own, and replays what was taken,
one signal after the other, through the pure core."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pgsig.decide.catalog import Catalog, build
from pgsig.decide.decide import decide
from pgsig.decide.decision import Decision, Past, needs
from pgsig.decide.match import Match, is_resume, match, questions
from pgsig.decide.plan import Effects, carry_out
from pgsig.model import MOVES, Instance, LiveRun, Operator, Outcome, Signal, State
from pgsig.store import definitions, signals
from pgsig.store.database import Connection
from tests.flow.interest import interest

LIMIT = 4  # length of a causal chain
Key = tuple[int, str]
DOUBLE = """
SELECT rule_id, subject, cause_id, nth FROM pgsig_private.action GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
"""
# Both ways: a consumed outcome names an action that has the signal as evidence and was written by the same transaction; what an action
# consumed has that outcome. (What fires by a level alone consumes nothing.)
UNPAIRED = """
WITH fate AS (
    SELECT signal_id, rule_id, subject, outcome, action_id, xmin::text AS xmin FROM pgsig_private.outcome
    UNION ALL SELECT cause_id, rule_id, subject, 'consumed', id, xmin::text FROM pgsig_private.action WHERE consumed
)
SELECT 'twice', o.signal_id, o.rule_id, count(*) FROM fate o GROUP BY o.signal_id, o.rule_id, o.subject HAVING count(*) > 1
UNION ALL
SELECT 'outcome', o.signal_id, o.rule_id, o.action_id FROM fate o
  LEFT JOIN pgsig_private.action a ON a.id = o.action_id
 WHERE o.outcome = 'consumed'
   AND (a.id IS NULL OR o.signal_id <> ALL (a.evidence) OR a.rule_id <> o.rule_id OR a.subject <> o.subject
        OR a.xmin::text <> o.xmin)
UNION ALL
SELECT 'not consumed', o.signal_id, o.rule_id, o.action_id FROM fate o
 WHERE o.outcome <> 'consumed' AND o.action_id IS NOT NULL
UNION ALL
SELECT 'evidence', e.id, a.rule_id, a.id FROM pgsig_private.action a CROSS JOIN unnest(a.evidence) e(id)
  JOIN pgsig_private.rule r ON r.id = a.rule_id
  LEFT JOIN fate o ON o.signal_id = e.id AND o.rule_id = a.rule_id AND o.subject = a.subject AND o.action_id = a.id
 WHERE o.outcome IS DISTINCT FROM 'consumed' AND NOT r.condition ? 'sticky'
"""


class Judge:
    def __init__(self, floor: Connection) -> None:
        self.floor = floor
        self.moment = 0  # grows with each thing that happens
        self.seen: dict[int, int] = {}  # signal: when it was first visible
        self.made: dict[int, int] = {}  # rule: when it was first there
        self.taken: list[tuple[int, frozenset[int]]] = []  # signal, rules in force when it was taken
        self.runs: dict[int, str] = {}
        self.states: dict[Key, Any] = {}
        self.held: dict[tuple[int, int], Signal] = {}  # (signal, rule)
        self.actions: dict[tuple[int, str, int, int], tuple[Any, ...]] = {}
        self.outcomes: dict[tuple[int, int, str], tuple[str, str | None]] = {}
        self.operators: list[Operator] = []
        self._known: tuple[Any, ...] = ()

    def rows(self, text: str, *given: Any) -> list[Any]:
        return self.floor.execute(text.encode(), given or None).fetchall()

    # ── what happens ──

    def look(self) -> None:
        """Something happened: note what is visible now, and hold runs to their moves (E15)."""
        self.moment += 1
        for (number,) in self.rows("SELECT id FROM pgsig.signals ORDER BY id"):
            self.seen.setdefault(number, self.moment)
        for (number,) in self.rows("SELECT id FROM pgsig_private.rule"):
            self.made.setdefault(number, self.moment)
        for number, state in self.rows("SELECT id, state FROM pgsig_private.run"):
            before = self.runs.get(number)
            if before not in (None, state):
                assert State(state) in MOVES[State(before)], f"run {number}: {before} to {state}"
            self.runs[number] = state

    def before(self) -> tuple[list[Operator], dict[Key, Instance]]:
        """The definitions in force and what is alive, before a step; and what an apply did to the rules since."""
        revisions = tuple(self.rows("SELECT lane, revision FROM pgsig_private.lane ORDER BY lane"))
        if revisions != self._known:
            self._known, self.operators = revisions, definitions.catalog(self.floor)
            self.forget({rule.id for operator in self.operators for rule in operator.rules})
        alive: dict[Key, Instance] = {}
        for operator, subject, desired, generation in self.rows(
            "SELECT operator_id, subject, desired, generation FROM pgsig_private.instance"
        ):
            alive[operator, subject] = Instance(operator, subject, generation, desired)
        for operator, subject, number, state, stopping, generation in self.rows(
            "SELECT operator_id, subject, id, state, desired = 'stop', generation FROM pgsig_private.run WHERE ended_at IS NULL ORDER BY id"
        ):
            alive[operator, subject].runs.append(LiveRun(number, State(state), stopping, generation))
        return self.operators, alive

    def forget(self, in_force: set[int]) -> None:
        why = (str(Outcome.EXPIRED), "the rule was changed or removed")
        for (rule, subject), body in list(self.states.items()):
            if rule not in in_force:
                for number in pending(body) | set(levels(body)):
                    self.outcomes.setdefault((number, rule, subject), why)
                del self.states[rule, subject]
        for number, rule in list(self.held):
            if rule not in in_force:
                self.outcomes[number, rule, ""] = why
                del self.held[number, rule]

    # ── E3: the same signals one after the other ──

    def replay(
        self, past: tuple[list[Operator], dict[Key, Instance]], ids: Sequence[int], poison: Mapping[int, str]
    ) -> None:
        """What a committed step has to have led to."""
        operators, alive = past
        rows = self.rows(
            "SELECT id, namespace, key, subject, value::text, source, emitted_at, xid::text, depth, run_id FROM pgsig.signals"
            " WHERE id = ANY (%s)",
            list(ids),
        )
        found = {row[0]: signal_of(*row) for row in rows}
        catalog = build(operators, depth_limit=LIMIT)
        in_force: dict[str, set[int]] = {}
        for operator in operators:
            in_force.setdefault(operator.namespace, set()).update(rule.id for rule in operator.rules)
        for number in ids:
            self.taken.append((number, frozenset(in_force.get(found[number].namespace, ()))))
            matches = match(catalog, [found[number]])
            if number in poison:
                for one in matches:
                    if one.rule is not None:
                        self.outcomes[number, one.rule.rule.id, ""] = (str(Outcome.QUARANTINED), poison[number])
                continue
            if matches:
                decision = self.decide(catalog, matches, alive)
                if decision.pauses:
                    operators = [replace(o, paused=decision.pauses.get(o.id, o.paused)) for o in operators]
                    catalog = build(operators, depth_limit=LIMIT)

    def decide(self, catalog: Catalog, matches: list[Match], alive: dict[Key, Instance]) -> Decision:
        resumed = {one.operator.id for one in matches if one.operator is not None and is_resume(one.signal)}
        held = [
            again
            for (_, rule), signal in sorted(self.held.items(), key=lambda item: item[0][0])
            if catalog.rules[rule].operator.id in resumed
            for again in match(catalog, [signal])
            if again.rule is not None and again.rule.rule.id == rule
        ]
        answers = signals.ask(self.floor, questions([*held, *matches]))
        wanted = needs([*held, *matches], answers)
        live: dict[int, list[str]] = {}
        for (operator, subject), instance in alive.items():
            if instance.runs and operator in wanted.operators:
                live.setdefault(operator, []).append(subject)
        decision = decide(catalog, matches, Past(self.states, live, held), answers)
        self.keep(decision, {**{m.signal.id: m.signal for m in held}, matches[0].signal.id: matches[0].signal}, alive)
        return decision

    def keep(self, decision: Decision, near: dict[int, Signal], alive: dict[Key, Instance]) -> None:
        effects = Effects()
        for order in decision.orders:
            instance = alive.setdefault((order.operator.id, order.subject), Instance(order.operator.id, order.subject))
            number = -1 - len(self.actions)
            carry_out(order, instance, effects, number, iter([number]))
            key = (order.rule_id or -order.operator.id, order.subject, order.cause_id, order.nth)
            assert key not in self.actions, f"decided twice: {key}"
            row = effects.actions[-1]
            self.actions[key] = (
                *(str(row["action"]), str(row["result"]), list(row["evidence"])),
                *(order.operator.version, order.depth, row["explanation"]),
            )
        for number, rule in decision.released:
            self.held.pop((number, rule))
            del self.outcomes[number, rule, ""]
        for fate in decision.fates:
            place = (fate.signal_id, fate.rule_id, fate.subject)
            assert place not in self.outcomes, f"a second outcome: {fate} after {self.outcomes[place]}"
            self.outcomes[place] = (str(fate.outcome), fate.detail)
            if fate.outcome is Outcome.HELD:
                self.held[fate.signal_id, fate.rule_id] = near[fate.signal_id]
        for state, body in decision.states.items():
            self.states.pop(state, None)
            if body is not None:
                self.states[state] = json.loads(json.dumps(body))

    # ── the verdict ──

    def check(self) -> None:
        """Everything that has to hold at any time."""
        found = self.rows(
            "SELECT CASE a.rule_id WHEN 0 THEN -a.operator_id ELSE a.rule_id END, a.subject, a.cause_id, a.nth,"
            " a.action, a.result, a.evidence, a.version, a.depth, a.explanation FROM pgsig_private.action a"
        )
        assert {tuple(row[:4]): tuple(row[4:]) for row in found} == self.actions
        outcomes = self.rows("SELECT signal_id, rule_id, subject, outcome, detail FROM pgsig_private.fate")
        assert {tuple(row[:3]): tuple(row[3:]) for row in outcomes} == self.outcomes
        states = {
            tuple(row[:2]): row[2] for row in self.rows("SELECT rule_id, subject, body FROM pgsig_private.rule_state")
        }
        assert states == self.states
        assert self.rows(DOUBLE) == []
        assert (unpaired := self.rows(UNPAIRED)) == [], unpaired
        self.check_outcomes(states)
        for body in states.values():  # E13
            assert body != {"version": 1}
            assert all(len(set(map(_id, entries))) == len(entries) for entries in body.get("pending", {}).values())
            assert pending(body) <= set(self.seen)

    def check_outcomes(self, states: dict[Any, Any]) -> None:
        """E1: each signal that was taken is waited with, or has ended, for each rule that was interested; never both, never neither."""
        rules = {r[0]: r[1:] for r in self.rows("SELECT id, condition, by FROM pgsig_private.rule")}
        facts = {r[0]: r for r in self.rows("SELECT id, key, value::text, subject, xid::text FROM pgsig.signals")}
        ended: dict[tuple[int, int], list[str]] = {}
        for number, rule, subject in self.outcomes:
            ended.setdefault((number, rule), []).append(subject)
        waiting: dict[tuple[int, int], list[str]] = {}
        for (rule, subject), body in states.items():
            for number in pending(body) | {n for n, told in levels(body).items() if not told}:
                waiting.setdefault((number, rule), []).append(subject)
        for both in set(ended) & set(waiting):
            assert not set(ended[both]) & set(waiting[both]), f"ended and still waited with: {both}"
        assert len({number for number, _ in self.taken}) == len(self.taken), "taken twice"
        for number, in_force in self.taken:
            _, key, value, subject, _ = facts[number]
            for rule in in_force:
                places = ended.get((number, rule), []) + waiting.get((number, rule), [])
                must, may = interest(rules[rule][0], key, value)
                if key.startswith("timer."):
                    continue
                if self.seen[number] < self.made[rule] or not may:
                    assert not places, f"signal {number} is not for rule {rule}: {rules[rule]}, {key} {value[:40]}"
                elif must and self.seen[number] > self.made[rule]:
                    assert places, f"signal {number} vanished for rule {rule}: {rules[rule]}, {key} {value[:40]}"
                    one = rules[rule][1] == "none" or (rules[rule][1] == "subject" and subject != "")
                    assert len(places) == 1 or not one, f"{number}, {rule}: {places}"
        untaken = set(self.seen) - {number for number, _ in self.taken}
        assert not any(number in untaken for number, _ in ended), "ended before it was taken"


def signal_of(
    number: int,
    namespace: str,
    key: str,
    subject: str,
    value: str,
    source: str,
    at: datetime,
    xid: str,
    depth: int,
    run_id: int | None,
) -> Signal:
    return Signal(number, namespace, key, subject, value, source, at, int(xid), depth, run_id)


def _id(entry: Any) -> int:
    return int(entry[0])


def pending(body: Any) -> set[int]:
    return {entry[0] for entries in body.get("pending", {}).values() for entry in entries}


def levels(body: Any) -> dict[int, bool]:
    """Signals that are levels or have armed an absence, and whether their outcome is recorded already."""
    kept = [*body.get("levels", {}).values(), *body.get("armed", {}).values()]
    return {entry[0]: len(entry) > 5 and entry[5] for entry in kept}
