"""AIP-35 under its own names: signal-based scheduling as its authors wrote it down, on top of pgsig's conditions.

    wf = Workflow("example")
    job_1 = SignalOperator(wf, "job_1", command=["python", "job_1.py"])
    job_1.depends_on_signal("key_1", "value_1", action=SignalAction.RESTART)

Nothing here is new to pgsig: the names stand for ordinary conditions, which plans, pages and explanations show as such.

    NECESSARY   all_of        EQUAL   .eq(value)    ONCE      an edge: a signal is used once
    SUFFICIENT  any_of        UPDATE  .changed()    REPEATED  .sticky(): a level, true until the next signal says otherwise

An action's rule is any_of(*sufficient, all_of(*necessary)). A level never happens, so two cases become rules of their own:

- SUFFICIENT and REPEATED: one rule that fires at each signal of its key that satisfies.
- Only REPEATED ones that are NECESSARY: one rule for each of them, which fires when the newest signal of its key satisfies while all
  others hold. Of rules that become true by one signal the first acts, the others are recorded with the result `outranked`.

What AIP-35 left open, or did in a way that surprised, and what is done here instead:

1. A NECESSARY condition that failed hid every SUFFICIENT one declared after it. Here they are alternatives, in any order.
2. The group took the action of whatever was declared first. Here each action has conditions of its own.
3. Only the last value of a key was kept: one that was overwritten before its evaluation was lost. Here each signal counts.
4. ONCE compared the scheduler's clock with the service's. Here a signal is consumed, and order goes by position in the log.
5. NECESSARY conditions never fell back: after a, b every further a fired (AI-Flow's MeetAll). Here each firing takes a fresh set.
6. A REPEATED, SUFFICIENT condition fired at each signal of any other key of the operator. Here at those of its own key.
7. UPDATE said "any update of the key" and did not compare. Here the value has to differ from the last one for the same key and
   subject. UPDATE and REPEATED together hold from the first signal of the key on.
8. A finished operator ignored START. Here START begins a new run. RESTART, too; STOP of what never ran is `already_stopped`.
9. Several actions at one event: STOP beats the others, else the one declared first; the rest consume and are recorded.
10. NONE registered interest without an effect. Here it makes no rule: any signal can be looked up, and listened to in a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pgsig.definition.conditions import Condition, all_of, any_of, signal
from pgsig.definition.workflow import Declared, Workflow
from pgsig.model import Json


class SignalCondition(StrEnum):
    """Whether a signal is needed together with others, or enough."""

    NECESSARY = "NECESSARY"
    SUFFICIENT = "SUFFICIENT"


class SignalValueCondition(StrEnum):
    """Whether a signal's value has to be a certain one, or a new one."""

    EQUAL = "EQUAL"
    UPDATE = "UPDATE"


class SignalLife(StrEnum):
    """Whether a signal is used once, or holds until the next one of its key."""

    ONCE = "ONCE"
    REPEATED = "REPEATED"


class SignalAction(StrEnum):
    """What is done. RELOAD is pgsig's: the live run gets the signals."""

    START = "START"
    RESTART = "RESTART"
    STOP = "STOP"
    RELOAD = "RELOAD"
    NONE = "NONE"


@dataclass(frozen=True)
class SignalDependency:
    """One dependency on a signal. source: only signals of this sender (default: of any).

    value: what EQUAL compares with; EQUAL without a value takes any. namespace is the workflow's.
    """

    key: str
    value: Json = None
    condition: SignalCondition = SignalCondition.NECESSARY
    action: SignalAction = SignalAction.START
    life: SignalLife = SignalLife.ONCE
    value_condition: SignalValueCondition = SignalValueCondition.EQUAL
    source: str | None = None

    @property
    def level(self) -> bool:
        return self.life is SignalLife.REPEATED

    def as_edge(self) -> Condition:
        """It as something that happens."""
        if self.value_condition is SignalValueCondition.UPDATE:
            return self._named().changed()
        return self._satisfying()

    def as_level(self) -> Condition:
        """It as something that holds."""
        update = self.value_condition is SignalValueCondition.UPDATE
        return (self._named() if update else self._satisfying()).sticky()

    def _named(self) -> Condition:
        made = signal(self.key)
        return made if self.source is None else made.source(self.source)

    def _satisfying(self) -> Condition:
        return self._named() if self.value is None else self._named().eq(self.value)


def conditions(dependencies: list[SignalDependency]) -> dict[str, list[Condition]]:
    """The rules of an operator, by action in order of first declaration."""
    by_action: dict[str, list[SignalDependency]] = {}
    for one in dependencies:
        if one.action is not SignalAction.NONE:
            by_action.setdefault(one.action.value.lower(), []).append(one)
    return {action: _rules(several) for action, several in by_action.items()}


def _rules(several: list[SignalDependency]) -> list[Condition]:
    sufficient = [one for one in several if one.condition is SignalCondition.SUFFICIENT]
    necessary = [one for one in several if one.condition is SignalCondition.NECESSARY]
    only_levels = all(one.level for one in necessary)
    ways = [one.as_edge() for one in sufficient if not one.level]
    if necessary and not only_levels:
        ways.append(_one_or(all_of, [one.as_level() if one.level else one.as_edge() for one in necessary]))
    rules = [_one_or(any_of, ways)] if ways else []
    rules += [one.as_level() for one in sufficient if one.level]
    if necessary and only_levels:
        rules += [_turning(one, [other for other in necessary if other is not one]) for one in necessary]
    return rules


def _turning(one: SignalDependency, others: list[SignalDependency]) -> Condition:
    """Levels that hold together become true by the newest signal of one of them."""
    if not others:
        return one.as_level()
    newest = signal(one.key) if one.source is None else signal(one.key).source(one.source)
    if one.value_condition is SignalValueCondition.EQUAL and one.value is not None:
        newest = newest.eq(one.value)
    return all_of(newest.latest(), *(other.as_level() for other in others))


def _one_or(join: Any, parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else join(*parts)


class SignalOperator:
    """An operator of a workflow whose rules are AIP-35 dependencies.

    streaming: it runs until it is stopped. options: what `Workflow.batch` or `Workflow.streaming` takes, without rules.
    """

    def __init__(self, workflow: Workflow, name: str, *, streaming: bool = False, **options: Any) -> None:
        self.workflow = workflow
        self.name = name
        self.dependencies: list[SignalDependency] = []
        declare = workflow.streaming if streaming else workflow.batch
        self.declared: Declared[..., Any] = declare(name, **options)

    def depends_on_signal(
        self,
        key: str,
        value: Json = None,
        condition: SignalCondition = SignalCondition.NECESSARY,
        action: SignalAction = SignalAction.START,
        life: SignalLife = SignalLife.ONCE,
        value_condition: SignalValueCondition = SignalValueCondition.EQUAL,
        source: str | None = None,
    ) -> SignalOperator:
        """Do `action` when such a signal comes, together with what else is NECESSARY for the action. Returns itself."""
        one = SignalDependency(
            key,
            value,
            SignalCondition(condition),
            SignalAction(action),
            SignalLife(life),
            SignalValueCondition(value_condition),
            source,
        )
        self.dependencies.append(one)
        self.workflow.when(self.name, conditions(self.dependencies))
        return self

    # ── predefined edges ──

    def stop_before_control_dependency(self, upstream: SignalOperator) -> SignalOperator:
        """START once a run of `upstream` has ended well (AIP-35: FINISHED). Several of them are needed together."""
        return self.depends_on_signal(upstream.state_key("succeeded"))

    def start_before_control_dependency(self, upstream: SignalOperator) -> SignalOperator:
        """START once a run of `upstream` runs. AIP-35 had STARTING, which here may still fail to become a run."""
        return self.depends_on_signal(upstream.state_key("running"))

    def restart_before_control_dependency(self, upstream: SignalOperator) -> SignalOperator:
        """RESTART each time that a run of `upstream` has ended well."""
        return self.depends_on_signal(upstream.state_key("succeeded"), action=SignalAction.RESTART)

    def model_version_control_dependency(self, model: str) -> SignalOperator:
        """RESTART each time that the signal named like a model has a new value. It alone is enough."""
        return self.depends_on_signal(
            model,
            condition=SignalCondition.SUFFICIENT,
            action=SignalAction.RESTART,
            value_condition=SignalValueCondition.UPDATE,
        )

    def example_control_dependency(self, example: str) -> SignalOperator:
        """START once `example.<name>` is `created`."""
        return self.depends_on_signal(f"example.{example}", "created")

    def state_key(self, state: str) -> str:
        """The key of the signal that a run of this operator is in a state."""
        return f"run.{self.declared.path}.{state}"


def user_define_control_dependency(
    src: SignalOperator,
    dependency: SignalOperator | None,
    signal_key: str,
    signal_value: Json = None,
    signal_name: str | None = None,
    condition: SignalCondition = SignalCondition.NECESSARY,
    action: SignalAction = SignalAction.START,
    life: SignalLife = SignalLife.ONCE,
    value_condition: SignalValueCondition = SignalValueCondition.EQUAL,
) -> SignalOperator:
    """AIP-35's function: `src` depends on a signal that `dependency` sends. Returns `src`.

    dependency: only signals that its runs emit; None for any sender. signal_name: a segment in front of the key.
    """
    key = signal_key if signal_name is None else f"{signal_name}.{signal_key}"
    source = dependency.declared.path if dependency is not None else None
    return src.depends_on_signal(key, signal_value, condition, action, life, value_condition, source)
