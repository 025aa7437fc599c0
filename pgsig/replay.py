"""REPLAY: what a workflow would have decided over a stretch of the log, beside what was done.

Signals go in order of their position, one at a time, through the engine's own functions; nothing is recorded. State signals are taken
as they are: which runs were alive is what the log says. A timer that the log has for the same rule, instance and due time comes where
it came; any other one comes before the first signal after its time. Rules begin with nothing remembered, as after a first apply.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from math import inf
from typing import Any, Literal, NamedTuple

from pgsig.decide.plan import Order
from pgsig.definition import Definition
from pgsig.memory import Ask, AskFunction, Consequence, Memory, ask_here, moment_of_timer, no_function, operators_of
from pgsig.model import FINAL, Json, LiveRun, Outcome, Signal, State

BETWEEN = 1 << 20  # places for timers of the replay between two positions of the log
SAME_DUE = 0.002  # seconds: the same due time, written as microseconds and as a float
Diff = Literal["same", "replay", "history"]


class Key(NamedTuple):
    """What makes an action of the replay the same as one that was done."""

    cause: int
    operator: str
    subject: str
    rule: str
    action: str
    nth: int


@dataclass(frozen=True, slots=True)
class Done:
    """An action that was recorded. cause: position of the signal. nth: which firing of the rule by it."""

    cause: int
    operator: str
    subject: str
    rule: str
    action: str
    nth: int
    result: str
    run_id: int | None = None
    id: int | None = None

    @property
    def key(self) -> Key:
        return Key(self.cause, self.operator, self.subject, self.rule, self.action, self.nth)


@dataclass(frozen=True, slots=True)
class Page:
    """Signals in order of their position, and what was done because of them."""

    signals: list[Signal]
    done: list[Done] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Line:
    """One action. diff: in both, only in the replay, only in history. result: of the replay, else of history. then: of history where
    the two differ. at, key: of the signal; a timer of the replay alone stands after `signal` and has no position of its own."""

    diff: Diff
    signal: int
    key: str
    at: datetime
    operator: str
    subject: str
    rule: str
    action: str
    result: str
    evidence: tuple[int, ...] = ()
    then: str | None = None
    action_id: int | None = None
    own_timer: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        said = {
            "diff": self.diff, "signal": self.signal, "key": self.key, "at": self.at.isoformat(), "operator": self.operator,
            "subject": self.subject, "rule": self.rule, "action": self.action, "result": self.result, "evidence": list(self.evidence),
        }  # fmt: skip
        beside = {"result_in_history": self.then, "action_id": self.action_id, "own_timer": self.own_timer or None}
        return said | {name: value for name, value in beside.items() if value is not None}


class Replay:
    """Decide over stored signals. alive: (operator, subject, run) of what was alive at the begin. `seen` counts signals."""

    def __init__(
        self,
        definition: Definition,
        *,
        ask: Ask = ask_here,
        ask_function: AskFunction = no_function,
        alive: Iterable[tuple[str, str, LiveRun]] = (),
        depth_limit: int = 100,
    ) -> None:
        self.memory = Memory(operators_of(definition), ask=ask, ask_function=ask_function, depth_limit=depth_limit)
        self._operators = {operator.name: operator for operator in self.memory.by_path.values()}
        self._rules = {(r.operator.id, r.rule.name): r for r in self.memory.catalog.rules.values()}
        for name, subject, run in alive:
            if name in self._operators:
                self.memory.instance(self._operators[name].id, subject).runs.append(run)
        self._path = f"{definition.workflow}."
        self._expected: dict[
            tuple[int, str], deque[float]
        ] = {}  # due times of timers that the log still has, as far as it was read
        self._held: dict[
            int, tuple[Signal, dict[Key, Done]]
        ] = {}  # signals that wait for a resume, and what they led to
        self._between = 0
        self._quiet_until = inf  # no timer is due before, in seconds since the epoch
        self._actions, self._own_runs = count(1), count(-1, -1)
        self.seen = self.position = 0

    def lines(self, pages: Iterable[Page], until: datetime | None = None) -> Iterator[Line]:
        """Each action, in order of its signal. Holds two pages at a time, to see which timers the log has.

        until: the end of the time that is replayed; by default that of the last signal.
        """
        ahead: Page | None = None
        for page in pages:
            self._expect(page)
            if ahead is not None:
                yield from self._page(ahead)
            ahead = page
        if ahead is not None:
            yield from self._page(ahead)
        if until is not None:
            yield from self._timers_before(until.timestamp())
        for signal, done in self._held.values():
            yield from _history(signal, done)

    def _page(self, page: Page) -> Iterator[Line]:
        done: dict[int, dict[Key, Done]] = {}
        for item in page.done:
            done.setdefault(item.cause, {})[item.key] = item
        for signal in page.signals:
            yield from self._timers_before(signal.at.timestamp())
            self.seen += 1
            self.position, self._between = signal.id, 0
            yield from self._signal(signal, done.pop(signal.id, {}))

    def _signal(self, signal: Signal, done: dict[Key, Done]) -> Iterator[Line]:
        if signal.key.startswith("run."):
            self._follow(signal)
        if not signal.key.startswith("timer."):
            yield from self._evaluate(signal._replace(id=signal.id * BETWEEN), signal, done)
        elif (key := self._own(signal)) is not None:
            due = self._expected.get(key, deque())
            if due:
                due.popleft()
            if self.memory.timers.get(key) is not None and self.memory.timers[key] <= signal.at.timestamp():
                del self.memory.timers[key]
                meant = signal._replace(id=signal.id * BETWEEN, value=json.dumps({"rule": key[0]}))
                yield from self._evaluate(meant, signal, done)
        if signal.id not in self._held:
            yield from _history(signal, done)

    def _evaluate(
        self, meant: Signal, signal: Signal, done: dict[Key, Done], own_timer: bool = False
    ) -> Iterator[Line]:
        """Let a signal be decided. What was done too is taken out of `done`."""
        own_runs: set[int] = set()

        def run_ids(order: Order) -> Iterator[int]:
            known = next((item for item in done.values() if item.run_id is not None and _same_place(item, order)), None)
            number = known.run_id if known is not None and known.run_id is not None else next(self._own_runs)
            while True:
                if number < 0:
                    own_runs.add(number)
                yield number
                number = next(self._own_runs)  # of further replicas

        result = self.memory.take(meant, self._actions, run_ids)
        if result is None:
            return
        self._quiet_until = min([self._quiet_until, *filter(None, result.decision.timers.values())])
        yield from self._told(result, signal, done, own_timer)
        if any(fate.outcome is Outcome.HELD and fate.signal_id == meant.id for fate in result.decision.fates):
            self._held[signal.id] = signal, done
        for number in {released // BETWEEN for released, _ in result.decision.released}:
            yield from _history(*self._held.pop(number, (signal, {})))
        # The log will never speak of runs that were not: they would be waited for without an end.
        for order in result.decision.orders:
            instance = self.memory.instance(order.operator.id, order.subject)
            instance.runs = [run for run in instance.runs if run.id not in own_runs]

    def _told(self, result: Consequence, signal: Signal, done: dict[Key, Done], own_timer: bool) -> Iterator[Line]:
        for order, row in result.acted:
            rule = self.memory.catalog.rules[order.rule_id].rule.name if order.rule_id else "manual"
            # What was held is its own cause at the resume.
            cause, there = self._held.get(order.cause_id // BETWEEN, (signal, done))
            place = Key(cause.id, order.operator.name, order.subject, rule, str(row["action"]), order.nth)
            was = there.pop(place, None)
            said = str(row["result"])
            yield Line(
                "same" if was is not None else "replay", cause.id, cause.key, cause.at, order.operator.name, order.subject, rule,
                str(row["action"]), said, tuple(number // BETWEEN for number in order.evidence),
                was.result if was is not None and was.result != said else None, was.id if was is not None else None,
                own_timer,
            )  # fmt: skip

    # ── runs, as the log has them ──

    def _follow(self, signal: Signal) -> None:
        path, _, word = signal.key.removeprefix("run.").rpartition(".")
        operator = self.memory.by_path.get(path)
        if operator is None or signal.run_id is None or word not in list(State):
            return
        state, instance = State(word), self.memory.instance(operator.id, signal.subject)
        others = [run for run in instance.runs if run.id != signal.run_id]
        instance.runs = others if state in FINAL else [*others, LiveRun(signal.run_id, state)]

    # ── timers ──

    def _own(self, signal: Signal) -> tuple[int, str] | None:
        """Which timer of the replay a timer of the log stands for: the rule of the same operator and name."""
        operator = self.memory.by_path.get(signal.key.removeprefix("timer."))
        try:
            name = json.loads(signal.value)["name"]
        except (ValueError, KeyError, TypeError):
            return None
        rule = self._rules.get((operator.id, name)) if operator is not None else None
        return (rule.rule.id, signal.subject) if rule is not None else None

    def _expect(self, page: Page) -> None:
        for signal in page.signals:
            if signal.key.startswith(f"timer.{self._path}") and (key := self._own(signal)) is not None:
                self._expected.setdefault(key, deque()).append(_due(json.loads(signal.value)))

    def _timers_before(self, now: float) -> Iterator[Line]:
        """Fire what was due before a moment, where the log has no timer for it."""
        timers = self.memory.timers
        while now > self._quiet_until:
            due, key = min(
                (
                    (due, key)
                    for key, due in timers.items()
                    if not any(abs(t - due) < SAME_DUE for t in self._expected.get(key, ()))
                ),
                default=(now, None),
            )
            if key is None or due >= now:
                self._quiet_until = min(timers.values(), default=inf)
                return
            del timers[key]
            self._between += 1
            rule = self.memory.catalog.rules[key[0]]
            own = Signal(
                self.position * BETWEEN + self._between, rule.operator.namespace, f"timer.{rule.operator.path}", key[1],
                json.dumps({"rule": key[0]}), "pgsig", moment_of_timer(due),
            )  # fmt: skip
            yield from self._evaluate(own, own._replace(id=self.position), {}, own_timer=True)


def _history(signal: Signal, done: dict[Key, Done]) -> Iterator[Line]:
    """What was done because of a signal, and not by the replay."""
    for item in done.values():
        yield Line(
            "history", signal.id, signal.key, signal.at, item.operator, item.subject, item.rule, item.action, item.result,
            action_id=item.id,
        )  # fmt: skip


def _same_place(item: Done, order: Order) -> bool:
    return (item.operator, item.subject, item.action) == (order.operator.name, order.subject, str(order.action))


def _due(value: Json) -> float:
    try:
        return datetime.fromisoformat(value["due"]).astimezone(UTC).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0
