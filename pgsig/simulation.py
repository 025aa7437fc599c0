"""A whole system in memory: a log, a worker, a clock, and runs that begin at once and end when somebody says so.

State signals, ticks, timers and orders by hand are emitted as the database would: same keys, values, depth and sources. Time moves only
by `advance_to`. Used by `pgsig.testing`, and by replays of given signals.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from pgsig.condition import schedule
from pgsig.decide.plan import Effects
from pgsig.definition import Definition
from pgsig.definition.apscheduler import imported
from pgsig.memory import Ask, AskFunction, Consequence, Memory, ask_here, moment_of_timer, no_function, operators_of
from pgsig.model import FINAL, Json, Kind, LiveRun, Operator, Signal, State


@dataclass(slots=True)
class SimulatedRun:
    """A run. `reloads` are the signals that it was handed to reload with, one tuple for each reload."""

    id: int
    operator: Operator
    subject: str
    generation: int
    depth: int
    evidence: tuple[int, ...]
    params: Json
    handover_of: int | None = None
    claimable: bool = False
    state: State = State.QUEUED
    slots: int = 1
    result: Json = None
    exit_code: int | None = None
    reason: str | None = None
    reloads: list[tuple[int, ...]] = field(default_factory=list)


Noted = Callable[[Signal, Consequence | None], None]


class Simulation:
    """noted: called after each signal with what it led to. finish: batch runs succeed at once instead of going on."""

    def __init__(
        self,
        definition: Definition,
        now: datetime,
        noted: Noted,
        *,
        ask: Ask = ask_here,
        ask_function: AskFunction = no_function,
        depth_limit: int = 100,
        finish: bool = False,
    ) -> None:
        self.now = now.astimezone(UTC)
        self.namespace = definition.namespace
        operators = operators_of(definition)
        self.memory = Memory(operators, ask=ask, ask_function=ask_function, depth_limit=depth_limit)
        self.runs: dict[int, SimulatedRun] = {}  # alive, and what `forget` has not forgotten
        self.finish = finish
        self._noted = noted
        self._positions, self._actions, self._run_ids = count(1), count(1), count(1)
        self._waiting: deque[Signal] = deque()
        self._busy = False
        names = {operator.name: operator for operator in operators}
        self._triggers = [
            (names[item.name], trigger.name, schedule.build(trigger.spec, imported))
            for item in definition.operators
            for trigger in item.triggers
        ]
        self._due = [schedule.next_due(trigger, self.now) for _, _, trigger in self._triggers]
        self._autostart = [names[item.name] for item in definition.operators if item.autostart]

    def autostart(self) -> None:
        """Start the operators that say so, as at their first apply."""
        for operator in self._autostart:
            self.order(operator, {"action": "START", "params": {}, "reason": "autostart"}, source="pgsig")

    # ── signals ──

    def emit(
        self, key: str, value: str, subject: str, source: str, *,
        depth: int = 0, run_id: int | None = None, event_id: str | None = None,
    ) -> int:  # fmt: skip
        """Emit a signal at the present time and evaluate all that follows from it. value: JSON text. Returns its position."""
        position = next(self._positions)
        self._waiting.append(
            Signal(position, self.namespace, key, subject, value, source, self.now, position, depth, run_id, event_id)
        )
        self._work()
        return position

    def order(self, operator: Operator, value: Json, *, subject: str = "", source: str = "test") -> int:
        """An order by hand, as `pgsig.act`, `pgsig.pause` and `pgsig.resume` write it."""
        return self.emit(f"manual.{operator.path}", _text(value), subject, source)

    def _work(self) -> None:
        """Evaluate what waits, in order. What an evaluation emits itself waits behind it."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                signal = self._waiting.popleft()
                result = self.memory.take(signal, self._actions, lambda _: self._run_ids)
                self._noted(signal, result)
                if result is not None:
                    self._carry_out(result.effects)
        finally:
            self._busy = False

    # ── time ──

    def advance_to(self, moment: datetime) -> None:
        """Let time pass. Timers and ticks that fall due on the way become signals, each at its time; those of one time in order of
        declaration, timers first."""
        moment = moment.astimezone(UTC)
        while (due := self._next()) is not None and due[0] <= moment:
            self.now = max(self.now, due[0])
            due[1]()
        self.now = max(self.now, moment)

    def _next(self) -> tuple[datetime, Callable[[], None]] | None:
        found: list[tuple[datetime, int, Callable[[], None]]] = []
        timers = self.memory.timers
        if timers:
            key = min(timers, key=lambda key: (timers[key], key))
            found.append((moment_of_timer(timers[key]), 0, lambda: self._fire(key)))
        for n, due in enumerate(self._due):
            if due is not None:
                found.append((due, n + 1, lambda n=n: self._tick(n)))  # type: ignore[misc]
        first = min(found, key=lambda item: item[:2], default=None)
        return None if first is None else (first[0], first[2])

    def _fire(self, key: tuple[int, str]) -> None:
        due = moment_of_timer(self.memory.timers.pop(key))
        rule = self.memory.catalog.rules[key[0]]
        value = {"due": due.isoformat(), "name": rule.rule.name, "rule": key[0]}
        self.emit(f"timer.{rule.operator.path}", _text(value), key[1], "pgsig")

    def _tick(self, n: int) -> None:
        operator, name, trigger = self._triggers[n]
        due = self._due[n]
        if due is not None:
            self._due[n] = schedule.next_due(trigger, due)
            value = {"due": due.isoformat(), "trigger": name}
            self.emit(f"tick.{operator.path}", _text(value), "", f"trigger:{name}")

    # ── runs ──

    def _carry_out(self, effects: Effects) -> None:
        for row in effects.runs:
            self.runs[row["id"]] = SimulatedRun(
                row["id"], self.memory.catalog.operators[row["operator_id"]], row["subject"], row["generation"], row["depth"],
                tuple(row["evidence"]), row["params"], row["handover_of"], row["claimable"], slots=row["slots"],
            )  # fmt: skip
        for number in effects.stops:
            self.stop(self.runs[number])
        for merge in effects.merges:
            self.runs[merge["run_id"]].evidence += tuple(merge["evidence"])
            self.runs[merge["run_id"]].params |= merge.get("params", {})
        for reload in effects.reloads:
            self.runs[reload["run_id"]].reloads.append(tuple(reload["evidence"]))
        for row in effects.runs:
            self._begin(self.runs[row["id"]])

    def alive(self, operator: int, subject: str) -> Iterator[SimulatedRun]:
        """The runs of an instance that have not ended, oldest first."""
        return (self.runs[run.id] for run in list(self.memory.instance(operator, subject).runs))

    def _begin(self, run: SimulatedRun) -> None:
        """A runner claims the run at once, if it may."""
        if run.state is not State.QUEUED or not run.claimable:
            return
        for state in (State.STARTING, State.RUNNING):
            self._move(run, state)
        starts_ready = run.operator.spec.get("ready", "start") == "start"
        if starts_ready and (run.operator.kind is Kind.STREAMING or run.handover_of is not None):
            self.ready(run)
        if self.finish and run.operator.kind is Kind.BATCH:
            self.end(run, State.SUCCEEDED)

    def ready(self, run: SimulatedRun) -> None:
        """The run says that it serves; the one that it takes over from is stopped."""
        old = self.runs.get(run.handover_of or 0)
        run.handover_of = None
        self._say(run, "ready")
        if old is not None and old.state not in FINAL:
            self.stop(old)

    def stop(self, run: SimulatedRun) -> None:
        """Stopped at once, as by a job that obeys."""
        if run.state not in FINAL:
            self.end(run, State.STOPPED)

    def end(
        self,
        run: SimulatedRun,
        state: State,
        *,
        result: Json = None,
        exit_code: int | None = None,
        reason: str | None = None,
    ) -> None:
        """A run ends; what waits for its place begins."""
        run.result, run.exit_code, run.reason = result, exit_code, reason
        self._move(run, state)
        operator = run.operator
        waiting = [other for other in self.alive(operator.id, run.subject) if other.state is State.QUEUED]
        busy = sum(other.state is not State.QUEUED or other.claimable for other in self.alive(operator.id, run.subject))
        freed = []
        for other in waiting:
            if not other.claimable and busy < other.slots:
                other.claimable = True
                busy += 1
                freed.append(other)
        for other in freed:
            self._begin(other)
        self._work()

    def _move(self, run: SimulatedRun, state: State) -> None:
        run.state = state
        instance = self.memory.instance(run.operator.id, run.subject)
        moved = LiveRun(run.id, state, False, run.generation, run.handover_of)
        if state in FINAL:
            instance.runs = [other for other in instance.runs if other.id != run.id]
            if not instance.runs and state in (State.SUCCEEDED, State.STOPPED):
                instance.desired = "stopped"
        else:
            instance.runs = [moved if other.id == run.id else other for other in instance.runs]
        self._say(run, state)

    def _say(self, run: SimulatedRun, state: str) -> None:
        value = run.result
        if value is None:
            said = {
                "run": run.id,
                "reason": run.reason,
                "attempt": 1,
                "exit_code": run.exit_code,
                "generation": run.generation,
            }
            value = {name: part for name, part in said.items() if part is not None}
        self.emit(
            f"run.{run.operator.path}.{state}", _text(value), run.subject, "pgsig", depth=run.depth, run_id=run.id
        )

    def forget(self) -> None:
        """Drop the runs that have ended, for who simulates without an end."""
        self.runs = {number: run for number, run in self.runs.items() if run.state not in FINAL}


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
