"""The nouns. Frozen values without behaviour: every other module speaks of these and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

Json = Any  # a value as `json.loads` gives it


class Kind(StrEnum):
    """Of an operator: a batch run ends by itself, a streaming run goes on until it is stopped."""

    BATCH = "batch"
    STREAMING = "streaming"


class Action(StrEnum):
    """What a rule orders. NONE is recorded when a rule fired and another rule of the operator won."""

    START = "START"
    STOP = "STOP"
    RESTART = "RESTART"
    RELOAD = "RELOAD"
    NONE = "NONE"


class State(StrEnum):
    """Of a run. `MOVES` says which follows which; the database refuses any other move."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


LIVE = frozenset({State.STARTING, State.RUNNING, State.RETRYING})
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.LOST})
MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.STARTING, State.STOPPED}),
    State.STARTING: frozenset({State.RUNNING, State.RETRYING}) | FINAL,
    State.RUNNING: frozenset({State.RETRYING}) | FINAL,
    State.RETRYING: frozenset({State.STARTING, State.STOPPED, State.FAILED}),
    **{final: frozenset() for final in FINAL},
}


class Outcome(StrEnum):
    """How a signal ended for one rule and instance."""

    CONSUMED = "consumed"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    LATE = "late"
    DUPLICATE = "duplicate"
    HELD = "held"
    QUARANTINED = "quarantined"


class Result(StrEnum):
    """The effect of an action, in one word."""

    RECORDED = "recorded"
    ALREADY_RUNNING = "already_running"
    ALREADY_STOPPED = "already_stopped"
    QUEUED = "queued"
    MERGED = "merged"
    SKIPPED = "skipped"
    NOT_RUNNING = "not_running"
    OUTRANKED = "outranked"
    LIMITED = "limited"
    SHADOW = "shadow"
    PAUSED = "paused"
    RESUMED = "resumed"


class Signal(NamedTuple):
    """A committed fact. `value` is its JSON text: it is decoded only where a predicate needs it.

    id: position in the log. xid: the transaction that wrote it. at: database time of the insert. depth: length of the causal chain
    that led to it (0: from outside).
    """

    id: int
    namespace: str
    key: str
    subject: str
    value: str
    source: str
    at: datetime
    xid: int = 0
    depth: int = 0
    run_id: int | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """On one operator: when `condition` (canonical JSON), do `action`.

    ordinal: place among the operator's rules, in order of declaration. by: what an instance is: "subject", "none",
    or a SQL/JSON path into the value. since: signals visible in this snapshot are older than the rule and not for it.
    most: (firings, seconds) that are carried out; what is above does `then`, or nothing. shadow: it decides, and nothing follows.
    told: whether its explanation, always the same, stands beside it in the database, so that its actions need not repeat it.
    """

    id: int
    operator_id: int
    name: str
    action: Action
    ordinal: int
    condition: Json
    by: str = "subject"
    since: str | None = None
    most: tuple[int, float] | None = None
    then: Action | None = None
    shadow: bool = False
    told: bool = False


@dataclass(frozen=True, slots=True)
class Operator:
    """One job definition of a workflow, as the scheduler needs it. paused: hold, collapse or drop, while it is paused."""

    id: int
    namespace: str
    workflow: str
    name: str
    kind: Kind
    version: int
    spec: Json
    rules: tuple[Rule, ...] = ()
    paused: str | None = None

    @property
    def path(self) -> str:
        return f"{self.workflow}.{self.name}"


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that has not ended, as the planner of actions needs it."""

    id: int
    state: State
    stopping: bool = False
    generation: int = 1
    handover_of: int | None = None


@dataclass(slots=True)
class Instance:
    """What is alive of one (operator, subject): facts before an action, kept up to date while a batch is planned."""

    operator_id: int
    subject: str
    generation: int = 0
    desired: str = "stopped"
    runs: list[LiveRun] = field(default_factory=list)

    def queued(self) -> list[LiveRun]:
        return [run for run in self.runs if run.state is State.QUEUED and not run.stopping]

    def live(self) -> list[LiveRun]:
        return [run for run in self.runs if run.state in LIVE]

    def staying(self) -> list[LiveRun]:
        return [run for run in self.live() if not run.stopping]

    def stays(self, run: int) -> bool:
        """Whether this run lives, is not ending, and has no successor that it waits for."""
        return any(one.id == run for one in self.staying()) and all(one.handover_of != run for one in self.runs)
