"""Batches, competition between rules, instances, causal depth, values that cannot be read, and what an order means for what is alive."""

from __future__ import annotations

from typing import Any

import pytest

from pgsig.decide.decide import decide
from pgsig.decide.decision import Past
from pgsig.decide.match import match
from pgsig.decide.state import RuleState
from pgsig.model import Action, Instance, Kind, LiveRun, State
from tests.pure.workbench import Bench, operator

A, B = {"signal": "a"}, {"signal": "b"}


def test_rule_4_first_declared_wins_and_both_consume() -> None:
    bench = Bench(operator(("START", A), ("RESTART", A)))
    assert len(bench.emit("a")) == 2
    assert bench.results() == ["recorded", "outranked"]
    assert bench.fates() == [(1, "consumed"), (1, "consumed")]
    assert [row["action"] for row in bench.effects.actions] == ["START", "NONE"]


def test_rule_5_stop_beats_what_was_declared_before_it() -> None:
    bench = Bench(operator(("START", A), ("STOP", {"signal": "*.x"}), ("STOP", A)))
    bench.emit("a")
    assert [(row["action"], row["result"]) for row in bench.effects.actions] == [
        ("NONE", "outranked"),
        ("STOP", "already_stopped"),
    ]


def test_rules_of_different_operators_do_not_compete() -> None:
    bench = Bench(operator(("START", A), number=1, name="x"), operator(("START", A), number=2, name="y"))
    bench.emit("a")
    assert bench.results() == ["recorded", "recorded"]


def test_a_batch_decides_as_its_signals_one_by_one() -> None:
    condition = {"all": [A, B]}
    together, apart = Bench(operator(("START", condition))), Bench(operator(("START", condition)))
    keys = ["a", "a", "b", "a", "b", "b"]
    orders = together.feed([together.signal(key) for key in keys]).orders
    single = [evidence for key in keys for evidence in apart.emit(key)]
    assert [order.evidence for order in orders] == single == [(1, 3), (2, 5), (4, 6)]
    assert together.states == apart.states


def test_same_moment_is_no_tie_position_decides() -> None:
    bench = Bench(operator(("START", {"seq": [A, B]})))
    signals = [bench.signal("a", at=5.0), bench.signal("b", at=5.0)]
    assert [order.evidence for order in bench.feed(signals).orders] == [(1, 2)]


def test_a_signal_without_subject_reaches_every_live_instance() -> None:
    bench = Bench(operator(("STOP", A), kind=Kind.STREAMING))
    bench.live = {1: ["x", "y"]}
    assert [order.subject for order in bench.feed([bench.signal("a")]).orders] == ["x", "y"]
    bench.live = {}
    assert [order.subject for order in bench.feed([bench.signal("a")]).orders] == [""]


def test_a_start_without_subject_goes_to_the_instance_without() -> None:
    bench = Bench(operator(("START", A)))
    bench.live = {1: ["x"]}
    assert [order.subject for order in bench.feed([bench.signal("a")]).orders] == [""]


def test_depth_grows_and_a_chain_that_is_too_long_is_put_aside() -> None:
    bench = Bench(operator(("START", A)), depth_limit=3)
    assert bench.feed([bench.signal("a", depth=2)]).orders[0].depth == 3
    assert bench.feed([bench.signal("a", depth=3)]).orders == []
    assert bench.fates() == [(1, "consumed"), (2, "quarantined")]


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "1" + "0" * 5000])
def test_rule_11_a_value_that_cannot_be_read_harms_nobody_else(text: str) -> None:
    bench = Bench(operator(("START", {"signal": "a", "eq": 1})))
    signals = [bench.signal("a", 1), bench.signal("a")._replace(value=text), bench.signal("a", 1)]
    assert [order.evidence for order in bench.feed(signals).orders] == [(1,), (3,)]
    assert bench.fates() == [(1, "consumed"), (2, "quarantined"), (3, "consumed")]


def test_a_rule_sees_only_what_was_committed_after_it() -> None:
    from dataclasses import replace

    made = operator(("START", A))
    # Transactions below 10 had ended when the rule was made, except 7, which was still open.
    made = replace(made, rules=(replace(made.rules[0], since="7:10:7"),))
    bench = Bench(made)
    signals = [bench.signal("a")._replace(xid=xid) for xid in (6, 7, 9, 10, 11)]
    assert [order.evidence for order in bench.feed(signals).orders] == [(2,), (4,), (5,)]


def test_a_manual_order_is_done_with_its_parameters() -> None:
    bench = Bench(operator(("START", A), params={"size": 1, "kind": "x"}))
    bench.emit("manual.w.op", {"action": "START", "params": {"size": 2}, "reason": "try"}, "s")
    assert bench.effects.runs[0]["params"] == {"size": 2, "kind": "x"}
    assert bench.effects.actions[0]["explanation"]["text"] == "by hand, me: try"


def test_a_state_survives_its_json() -> None:
    body = {
        "version": 1,
        "pending": {"0": [[3, 1.5, 0, True]]},
        "levels": {"1": [2, 1.0, 0, False]},
        "seen": {"0:a:": "f00"},
    }
    assert RuleState.from_json(body).to_json() == body
    assert RuleState.from_json({"version": 1}).to_json() is None


# ── what an order means ──


def run(
    action: str, *alive: LiveRun, kind: Kind = Kind.BATCH, **spec: Any
) -> tuple[str, list[int], list[dict[str, Any]], Instance]:
    """Carry out one order. Returns (result, stopped runs, new runs, the instance afterwards)."""
    bench = Bench(operator((action, A), kind=kind, **spec))
    bench.run_ids = iter(range(100, 200))  # type: ignore[assignment]
    instance = bench.instances[1, ""] = Instance(1, "", len(alive), "running" if alive else "stopped", list(alive))
    bench.live = {1: [""]}
    bench.emit("a")
    return bench.results()[0], bench.effects.stops, bench.effects.runs, instance


RUNNING, QUEUED, STOPPING = (
    LiveRun(1, State.RUNNING),
    LiveRun(2, State.QUEUED),
    LiveRun(3, State.RUNNING, stopping=True),
)
STREAM = Kind.STREAMING


@pytest.mark.parametrize(
    ("action", "alive", "kind", "spec", "result", "stops", "claimable"),
    [
        ("START", [], Kind.BATCH, {}, "recorded", [], [True]),
        ("START", [RUNNING], Kind.BATCH, {}, "queued", [], [False]),
        ("START", [RUNNING], Kind.BATCH, {"on_busy": "skip"}, "skipped", [], []),
        ("START", [RUNNING, QUEUED], Kind.BATCH, {"on_busy": "merge"}, "merged", [], []),
        ("START", [RUNNING], Kind.BATCH, {"on_busy": "merge"}, "queued", [], [False]),
        ("START", [RUNNING, QUEUED], Kind.BATCH, {"on_busy": "replace"}, "recorded", [1, 2], [False]),
        ("START", [RUNNING], Kind.BATCH, {"on_busy": "parallel(2)"}, "recorded", [], [True]),
        ("START", [RUNNING, QUEUED], Kind.BATCH, {"on_busy": "parallel(2)"}, "queued", [], [False]),
        ("START", [RUNNING, QUEUED], Kind.BATCH, {"queue_limit": 1}, "skipped", [], []),
        ("START", [], STREAM, {}, "recorded", [], [True]),
        ("START", [RUNNING], STREAM, {}, "already_running", [], []),
        ("START", [QUEUED], STREAM, {}, "already_running", [], []),
        ("START", [STOPPING], STREAM, {}, "queued", [], [False]),
        ("STOP", [], STREAM, {}, "already_stopped", [], []),
        ("STOP", [STOPPING], STREAM, {}, "already_stopped", [], []),
        ("STOP", [RUNNING, QUEUED], STREAM, {}, "recorded", [1, 2], []),
        ("RESTART", [], STREAM, {}, "recorded", [], [True]),
        ("RESTART", [RUNNING], STREAM, {}, "recorded", [1], [False]),
        ("RESTART", [RUNNING], STREAM, {"handover": "start_first"}, "recorded", [], [True]),
        ("RESTART", [QUEUED], STREAM, {"handover": "start_first"}, "recorded", [2], [True]),
        ("RELOAD", [], STREAM, {}, "not_running", [], []),
        ("RELOAD", [RUNNING], STREAM, {}, "recorded", [], []),
    ],
)  # fmt: skip
def test_rule_6_already_there(
    action: str,
    alive: list[LiveRun],
    kind: Kind,
    spec: dict[str, Any],
    result: str,
    stops: list[int],
    claimable: list[bool],
) -> None:
    found, stopped, runs, _ = run(action, *alive, kind=kind, **spec)
    assert (found, stopped, [row["claimable"] for row in runs]) == (result, stops, claimable)


def test_a_restart_hands_over_from_the_run_that_serves() -> None:
    _, _, runs, instance = run("RESTART", RUNNING, kind=STREAM, handover="start_first")
    assert (runs[0]["handover_of"], runs[0]["slots"], instance.generation) == (1, 2, 2)


def test_orders_of_one_batch_see_each_other() -> None:
    bench = Bench(operator(("START", A), ("STOP", B), kind=STREAM))
    bench.feed([bench.signal(key) for key in ("a", "a", "b", "b", "a")])
    # The runs are of this very batch, so nothing has to be stopped by a runner.
    assert bench.results() == ["recorded", "already_running", "recorded", "already_stopped", "recorded"]
    assert bench.effects.stops == [1]
    assert [row["id"] for row in bench.effects.runs] == [1, 2]
    assert bench.instances[1, ""].desired == "running"


def test_reload_names_its_evidence() -> None:
    bench = Bench(operator(("RELOAD", {"all": [A, B]}), kind=STREAM))
    bench.instances[1, ""] = Instance(1, "", 1, "running", [RUNNING])
    bench.live = {1: [""]}
    bench.emit("a")
    bench.emit("b")
    assert bench.effects.reloads == [{"run_id": 1, "action_id": 1, "evidence": (1, 2)}]
    assert [row["action"] for row in bench.effects.actions] == [Action.RELOAD]


def test_rule_11_a_broken_rule_puts_aside_for_itself_alone() -> None:
    bench = Bench(operator(("START", {"all": [A, B]}), number=1, name="x"), operator(("START", A), number=2, name="y"))
    bench.states[100, ""] = {"version": 1, "pending": {"0": "nonsense"}}
    signal = bench.signal("a")
    matches = match(bench.catalog, [signal])
    with pytest.raises(TypeError):
        decide(bench.catalog, matches, Past(bench.states), {})
    decision = decide(bench.catalog, matches, Past(bench.states), {}, {signal.id: "TypeError"})
    assert [order.operator.name for order in decision.orders] == ["y"]
    assert [(fate.rule_id, str(fate.outcome)) for fate in decision.fates] == [(100, "quarantined"), (200, "consumed")]
    assert decision.states == {}
