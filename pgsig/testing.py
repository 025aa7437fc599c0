"""Test a workflow in memory, with a clock that stands still until it is told to move. No database, no process, no waiting.

    with WorkflowTest("workflow.yaml", now="2026-01-01T00:00Z") as t:
        t.emit("model.trained", {"auc": 0.9}, subject="m1")
        assert t.actions == [("evaluate", "START", "m1", "recorded")]
        t.finish("evaluate", subject="m1", result={"passed": True})
        t.advance("10m")
        assert t.state("serve") == "running"

It decides by the same functions as a worker. A run begins at once and goes on until `finish`, `fail` or `lose`; a stop is obeyed at once.
Retries, restart policies and limits of pools are the runner's: what happens here by hand is what is left after them.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pgsig.condition import duration
from pgsig.decide.advance import levels_of
from pgsig.decide.explain import explain, render
from pgsig.decide.find import View
from pgsig.decide.state import RuleState
from pgsig.definition import Definition
from pgsig.definition.workflow import Workflow
from pgsig.errors import Conflict, InvalidInput, NotFound, PgsigError, Problem
from pgsig.given import asking, checked, definition_of, moment_of
from pgsig.memory import Consequence, ask_here, no_function
from pgsig.model import FINAL, Json, Operator, Signal, State
from pgsig.simulation import SimulatedRun, Simulation


class Acted(NamedTuple):
    """An action in short; equal to a tuple of the four."""

    operator: str
    action: str
    subject: str
    result: str


@dataclass(frozen=True, slots=True)
class Decided:
    """An action with its reasons. rule: None by hand. cause: position of the signal that completed the condition. evidence: those
    that it consumed. run: the run that it is about."""

    short: Acted
    rule: str | None
    cause: int
    evidence: tuple[int, ...]
    explanation: Json
    run: int | None


class Ended(NamedTuple):
    """How a signal ended for one instance of a rule."""

    operator: str
    rule: str
    subject: str
    outcome: str


class WorkflowTest:
    """A workflow under test.

    workflow: a `Workflow`, a document, or the path of a file. now: the first moment; a text without a zone is UTC. database: URL of a
    Postgres that answers what only it can (rare SQL/JSON paths, conditions that are SQL functions); nothing is written to it.
    depth_limit: the longest causal chain. autostart: whether operators that say so are started first.
    Raises InvalidInput for a definition that is wrong.
    """

    def __init__(
        self,
        workflow: Workflow | Definition | Json | str | Path,
        now: str | datetime = "2026-01-01T00:00:00+00:00",
        *,
        database: str | None = None,
        depth_limit: int = 100,
        autostart: bool = True,
    ) -> None:
        self.definition = definition_of(workflow)
        self.decided: list[Decided] = []
        self.signals: list[Signal] = []
        self._ended: dict[int, list[Ended]] = {}
        self._events: dict[tuple[str, str], tuple[int, str]] = {}
        self._open = ExitStack()
        ask, ask_function = asking(database, self._open) if database else (ask_here, no_function)
        self._simulation = Simulation(
            self.definition, moment_of(now), self._noted, ask=ask, ask_function=ask_function,
            depth_limit=depth_limit,
        )  # fmt: skip
        if autostart:
            self._simulation.autostart()

    def __enter__(self) -> WorkflowTest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the database connection back, if there is one."""
        self._open.close()

    # ── what happens ──

    def emit(
        self, key: str, value: Json = None, subject: str = "", *,
        source: str = "test", event_id: str | None = None, run: SimulatedRun | None = None,
    ) -> int:  # fmt: skip
        """Emit a signal now. Returns its position; with an event id that was seen before, the first position.

        run: the run that emits it, so that it continues its causal chain. Raises InvalidInput for a bad key or value, Conflict for an
        event id that was used for something else.
        """
        text = checked(key, value)
        digest = ""
        if event_id is not None:
            digest = sha256(json.dumps([key, subject, json.loads(text)], sort_keys=True).encode()).hexdigest()
            first, known = self._events.get((source, event_id), (0, digest))
            if known != digest:
                raise Conflict(
                    f'event id "{event_id}" of source "{source}" was used before with another key, subject or value',
                    code="PS109", where="/event_id", fix="use a new event id for a new fact",
                )  # fmt: skip
            if first:
                return first
        depth, run_id = (run.depth, run.id) if run is not None else (0, None)
        position = self._simulation.emit(key, text, subject, source, depth=depth, run_id=run_id, event_id=event_id)
        if event_id is not None:
            self._events[source, event_id] = position, digest
        return position

    def advance(self, by: str | float | timedelta) -> None:
        """Let time pass: a duration like "10m", seconds, or a timedelta. Timers and ticks fall due on the way."""
        length = by if isinstance(by, timedelta) else timedelta(seconds=duration.seconds(by))
        self._simulation.advance_to(self.now + length)

    def advance_to(self, moment: str | datetime) -> None:
        """Let time pass until a moment. Raises ValueError for one that is past."""
        if (until := moment_of(moment)) < self.now:
            raise ValueError(f"{until.isoformat()} is past: it is {self.now.isoformat()}")
        self._simulation.advance_to(until)

    def act(self, operator: str, action: str, subject: str = "", *, params: Json = None, reason: str = "") -> int:
        """Order START, STOP, RESTART or RELOAD by hand. Returns the position of the manual signal."""
        if (word := action.upper()) not in ("START", "STOP", "RESTART", "RELOAD"):
            fix = "use START, STOP, RESTART or RELOAD"
            raise InvalidInput([Problem("PS202", f'"{action}" is not an action', "/action", fix)])
        value = {"action": word, "params": params or {}, "reason": reason}
        return self._simulation.order(self._operator(operator), value, subject=subject)

    def pause(self, operator: str | None = None, mode: str = "hold", *, reason: str = "") -> None:
        """Pause an operator, or the whole workflow: hold, collapse or drop what comes meanwhile."""
        if mode not in ("hold", "collapse", "drop"):
            fix = "use hold, collapse or drop"
            raise InvalidInput([Problem("PS204", f'"{mode}" is not a way to pause', "/mode", fix)])
        self._order_each(operator, {"action": "PAUSE", "mode": mode, "reason": reason})

    def resume(self, operator: str | None = None, *, reason: str = "") -> None:
        """End a pause of an operator, or of the whole workflow."""
        self._order_each(operator, {"action": "RESUME", "reason": reason})

    def finish(
        self,
        operator: str,
        state: str = "succeeded",
        *,
        subject: str = "",
        result: Json = None,
        exit_code: int | None = None,
    ) -> None:
        """End the oldest run of an operator and subject that is under way. Raises NotFound where there is none."""
        if (end := State(state)) not in FINAL:
            raise ValueError(f'"{state}" does not end a run: use {", ".join(sorted(FINAL))}')
        code = 0 if exit_code is None and end is State.SUCCEEDED else exit_code
        self._simulation.end(self._under_way(operator, subject), end, result=result, exit_code=code)

    def fail(self, operator: str, *, subject: str = "", exit_code: int = 1, reason: str | None = None) -> None:
        """End a run as failed for good: after its retries."""
        run, why = self._under_way(operator, subject), reason or f"exit code {exit_code}"
        self._simulation.end(run, State.FAILED, exit_code=exit_code, reason=why)

    def lose(self, operator: str, *, subject: str = "", reason: str = "its runner was lost") -> None:
        """End a run as lost with its runner."""
        self._simulation.end(self._under_way(operator, subject), State.LOST, reason=reason)

    def ready(self, operator: str, *, subject: str = "") -> None:
        """The newest run says that it serves, for operators with `ready: api`; the one that it takes over from is stopped."""
        alive = [run for run in self._alive(operator, subject) if run.state is State.RUNNING]
        if not alive:
            raise self._none(operator, subject)
        self._simulation.ready(alive[-1])

    # ── what there is to see ──

    @property
    def now(self) -> datetime:
        return self._simulation.now

    @property
    def actions(self) -> list[Acted]:
        """Every action so far: (operator, action, subject, result), also those that did nothing."""
        return [decided.short for decided in self.decided]

    @property
    def keys(self) -> list[str]:
        """The keys of all signals so far, those that pgsig wrote too."""
        return [signal.key for signal in self.signals]

    def state(self, operator: str, subject: str = "") -> str:
        """What is to be seen of an operator and subject: the state of the run that matters now, or never_run."""
        runs = self.runs(operator, subject)
        alive = [run for run in runs if run.state not in FINAL]
        begun = [run for run in alive if run.state is not State.QUEUED]
        return str((begun or alive or runs)[-1].state) if runs else "never_run"

    def runs(self, operator: str, subject: str | None = None) -> list[SimulatedRun]:
        """The runs of an operator, oldest first, of one subject or of all."""
        number = self._operator(operator).id
        found = [run for run in self._simulation.runs.values() if run.operator.id == number]
        return [run for run in found if subject is None or run.subject == subject]

    def outcomes(self, position: int) -> list[Ended]:
        """How a signal ended for each rule and instance that was interested. One that is still waited with has none yet."""
        return self._ended.get(position, [])

    def why(self, operator: str, subject: str = "") -> str:
        """What each rule waits for and has, as lines of text."""
        memory, known = self._simulation.memory, self._operator(operator)
        lines = [f"{known.path}{f' for {subject}' if subject else ''}: {self.state(operator, subject)}"]
        for rule in known.rules:
            own, shared = (RuleState.from_json(memory.states.get((rule.id, s)) or {}) for s in (subject, ""))
            tree = explain(
                memory.catalog.rules[rule.id].root, View(own.pending, levels_of(own, shared), self.now.timestamp())
            )
            lines += [f"  {rule.name} → {rule.action} when", *(f"    {line}" for line in render(tree))]
        return "\n".join(lines)

    # ── inside ──

    def _noted(self, signal: Signal, result: Consequence | None) -> None:
        self.signals.append(signal)
        if result is None:
            return
        rules = self._simulation.memory.catalog.rules
        for order, row in result.acted:
            rule = rules[order.rule_id].rule.name if order.rule_id else None
            short = Acted(order.operator.name, str(row["action"]), order.subject, str(row["result"]))
            self.decided.append(Decided(short, rule, signal.id, order.evidence, row["explanation"], row["run_id"]))
        for held, number in result.decision.released:
            here = rules[number]
            self._ended[held] = [
                e
                for e in self._ended.get(held, [])
                if (e.operator, e.rule, e.outcome) != (here.operator.name, here.rule.name, "held")
            ]
        for fate in result.decision.fates:
            here = rules[fate.rule_id]
            ended = Ended(here.operator.name, here.rule.name, fate.subject, str(fate.outcome))
            self._ended.setdefault(fate.signal_id, []).append(ended)

    def _operator(self, name: str) -> Operator:
        known = self._simulation.memory.by_path
        path = name if "." in name else f"{self.definition.workflow}.{name}"
        if path not in known:
            has = ", ".join(operator.name for operator in known.values())
            raise NotFound(
                f'the workflow has no operator "{name}"', code="PS201", where="operator", fix=f"it has {has}"
            )
        return known[path]

    def _order_each(self, operator: str | None, value: Json) -> None:
        every = list(self._simulation.memory.by_path.values()) if operator is None else [self._operator(operator)]
        for one in sorted(every, key=lambda item: item.path):
            self._simulation.order(one, value)

    def _alive(self, operator: str, subject: str) -> list[SimulatedRun]:
        return [run for run in self.runs(operator, subject) if run.state not in FINAL]

    def _under_way(self, operator: str, subject: str) -> SimulatedRun:
        alive = [run for run in self._alive(operator, subject) if run.state is not State.QUEUED]
        if not alive:
            raise self._none(operator, subject)
        return alive[0]

    def _none(self, operator: str, subject: str) -> PgsigError:
        about = f' for "{subject}"' if subject else ""
        seen = self.state(operator, subject)
        return NotFound(f"no run of {operator}{about} is under way: {seen}", code="PS572", where="operator")
