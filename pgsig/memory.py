"""What the database is to the engine, in memory: rule states, held signals, pauses, instances and timers.

Signals go through the same pure functions as in `pgsig.engine`: match, questions, needs, decide, carry_out; one signal at a time, as a
worker does that keeps up. Nothing here reads a clock. Used by `pgsig.testing` and by replays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pgsig.condition import jsonpath
from pgsig.condition.duration import limit
from pgsig.decide.catalog import Catalog, build
from pgsig.decide.custom import StateKey, Verdict, ask_functions
from pgsig.decide.decide import decide
from pgsig.decide.decision import Decision, Past, needs
from pgsig.decide.match import Answers, Match, is_resume, match, questions
from pgsig.decide.plan import Effects, Order, carry_out
from pgsig.definition import Definition, OperatorDefinition
from pgsig.errors import PgsigError
from pgsig.model import Action, Instance, Json, Operator, Outcome, Rule, Signal

Question = tuple[Signal, str, bool]
Ask = Callable[[Sequence[Question]], dict[tuple[int, str], object]]
AskFunction = Callable[[str, Signal, Json], Verdict | str]


@dataclass(slots=True)
class Consequence:
    """What one signal led to. rows: of the actions, as they would be recorded, each beside its order in `decision.orders`."""

    decision: Decision
    effects: Effects = field(default_factory=Effects)

    @property
    def acted(self) -> Iterator[tuple[Order, dict[str, Any]]]:
        return zip(self.decision.orders, self.effects.actions, strict=True)


def ask_here(asked: Sequence[Question]) -> dict[tuple[int, str], object]:
    """Answer questions about values without a database. Raises PgsigError PS570 for a path beyond `pgsig.condition.jsonpath`."""
    return {
        (signal.id, path): (jsonpath.holds if predicate else jsonpath.text_at)(path, signal.value)
        for signal, path, predicate in asked
    }


def no_function(name: str, signal: Signal, state: Json) -> Verdict | str:  # noqa: ARG001
    """A condition that is a SQL function cannot be asked without a database: raises PgsigError PS571."""
    raise PgsigError(
        f"{name} is a SQL function: only Postgres can run it",
        code="PS571",
        where=f"signal {signal.id}",
        fix="ask a database: WorkflowTest(…, database=URL), or --database-url",
    )


def operators_of(definition: Definition, *, version: int = 1) -> list[Operator]:
    """The operators of a definition as the engine knows them, numbered from 1; its rules too."""
    found, rules = [], iter(range(1, 1_000_000))
    for number, item in enumerate(definition.operators, 1):
        made = tuple(_rule(next(rules), number, ordinal, item) for ordinal in range(len(item.rules)))
        found.append(
            Operator(number, definition.namespace, definition.workflow, item.name, item.kind, version, item.spec, made)
        )
    return found


def _rule(number: int, operator: int, ordinal: int, item: OperatorDefinition) -> Rule:
    said = item.rules[ordinal]
    options = said.options
    return Rule(
        number, operator, said.name, said.action, ordinal, said.condition, said.by,
        most=limit(options["max"]) if "max" in options else None,
        then=Action(str(options["then"]).upper()) if "then" in options else None,
        shadow=bool(options.get("shadow")),
    )  # fmt: skip


def moment_of_timer(seconds: float) -> datetime:
    """The moment in whole microseconds; rounded down, a timer would find that it is not due yet."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment if moment.timestamp() >= seconds else moment + timedelta(microseconds=1)


class Memory:
    """Everything that outlives a signal. ask, ask_function: who answers what the engine asks Postgres; by default what needs none.

    `timers` holds when an instance of a rule wants to be looked at, in seconds since the epoch.
    """

    def __init__(
        self,
        operators: Iterable[Operator],
        *,
        ask: Ask = ask_here,
        ask_function: AskFunction = no_function,
        depth_limit: int = 100,
    ) -> None:
        self.catalog: Catalog = build(operators, depth_limit=depth_limit)
        self.by_path = {operator.path: operator for operator in self.catalog.operators.values()}
        self.states: dict[StateKey, Json] = {}
        self.timers: dict[StateKey, float] = {}
        self.instances: dict[int, dict[str, Instance]] = {number: {} for number in self.catalog.operators}
        self._subjects: dict[int, set[str]] = {}  # of the states, by rule
        self._held: dict[int, list[Match]] = {}  # by operator
        self._ask, self._ask_function = ask, ask_function

    def instance(self, operator: int, subject: str) -> Instance:
        """What is alive of an operator and subject; kept up to date by whoever simulates or follows runs."""
        return self.instances[operator].setdefault(subject, Instance(operator, subject))

    def take(
        self, signal: Signal, action_ids: Iterator[int], run_ids: Callable[[Order], Iterator[int]]
    ) -> Consequence | None:
        """Evaluate one signal and remember what a worker would record. None where nobody is interested."""
        matches = match(self.catalog, [signal])
        if not matches:
            return None
        resumed = {found.operator.id for found in matches if found.operator is not None and is_resume(found.signal)}
        held = [found for number in sorted(resumed) for found in self._held.get(number, ())]
        every = [*held, *matches]
        answers: Answers = self._ask(asked) if (asked := questions(every)) else {}
        past = self._past(every, answers, held)
        if any(found.rule is not None and found.rule.custom for found in every):
            answers = {**answers, **ask_functions(every, past.states, answers, self._ask_function)}
        decision = decide(self.catalog, matches, past, answers)
        self._remember(decision, matches)
        result = Consequence(decision)
        for order in decision.orders:
            instance = self.instance(order.operator.id, order.subject)
            carry_out(order, instance, result.effects, next(action_ids), run_ids(order))
        return result

    def _past(self, matches: Sequence[Match], answers: Answers, held: Sequence[Match]) -> Past:
        wanted = needs(matches, answers)
        keys = {*wanted.states, *((rule, s) for rule in wanted.whole_rules for s in self._subjects.get(rule, ()))}
        live = {
            number: [subject for subject, instance in self.instances[number].items() if instance.runs]
            for number in wanted.operators
        }
        return Past({key: self.states[key] for key in keys if key in self.states}, live, held)

    def _remember(self, decision: Decision, matches: Sequence[Match]) -> None:
        for key, body in decision.states.items():
            subjects = self._subjects.setdefault(key[0], set())
            if body is None:
                self.states.pop(key, None)
                subjects.discard(key[1])
            else:
                self.states[key] = body
                subjects.add(key[1])
        for key, due in decision.timers.items():
            if due is None:
                self.timers.pop(key, None)
            else:
                self.timers[key] = due
        for number, mode in decision.pauses.items():
            if mode is None:
                self.catalog.paused.pop(number, None)
            else:
                self.catalog.paused[number] = mode
        gone = set(decision.released)
        for number, waiting in list(self._held.items()):
            self._held[number] = [m for m in waiting if m.rule is None or (m.signal.id, m.rule.rule.id) not in gone]
        kept = {(fate.signal_id, fate.rule_id) for fate in decision.fates if fate.outcome is Outcome.HELD}
        for found in matches:
            if found.rule is not None and (found.signal.id, found.rule.rule.id) in kept:
                self._held.setdefault(found.rule.operator.id, []).append(found)
