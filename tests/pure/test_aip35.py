"""AIP-35 under its own names: which conditions they stand for, and what becomes of its quirks."""

from __future__ import annotations

from typing import Any

import pytest

from pgsig import Workflow
from pgsig.aip35 import (
    SignalAction,
    SignalCondition,
    SignalDependency,
    SignalLife,
    SignalOperator,
    SignalValueCondition,
    conditions,
    user_define_control_dependency,
)
from pgsig.model import Kind
from tests.pure.workbench import Bench, operator

SUFFICIENT, NECESSARY = SignalCondition.SUFFICIENT, SignalCondition.NECESSARY
REPEATED, UPDATE = SignalLife.REPEATED, SignalValueCondition.UPDATE
STOP, RESTART, RELOAD, NONE = SignalAction.STOP, SignalAction.RESTART, SignalAction.RELOAD, SignalAction.NONE


def on(key: str, value: Any = "on", **said: Any) -> SignalDependency:
    return SignalDependency(key, value, **said)


def trees(*dependencies: SignalDependency) -> dict[str, list[Any]]:
    return {action: [one.tree for one in rules] for action, rules in conditions(list(dependencies)).items()}


def bench(*dependencies: SignalDependency, kind: Kind = Kind.BATCH) -> Bench:
    """An operator with these dependencies, and a bench for it."""
    rules = [(action.upper(), tree) for action, several in trees(*dependencies).items() for tree in several]
    return Bench(operator(*rules, kind=kind))


def acted(made: Bench, *events: tuple[str, Any]) -> list[str]:
    """For each signal the action that was taken because of it, "" for none."""
    found = []
    for key, value in events:
        before = len(made.effects.actions)
        made.emit(key, value)
        new = [row["action"] for row in made.effects.actions[before:] if row["result"] != "outranked"]
        found.append("+".join(new))
    return found


A, B = {"signal": "a", "eq": "on"}, {"signal": "b", "eq": "on"}
LEVEL_A, LEVEL_B = {**A, "sticky": True}, {**B, "sticky": True}


@pytest.mark.parametrize(
    ("dependencies", "rules"),
    [
        ([on("a")], {"start": [A]}),
        ([on("a", None)], {"start": [{"signal": "a"}]}),
        ([on("a", value_condition=UPDATE)], {"start": [{"signal": "a", "changed": True}]}),
        ([on("a", source="w.job")], {"start": [{"signal": "a", "source": "w.job", "eq": "on"}]}),
        ([on("a"), on("b")], {"start": [{"all": [A, B]}]}),
        ([on("a", condition=SUFFICIENT), on("b", condition=SUFFICIENT)], {"start": [{"any": [A, B]}]}),
        (
            [on("a"), on("c", condition=SUFFICIENT), on("b")],
            {"start": [{"any": [{"signal": "c", "eq": "on"}, {"all": [A, B]}]}]},
        ),
        ([on("a"), on("b", life=REPEATED)], {"start": [{"all": [A, LEVEL_B]}]}),
        ([on("a", life=REPEATED)], {"start": [LEVEL_A]}),
        ([on("a", life=REPEATED, value_condition=UPDATE)], {"start": [{"signal": "a", "sticky": True}]}),
        (
            [on("a", condition=SUFFICIENT), on("b", condition=SUFFICIENT, life=REPEATED)],
            {"start": [A, LEVEL_B]},
        ),
        (
            [on("a", life=REPEATED), on("b", life=REPEATED)],
            {"start": [{"all": [{**A, "latest": True}, LEVEL_B]}, {"all": [{**B, "latest": True}, LEVEL_A]}]},
        ),
        ([on("a", action=STOP), on("b"), on("c", action=NONE)], {"stop": [A], "start": [B]}),
        ([on("a", action=RELOAD), on("b", action=RESTART)], {"reload": [A], "restart": [B]}),
    ],
)
def test_dependencies_are_ordinary_conditions(
    dependencies: list[SignalDependency], rules: dict[str, list[Any]]
) -> None:
    assert trees(*dependencies) == rules
    workflow = Workflow("w")
    made = SignalOperator(workflow, "op", command=["x"])
    for one in dependencies:
        made.depends_on_signal(one.key, one.value, one.condition, one.action, one.life, one.value_condition, one.source)
    stored = workflow.as_document()["operators"]["op"]
    assert {action: stored[action] if len(rules[action]) > 1 else [stored[action]] for action in rules} == {
        action: rules[action] for action in rules
    }


# ── its semantics ──

ON_A, ON_B, OFF_A, OFF_B = ("a", "on"), ("b", "on"), ("a", "off"), ("b", "off")


def test_necessary_all_of_them_in_any_order_and_sufficient_one_is_enough() -> None:
    assert acted(bench(on("a"), on("b")), ON_A, ON_B, ON_B, ON_A) == ["", "START", "", "START"]
    either = bench(on("a", condition=SUFFICIENT), on("b", condition=SUFFICIENT))
    assert acted(either, ON_A, OFF_B, ON_B) == ["START", "", "START"]


def test_equal_and_update() -> None:
    assert acted(bench(on("a")), ON_A, OFF_A, ON_A, ON_A) == ["START", "", "START", "START"]
    update = bench(on("a", value_condition=UPDATE))
    assert acted(update, ON_A, OFF_A, OFF_A, ON_A) == ["START", "START", "", "START"]


def test_once_is_used_up_and_repeated_is_not() -> None:
    assert acted(bench(on("a"), on("b")), ON_A, ON_B, ON_B) == ["", "START", ""]
    assert acted(bench(on("a", life=REPEATED), on("b")), ON_A, ON_B, ON_B, OFF_A, ON_B) == [
        "",
        "START",
        "START",
        "",
        "",
    ]


def test_meet_all_falls_back_when_a_member_becomes_false() -> None:
    both = bench(on("a", life=REPEATED), on("b", life=REPEATED))
    assert acted(both, ON_A, OFF_A, ON_B, ON_A, OFF_B, ON_A, ON_B) == ["", "", "", "START", "", "", "START"]
    assert all(fate.outcome != "quarantined" for decision in both.decisions for fate in decision.fates)


def test_levels_that_hold_together_act_once_for_each_signal_that_renews_one() -> None:
    both = bench(on("a", life=REPEATED), on("b", life=REPEATED))
    assert acted(both, ON_A, ON_A, ON_A, ON_B, ON_B, ON_A) == ["", "", "", "START", "START", "START"]


def test_three_levels_and_an_alternative() -> None:
    made = bench(
        *(on(key, life=REPEATED) for key in "abc"),
        on("d", condition=SUFFICIENT),
        on("e", condition=SUFFICIENT, life=REPEATED),
    )
    events = [ON_A, ON_B, ("d", "on"), ("c", "on"), ("e", "off"), ("e", "on")]
    assert acted(made, *events) == ["", "", "START", "START", "", "START"]


# ── its quirks, by their number in the module ──


def test_quirk_1_a_necessary_one_that_fails_hides_no_sufficient_one() -> None:
    assert acted(bench(on("a"), on("b", condition=SUFFICIENT)), OFF_A, ON_B) == ["", "START"]


def test_quirk_2_each_action_has_its_own_conditions() -> None:
    made = bench(on("a", action=STOP), on("b", action=RESTART), kind=Kind.STREAMING)
    assert acted(made, ON_B, ON_A, ON_B) == ["RESTART", "STOP", "RESTART"]


def test_quirk_3_a_value_that_is_overwritten_before_its_evaluation_counts() -> None:
    made = bench(on("a"))
    orders = made.feed([made.signal("a", "on"), made.signal("a", "off")]).orders
    assert [order.evidence for order in orders] == [(1,)]


def test_quirk_4_the_same_millisecond_is_no_tie() -> None:
    made = bench(on("a"))
    assert len(made.feed([made.signal("a", "on", at=5.0), made.signal("a", "on", at=5.0)]).orders) == 2


def test_quirk_5_meet_all_takes_a_fresh_set() -> None:
    assert acted(bench(on("a"), on("b")), ON_A, ON_B, ON_A, ON_A, ON_B) == ["", "START", "", "", "START"]


def test_quirk_6_a_level_acts_at_signals_of_its_own_key() -> None:
    made = bench(on("a", condition=SUFFICIENT, life=REPEATED), on("b"))
    assert acted(made, ON_A, OFF_B, ON_A) == ["START", "", "START"]


def test_quirk_7_update_compares_with_the_last_value_of_the_key() -> None:
    assert acted(bench(on("m", None, value_condition=UPDATE)), ("m", "v1"), ("m", "v1"), ("m", "v2")) == [
        "START",
        "",
        "START",
    ]
    held = bench(on("m", None, value_condition=UPDATE, life=REPEATED), on("a"))
    assert acted(held, ON_A, ("m", "v1"), ON_A) == ["", "START", "START"]


def test_quirk_9_stop_beats_the_others_and_all_consume() -> None:
    made = bench(on("a"), on("a", action=STOP))
    assert acted(made, ON_A) == ["STOP"]
    assert made.fates() == [(1, "consumed"), (1, "consumed")]


def test_quirk_10_none_is_no_rule() -> None:
    assert trees(on("a", action=NONE)) == {}


# ── its functions ──


def test_predefined_edges() -> None:
    wf = Workflow("w")
    up, other, down = (
        SignalOperator(wf, name, command=["x"], streaming=name == "down") for name in ("up", "other", "down")
    )
    down.stop_before_control_dependency(up).stop_before_control_dependency(other)
    down.restart_before_control_dependency(up).model_version_control_dependency("model")
    other.start_before_control_dependency(up).example_control_dependency("train")
    stored = wf.as_document()["operators"]
    assert stored["down"]["start"] == {"all": [{"signal": "run.w.up.succeeded"}, {"signal": "run.w.other.succeeded"}]}
    assert stored["down"]["restart"] == {
        "any": [{"signal": "model", "changed": True}, {"signal": "run.w.up.succeeded"}]
    }
    assert stored["other"]["start"] == {
        "all": [{"signal": "run.w.up.running"}, {"signal": "example.train", "eq": "created"}]
    }


def test_user_define_control_dependency() -> None:
    wf = Workflow("w")
    src, sender = SignalOperator(wf, "src", command=["x"]), SignalOperator(wf, "sender", command=["x"])
    same = user_define_control_dependency(src, sender, "key_1", "value_1", action=RESTART)
    user_define_control_dependency(src, None, "key_2", "value_2", "name", SUFFICIENT, STOP, REPEATED)
    assert same is src
    stored = wf.as_document()["operators"]["src"]
    assert stored["restart"] == {"signal": "key_1", "eq": "value_1", "source": "w.sender"}
    assert stored["stop"] == {"signal": "name.key_2", "eq": "value_2", "sticky": True}


def test_names_are_taken_as_texts_too_and_others_are_refused() -> None:
    wf = Workflow("w")
    job = SignalOperator(wf, "job", command=["x"])
    job.depends_on_signal("a", "on", "SUFFICIENT", "RESTART")  # type: ignore[arg-type]
    assert wf.as_document()["operators"]["job"]["restart"] == A
    with pytest.raises(ValueError, match="MAYBE"):
        job.depends_on_signal("a", "on", "MAYBE")  # type: ignore[arg-type]
