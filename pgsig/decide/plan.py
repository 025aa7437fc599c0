"""PLAN: what an order means for an operator, given what is alive of it. The words of the result are those of `pgsig.model.Result`.

START    streaming: once is enough. batch: as `on_busy` says.
STOP     whatever lives or waits.
RESTART  stop what lives, then start; with handover start_first, start beside it and stop it once the new one is ready.
RELOAD   hand the signals to the run that lives; nothing where nothing lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pgsig.model import Action, Instance, Json, Kind, LiveRun, Operator, Result, State

_PARALLEL = re.compile(r"parallel\((\d+)\)")


@dataclass(frozen=True, slots=True)
class Order:
    """An action to be done to one instance. rule_id 0: by hand. nth: which firing of the rule by this cause.

    instead: what is recorded without doing anything: another rule won, the rule is at its limit, or only a shadow.
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


@dataclass(slots=True)
class Effects:
    """Rows to record, as `pgsig_private.record` takes them."""

    actions: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    merges: list[Json] = field(default_factory=list)
    reloads: list[Json] = field(default_factory=list)
    touched: dict[tuple[int, str], tuple[Instance, int | None]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
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
    """How many runs of one instance may be alive at once."""
    found = _PARALLEL.fullmatch(str(operator.spec.get("on_busy", "queue")))
    return int(found[1]) if found else 1


def carry_out(order: Order, instance: Instance, effects: Effects, action_id: int, run_ids: Iterator[int]) -> Result:
    """Work out one order against its instance (changed in place: the next order of the batch sees it) and note its rows."""
    run_id: int | None = None
    if order.instead is not None:
        result = order.instead
        action = order.action if result is Result.SHADOW else Action.NONE
    else:
        step = _Step(order, instance, effects, action_id, run_ids)
        action = order.action
        result = {
            Action.START: step.start,
            Action.STOP: step.stop,
            Action.RESTART: step.restart,
            Action.RELOAD: step.reload,
        }[action]()
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
        "evidence": order.evidence, "explanation": order.explanation, "run_id": run_id,
    })  # fmt: skip
    return result


class _Step:
    """One order being carried out."""

    def __init__(
        self, order: Order, instance: Instance, effects: Effects, action_id: int, run_ids: Iterator[int]
    ) -> None:
        self.order, self.instance, self.effects, self.action_id, self.run_ids = (
            order,
            instance,
            effects,
            action_id,
            run_ids,
        )
        self.spec = order.operator.spec
        self.run_id: int | None = None
        self.changed = False

    def start(self) -> Result:
        instance = self.instance
        if self.order.operator.kind is Kind.STREAMING:
            alive = instance.staying() or instance.queued()
            if alive:
                self.run_id = alive[0].id
                return Result.ALREADY_RUNNING
            self.new_run()
            return Result.QUEUED if instance.live() else Result.RECORDED
        return self.start_batch()

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
            self.effects.merges.append({"run_id": waiting[0].id, "evidence": self.order.evidence})
            return Result.MERGED
        if len(waiting) >= int(self.spec.get("queue_limit", 100)):
            return Result.SKIPPED
        self.new_run()
        return Result.QUEUED

    def stop(self) -> Result:
        self.instance.desired, self.changed = "stopped", self.instance.desired != "stopped"
        return Result.RECORDED if self.end_all() else Result.ALREADY_STOPPED

    def restart(self) -> Result:
        old = [run for run in self.instance.staying() if run.state is State.RUNNING]
        if self.spec.get("handover") == "start_first" and old:
            # The run that serves goes on until the new one is ready; whatever else waits or begins makes way.
            self.end_all(but=old[-1].id)
            self.new_run(handover_of=old[-1].id)
        else:
            self.end_all()
            self.new_run()
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

    def end_all(self, but: int | None = None) -> bool:
        """Stop everything of the instance that does not already stop. True if there was anything."""
        ended = [run for run in self.instance.runs if not run.stopping and run.id != but]
        self.effects.stops += [run.id for run in ended]
        gone = {run.id for run in ended}
        # What waits ends with the record itself; what lives is stopping until its runner says otherwise.
        kept = []
        for run in self.instance.runs:
            if run.id not in gone:
                kept.append(run)
            elif run.state in (State.STARTING, State.RUNNING):
                kept.append(LiveRun(run.id, run.state, True, run.generation))
        self.instance.runs = kept
        self.changed = self.changed or bool(ended)
        return bool(ended)

    def new_run(self, handover_of: int | None = None) -> None:
        instance, spec = self.instance, self.spec
        room = slots(self.order.operator) if handover_of is None else 2
        claimable = len(instance.live()) + len(instance.queued()) < room
        instance.generation += 1
        instance.desired = "running"
        self.run_id, self.changed = next(self.run_ids), True
        instance.runs.append(LiveRun(self.run_id, State.QUEUED, False, instance.generation))
        row = {
            "id": self.run_id,
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
            "params": {**spec.get("params", {}), **(self.order.params or {})},
            "evidence": self.order.evidence,
            "claimable": claimable,
        }
        self.effects.runs.append(row)
