"""A bench for the pure core: an operator and its rules from canonical JSON, signals by the second, decisions without a database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from pgsig.decide.catalog import Catalog, build
from pgsig.decide.decide import decide
from pgsig.decide.decision import Decision, Past
from pgsig.decide.match import Answers, Match, match
from pgsig.decide.plan import Effects, carry_out
from pgsig.model import Action, Instance, Json, Kind, Operator, Rule, Signal

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def operator(
    *rules: tuple[str, Json],
    name: str = "op",
    kind: Kind = Kind.BATCH,
    number: int = 1,
    by: str = "subject",
    **spec: Any,
) -> Operator:
    """An operator `w.<name>` with rules given as (action, condition)."""
    rules_of_it = tuple(
        Rule(number * 100 + i, number, f"{action.lower()}.{i}", Action(action), i, condition, by)
        for i, (action, condition) in enumerate(rules)
    )
    return Operator(number, "default", "w", name, kind, 1, spec, rules_of_it)


class Bench:
    """Feeds signals to a catalog, one decision each, and remembers what the database would."""

    def __init__(self, *operators: Operator, depth_limit: int = 100) -> None:
        self.catalog: Catalog = build(operators, depth_limit=depth_limit)
        self.states: dict[tuple[int, str], Json] = {}
        self.instances: dict[tuple[int, str], Instance] = {}
        self.live: dict[int, dict[str, bool] | list[str]] = {}
        self.held: list[Match] = []
        self.ids = count(1)
        self.run_ids = count(1)
        self.decisions: list[Decision] = []
        self.effects = Effects()

    def signal(
        self, key: str, value: Json = None, subject: str = "", *, at: float = 0.0, source: str = "me", depth: int = 0
    ) -> Signal:
        position = next(self.ids)
        when = EPOCH + timedelta(seconds=at or position)
        return Signal(position, "default", key, subject, json.dumps(value), source, when, position, depth)

    def feed(self, signals: Iterable[Signal], answers: Answers | None = None) -> Decision:
        """Decide a batch and keep its states."""
        matches = match(self.catalog, signals)
        decision = decide(self.catalog, matches, Past(self.states, self.live, self.held), answers or {})
        for key, body in decision.states.items():
            # Through text and back, as the database would.
            self.states.pop(key, None)
            if body is not None:
                self.states[key] = json.loads(json.dumps(body))
        self.decisions.append(decision)
        for order in decision.orders:
            instance = self.instances.setdefault(
                (order.operator.id, order.subject), Instance(order.operator.id, order.subject)
            )
            carry_out(order, instance, self.effects, len(self.effects.actions) + 1, self.run_ids)
        return decision

    def emit(self, key: str, value: Json = None, subject: str = "", **given: Any) -> list[tuple[int, ...]]:
        """Feed one signal. Returns the evidence of every firing that it caused."""
        return [order.evidence for order in self.feed([self.signal(key, value, subject, **given)]).orders]

    def fates(self) -> list[tuple[int, str]]:
        """(signal, outcome) of all fates so far, in order."""
        return [(fate.signal_id, str(fate.outcome)) for decision in self.decisions for fate in decision.fates]

    def results(self) -> Sequence[str]:
        return [str(row["result"]) for row in self.effects.actions]


def fired(condition: Json, *events: Any, by: str = "subject") -> list[list[tuple[int, ...]]]:
    """Evidence of each firing of one START rule, signal by signal. An event is a key, or (key, value[, subject[, at]])."""
    bench = Bench(operator(("START", condition), by=by))
    found = []
    for event in events:
        given: tuple[Any, ...] = (event,) if isinstance(event, str) else event
        rest: tuple[Any, ...] = (None, "", 0.0)
        key, value, subject, at = given + rest[len(given) - 1 :]
        found.append(bench.emit(key, value, subject, at=at))
    return found
