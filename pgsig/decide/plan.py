"""PLAN: what an order means for an operator, given what is alive of it. The words of the result are those of `pgsig.model.Result`.

START    streaming: as many as its replicas, no more. batch: as `on_busy` says.
STOP     whatever lives or waits.
RESTART  stop what lives, then start; with handover start_first, start beside it and stop it once the new one is ready,
         one replica after the other. After a reload that failed: only if that run is neither ending nor being replaced.
RELOAD   hand the signals to the run that lives; nothing where nothing lives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pgsig.model import Action, Instance, Json, Kind, LiveRun, Operator, Result, State

PLACEHOLDER = re.compile(r"\{(subject|params\.[A-Za-z_]\w*)\}")
_PARALLEL = re.compile(r"parallel\((\d+)\)")


class Order(NamedTuple):
    """An action to be done to one instance. rule_id 0: by hand. nth: which firing of the rule by this cause.

    instead: what is recorded without doing anything: another rule won, the rule is at its limit, or only a shadow.
    only_for: the run that this is about, where it is about one: without it nothing is done.
    """

    operator: Operator
    rule_id: int
    subject: str
    action: Action
    cause_id: int
    nth: int
    depth: int
    evidence: tuple[int, ...]
    explanation: Json
    params: Json = None
    instead: Result | None = None
    only_for: int | None = None


@dataclass(slots=True)
class Effects:
    """Rows to record."""

    actions: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    merges: list[Json] = field(default_factory=list)
    reloads: list[Json] = field(default_factory=list)
    touched: dict[tuple[int, str], tuple[Instance, int | None]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As `pgsig_private.record` takes them, but that the store sends most actions as columns."""
        instances = [
            {
                "operator_id": i.operator_id,
                "subject": i.subject,
                "desired": i.desired,
                "generation": i.generation,
                "run_id": run_id,
            }
            for i, run_id in self.touched.values()
        ]
        rows = {
            "actions": self.actions,
            "runs": self.runs,
            "stops": self.stops,
            "merges": self.merges,
            "reloads": self.reloads,
            "instances": instances,
        }
        return {name: value for name, value in rows.items() if value}


def slots(operator: Operator) -> int:
    """How many runs of one instance may be alive at once, but for a handover, which takes one more."""
    if operator.kind is Kind.STREAMING:
        return int(operator.spec.get("replicas", 1))
    found = _PARALLEL.fullmatch(str(operator.spec.get("on_busy", "queue")))
    return int(found[1]) if found else 1


def limit_key(namespace: str, template: str, subject: str, params: Json, later: Container[str] = ()) -> str:
    """The key of a concurrency limit for one run. In the template {subject} and {params.NAME} stand for the run's own; what it does
    not have is left empty. Keys of different namespaces are different. later: parameters that come from its signals when it is
    claimed; the claim puts them in."""

    def own(found: re.Match[str]) -> str:
        name = found[1]
        if name.removeprefix("params.") in later and name != "subject":
            return found[0]
        value = subject if name == "subject" else params.get(name.removeprefix("params."), "")
        return value if isinstance(value, str) else json.dumps(value, sort_keys=True)

    return f"{namespace}/{PLACEHOLDER.sub(own, template)}"


def most_runs(operator: Operator) -> int:
    """How many runs one order of an operator begins at the most: so many ids it needs."""
    return slots(operator) if operator.kind is Kind.STREAMING else 1


def carry_out(
    order: Order, instance: Instance, effects: Effects, action_id: int, run_ids: Iterator[int], consumed: bool = False
) -> Result:
    """Work out one order against its instance (changed in place: the next order of the batch sees it) and note its rows.

    consumed: whether the order used up its cause.
    """
    run_id: int | None = None
    if order.instead is not None:
        result = order.instead
        action = order.action if result is Result.SHADOW else Action.NONE
    else:
        step = _Step(order, instance, effects, action_id, run_ids)
        action = order.action
        result = _DO[action](step)
        run_id = step.run_id
        if step.changed:
            before = effects.touched.get((instance.operator_id, instance.subject))
            effects.touched[instance.operator_id, instance.subject] = (
                instance,
                run_id or (before[1] if before else None),
            )
    effects.actions.append({
        "id": action_id, "operator_id": order.operator.id, "rule_id": order.rule_id, "subject": order.subject, "action": action,
        "result": result, "version": order.operator.version, "cause_id": order.cause_id, "nth": order.nth, "depth": order.depth,
        "evidence": order.evidence, "explanation": order.explanation, "run_id": run_id, "consumed": consumed,
    })  # fmt: skip
    return result


class _Step:
    """One order being carried out."""

    def __init__(
        self, order: Order, instance: Instance, effects: Effects, action_id: int, run_ids: Iterator[int]
    ) -> None:
        self.order = order
        self.instance = instance
        self.effects = effects
        self.action_id = action_id
        self.run_ids = run_ids
        self.spec = order.operator.spec
        self.run_id: int | None = None
        self.changed = False

    def start(self) -> Result:
        if self.order.operator.kind is Kind.STREAMING:
            return self.start_streaming()
        return self.start_batch()

    def start_streaming(self) -> Result:
        alive = [run for run in self.instance.runs if not run.stopping]  # none of them has ended
        missing = slots(self.order.operator) - len(alive)
        if missing <= 0:
            self.run_id = next((run for run in alive if run.state is not State.QUEUED), alive[0]).id
            return Result.ALREADY_RUNNING
        begun = [self.new_run() for _ in range(missing)]
        return Result.RECORDED if any(begun) else Result.QUEUED

    def start_batch(self) -> Result:
        instance, on_busy = self.instance, str(self.spec.get("on_busy", "queue"))
        waiting = instance.queued()
        busy = len(instance.live()) + len(waiting) >= slots(self.order.operator)
        if not busy or on_busy == "replace":
            if busy:
                self.end_all()
            self.new_run()
            return Result.RECORDED
        if on_busy == "skip":
            return Result.SKIPPED
        if on_busy == "merge" and waiting:
            self.run_id = waiting[0].id
            # Of parameters the newest counts. Those given by hand do not move it to another key of its limit.
            given = {"params": self.order.params} if self.order.params else {}
            self.effects.merges.append({"run_id": waiting[0].id, "evidence": self.order.evidence, **given})
            return Result.MERGED
        if len(waiting) >= int(self.spec.get("queue_limit", 100)):
            return Result.SKIPPED
        self.new_run()
        return Result.QUEUED

    def stop(self) -> Result:
        self.instance.desired, self.changed = "stopped", self.instance.desired != "stopped"
        return Result.RECORDED if self.end_all() else Result.ALREADY_STOPPED

    def restart(self) -> Result:
        if self.order.only_for and not self.instance.stays(self.order.only_for):
            return Result.NOT_RUNNING
        replicas = slots(self.order.operator) if self.order.operator.kind is Kind.STREAMING else 1
        old = [run.id for run in self.instance.staying() if run.state is State.RUNNING][-replicas:]
        if self.spec.get("handover") != "start_first":
            old = []
        # A run that serves goes on until its successor is ready; whatever else waits or begins makes way.
        self.end_all(but=old)
        for predecessor in [*old, *[None] * (replicas - len(old))]:
            self.new_run(handover_of=predecessor)
        return Result.RECORDED

    def reload(self) -> Result:
        alive = self.instance.staying() or self.instance.queued()
        if not alive:
            return Result.NOT_RUNNING
        for run in alive:
            self.effects.reloads.append(
                {"run_id": run.id, "action_id": self.action_id, "evidence": self.order.evidence}
            )
        self.run_id = alive[0].id
        return Result.RECORDED

    def end_all(self, but: Sequence[int] = ()) -> bool:
        """Stop everything of the instance that does not already stop. True if there was anything."""
        ended = [run for run in self.instance.runs if not run.stopping and run.id not in but]
        self.effects.stops += [run.id for run in ended]
        gone = {run.id for run in ended}
        # What waits ends with the record itself; what lives is stopping until its runner says otherwise.
        kept = []
        for run in self.instance.runs:
            if run.id not in gone:
                kept.append(run)
            elif run.state in (State.STARTING, State.RUNNING):
                kept.append(replace(run, stopping=True))
        self.instance.runs = kept
        self.changed = self.changed or bool(ended)
        return bool(ended)

    def new_run(self, handover_of: int | None = None) -> bool:
        """Add a run to the line. Whether it may begin at once."""
        instance, spec = self.instance, self.spec
        room = slots(self.order.operator) + (handover_of is not None)
        params = {**spec.get("params", {}), **(self.order.params or {})}
        claimable = len(instance.live()) + len(instance.queued()) < room
        instance.generation += 1
        instance.desired = "running"
        number = next(self.run_ids)
        self.run_id, self.changed = self.run_id or number, True  # of several, the first is the action's
        instance.runs.append(LiveRun(number, State.QUEUED, False, instance.generation, handover_of))
        row = {
            "id": number,
            "operator_id": instance.operator_id,
            "subject": instance.subject,
            "generation": instance.generation,
            "version": self.order.operator.version,
            "action_id": self.action_id,
            "depth": self.order.depth,
            "pool": spec.get("pool", "default"),
            "priority": spec.get("priority", 0),
            "slots": room,
            "handover_of": handover_of,
            "params": params,
            "evidence": self.order.evidence,
            "claimable": claimable,
        }
        if spec.get("labels"):
            row["labels"] = spec["labels"]
        if limit := spec.get("concurrency"):
            row["limit_key"] = limit_key(
                self.order.operator.namespace, limit["key"], instance.subject, params, spec.get("params_from", ())
            )
            row["limit_most"] = limit["max"]
        self.effects.runs.append(row)
        return claimable


_DO: dict[Action, Callable[[_Step], Result]] = {
    Action.START: _Step.start, Action.STOP: _Step.stop, Action.RESTART: _Step.restart, Action.RELOAD: _Step.reload,
}  # fmt: skip
