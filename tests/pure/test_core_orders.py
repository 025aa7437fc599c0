"""Orders whole: every field of what a decision asks for, by hand and by rule; pauses; limits; what has to be loaded and asked before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgsig.decide.catalog import compile_rule
from pgsig.decide.custom import Verdict, custom_key, instance_of
from pgsig.decide.decision import Decision, needs
from pgsig.decide.match import Match, equal, is_resume, match, questions
from pgsig.model import Action, Kind, Outcome, Result, Rule, Signal
from tests.pure.workbench import Bench, operator

A, B = {"signal": "a"}, {"signal": "b"}
PAUSE, RESUME = {"action": "PAUSE"}, {"action": "RESUME", "reason": "done"}


def changed(bench_operator: Any, **fields: Any) -> Any:
    """The operator with other fields in its first rule."""
    first, *others = bench_operator.rules
    return replace(bench_operator, rules=(replace(first, **fields), *others))


def test_an_order_by_hand_in_full() -> None:
    bench = Bench(operator(("START", A)))
    signal = bench.signal("manual.w.op", {"action": "STOP", "params": {"x": 1}}, "s", source="ann", depth=2)
    (order,) = bench.feed([signal]).orders
    assert (order.operator.name, order.rule_id, order.subject, order.action, order.cause_id) == (
        "op",
        0,
        "s",
        Action.STOP,
        1,
    )
    assert (order.nth, order.depth, order.evidence, order.params, order.instead) == (0, 3, (1,), {"x": 1}, None)
    text = "by hand, ann: no reason given"
    assert order.explanation == {"text": text, "met": True, "have": 1, "need": 1, "evidence": [1]}


@pytest.mark.parametrize(
    "value", [None, 1, "x", {}, {"action": "DANCE"}, [1], {"action": "NONE"}, {"action": ["STOP"]}]
)
def test_an_order_that_cannot_be_read_is_none(value: Any) -> None:
    bench = Bench(operator(("START", A)))
    assert bench.feed([bench.signal("manual.w.op", value)]).orders == []
    unreadable = bench.signal("manual.w.op")._replace(value="{")
    assert bench.feed([unreadable]).orders == []


def test_an_order_by_rule_in_full() -> None:
    bench = Bench(operator(("START", B), ("STOP", A)))
    (order,) = bench.feed([bench.signal("a", 1, "s", depth=4)]).orders
    assert (order.rule_id, order.subject, order.action, order.cause_id, order.nth) == (101, "s", Action.STOP, 1, 0)
    assert (order.depth, order.evidence, order.params, order.instead) == (5, (1,), None, None)
    assert order.explanation == {"text": "a", "met": True, "have": 1, "need": 1, "evidence": [1]}


def test_the_depth_of_an_order_is_that_of_its_deepest_signal() -> None:
    bench = Bench(operator(("START", {"all": [A, B]})), depth_limit=8)
    bench.emit("a", depth=6)
    (order,) = bench.feed([bench.signal("b", depth=3)]).orders
    assert (order.depth, order.explanation["met"], order.explanation["have"]) == (7, True, 2)
    bench.emit("a", depth=8)
    (fate, other) = bench.feed([bench.signal("b", depth=1)]).fates
    assert (fate.order, fate.detail, other.outcome) == (None, "the causal chain is longer than 8", Outcome.QUARANTINED)
    levels = Bench(operator(("START", {"signal": "a", "sticky": True})))
    assert levels.feed([levels.signal("a", depth=2)]).orders[0].depth == 3


def test_a_pause_holds_and_a_resume_evaluates_in_the_same_batch() -> None:
    bench = Bench(operator(("START", {**A, "eq": 1}), kind=Kind.BATCH))
    signals = [
        bench.signal("manual.w.op", PAUSE),
        bench.signal("a", 1, "x"),
        bench.signal("a", 2),
        bench.signal("manual.w.op", RESUME),
    ]
    decision = bench.feed(signals)
    assert [(o.action, o.instead, o.evidence) for o in decision.orders] == [
        (Action.NONE, Result.PAUSED, (1,)), (Action.START, None, (2,)), (Action.NONE, Result.RESUMED, (4,)),
    ]  # fmt: skip
    assert (decision.pauses, decision.released) == ({1: None}, [(2, 100)])
    assert [(f.signal_id, f.rule_id, f.subject, f.outcome, f.order, f.detail) for f in decision.fates] == [
        (2, 100, "x", Outcome.CONSUMED, 1, None)
    ]


@pytest.mark.parametrize(("mode", "outcome", "detail"), [
    (None, Outcome.HELD, "hold"), ("hold", Outcome.HELD, "hold"), ("collapse", Outcome.HELD, "collapse"),
    ("drop", Outcome.EXPIRED, "dropped, its operator was paused"),
])  # fmt: skip
def test_what_comes_while_paused_has_its_outcome(mode: str | None, outcome: Outcome, detail: str) -> None:
    bench = Bench(operator(("START", A)), operator(("START", A), name="other", number=2))
    order = {**PAUSE, "mode": mode} if mode else PAUSE
    decision = bench.feed([bench.signal("manual.w.op", order), bench.signal("a", 1, "x")])
    assert decision.pauses == {1: mode or "hold"}
    assert [(f.rule_id, f.subject, f.outcome, f.detail) for f in decision.fates] == [
        (100, "", outcome, detail), (200, "x", Outcome.CONSUMED, None),
    ]  # fmt: skip


def paused(mode: str, *rules: tuple[str, Any]) -> Bench:
    return Bench(replace(operator(*rules), paused=mode))


def resumed(bench: Bench, *held: Signal) -> Decision:
    """What was held in batches before, and now the resume."""
    bench.held = [found for signal in held for found in match(bench.catalog, [signal])]
    return bench.feed([bench.signal("manual.w.op", RESUME)])


def test_what_was_held_before_is_evaluated_in_its_order() -> None:
    bench = paused("hold", ("START", A), ("STOP", A))
    decision = resumed(bench, *(bench.signal("a", 1, s) for s in "xy"))
    assert [(o.rule_id, o.action, o.subject, o.cause_id, o.instead) for o in decision.orders] == [
        (100, Action.START, "x", 1, Result.OUTRANKED), (101, Action.STOP, "x", 1, None),
        (100, Action.START, "y", 2, Result.OUTRANKED), (101, Action.STOP, "y", 2, None),
        (0, Action.NONE, "", 3, Result.RESUMED),
    ]  # fmt: skip
    assert decision.released == [(1, 100), (1, 101), (2, 100), (2, 101)]
    assert [f.outcome for f in decision.fates] == [Outcome.CONSUMED] * 4


def test_collapse_keeps_the_newest_of_each_rule_and_instance() -> None:
    bench = paused("collapse", ("START", A), ("STOP", B))
    decision = resumed(bench, *(bench.signal(key, 1, s) for key, s in (("a", "x"), ("a", "y"), ("b", "x"), ("a", "x"))))
    assert [order.evidence for order in decision.orders] == [(2,), (3,), (4,), (5,)]
    gone = [f for f in decision.fates if f.outcome is Outcome.SUPERSEDED]
    assert [(f.signal_id, f.rule_id, f.subject, f.order, f.detail) for f in gone] == [
        (1, 100, "x", None, "collapsed at resume, by signal 4")
    ]


def test_a_resume_of_what_is_not_paused_changes_nothing_else() -> None:
    bench = Bench(operator(("START", A)))
    decision = bench.feed([bench.signal("manual.w.op", RESUME), bench.signal("a")])
    assert [order.instead for order in decision.orders] == [Result.RESUMED, None]
    assert (decision.released, is_resume(bench.signal("manual.w.op", PAUSE))) == ([], False)


def test_a_stop_by_hand_outranks_rules_of_its_subject() -> None:
    bench = Bench(operator(("START", {"signal": "manual.w.op"})))
    decision = bench.feed([bench.signal("manual.w.op", {"action": "STOP"}, "s")])
    assert [(o.rule_id, o.instead) for o in decision.orders] == [(0, None), (100, Result.OUTRANKED)]
    decision = bench.feed([bench.signal("manual.w.op", {"action": "START"}, "s")])
    assert [(o.rule_id, o.instead) for o in decision.orders] == [(0, None), (100, None)]


def test_a_limit_counts_firings_of_its_span_and_then_does_something_else() -> None:
    bench = Bench(changed(operator(("START", A), ("RESTART", {"signal": "c"})), most=(2, 10.0)))
    found = [bench.feed([bench.signal("a", at=at)]).orders[0] for at in (1, 10, 11, 12, 20, 20.5, 21)]
    # At 11 the firing at 1 is ten seconds ago: not within the span any more.
    assert [order.instead for order in found] == [None, None, None, Result.LIMITED, None, Result.LIMITED, None]
    then = Bench(changed(operator(("START", A)), most=(1, 10.0), then=Action.STOP))
    orders = [then.feed([then.signal("a", at=at)]).orders[0] for at in (1, 2)]
    assert [(order.action, order.instead) for order in orders] == [(Action.START, None), (Action.STOP, None)]


def test_a_shadow_decides_and_lets_the_next_rule_win() -> None:
    bench = Bench(changed(operator(("STOP", A), ("START", A)), shadow=True))
    orders = bench.feed([bench.signal("a")]).orders
    assert [(order.action, order.instead) for order in orders] == [(Action.STOP, Result.SHADOW), (Action.START, None)]


def test_what_is_needed_of_the_past() -> None:
    joined = {"all": [A, B]}
    bench = Bench(
        operator(("START", A), ("STOP", joined)), operator(("START", joined), name="p", number=2, by="none"),
        operator(("RESTART", joined), name="q", number=3, by="$.k"),
    )  # fmt: skip
    found = needs(match(bench.catalog, [bench.signal("a", 1, "x")]), {(1, "$.k"): "7"})
    assert found.states == {(101, "x"), (101, ""), (200, ""), (300, "7"), (300, "")}
    assert (set(found.whole_rules), set(found.operators)) == (set(), set())
    found = needs(match(bench.catalog, [bench.signal("a")]), {})
    assert tuple(map(set, (found.states, found.whole_rules, found.operators))) == (
        {(101, ""), (200, ""), (300, "")},
        {101, 300},
        {1, 3},
    )
    timed = Bench(operator(("STOP", {**A, "debounce": "1s"})))
    found = needs(
        match(timed.catalog, [timed.signal("timer.w.op", {"rule": 100}), timed.signal("manual.w.op", RESUME)]), {}
    )
    assert tuple(map(set, (found.states, found.whole_rules, found.operators))) == ({(100, "")}, set(), set())


def test_each_question_is_asked_once() -> None:
    leaf = {"signal": "a", "where": "$ > 1", "count": 2, "distinct": "$.d"}
    bench = Bench(
        operator(("START", leaf), ("STOP", {"signal": "a", "sum": {"of": "$.n", "reaches": 3}}), by="lax $.k"),
        operator(("START", {"any": [{"signal": "a", "where": "$ > 1"}, A]}), number=2, name="o"),
    )
    signal = bench.signal("a")
    assert questions(match(bench.catalog, [signal])) == [
        (signal, "$ > 1", True), (signal, "$.d", False), (signal, "lax $.k", False), (signal, "$.n", False),
    ]  # fmt: skip
    assert questions([Match(signal, None, (), bench.catalog.operators[1])]) == []


def test_a_sql_function_has_the_last_word() -> None:
    bench = Bench(operator(("START", {"signal": "a", "met_by": "o.f", "eq": 1})))
    rule = bench.catalog.rules[100]
    name = custom_key(rule, rule.leaves[0], "x")  # type: ignore[arg-type]
    assert name == "met_by 100 0 x"

    def ask(value: Any, verdict: Any) -> list[tuple[int, ...]]:
        signal = bench.signal("a", value, "x")
        return [order.evidence for order in bench.feed([signal], {(signal.id, name): verdict}).orders]

    assert ask(1, Verdict(False, {"n": 1})) == []
    assert bench.states[100, "x"] == {"version": 1, "custom": {"0": {"n": 1}}}
    assert ask(2, Verdict(True, {"n": 2})) == []  # not 1: it is not even asked
    assert bench.states[100, "x"]["custom"] == {"0": {"n": 1}}
    assert ask(1, None) == []
    assert ask(1, Verdict(True, {"n": 3})) == [(4,)]
    assert ask(1, "42000 no") == []
    assert [(f.subject, f.outcome, f.detail) for f in bench.decisions[-1].fates] == [
        ("x", Outcome.QUARANTINED, "o.f: 42000 no")
    ]


def test_instances_of_a_path() -> None:
    rule = compile_rule(Rule(1, 1, "r", Action.START, 0, A, "$.k"), operator())
    signal = Bench().signal("a", None, "subject")
    assert [instance_of(rule, signal, {(1, "$.k"): k}) for k in ("7", None, "", "é" * 100)] == ["7", "", "", "é" * 100]
    assert instance_of(rule, signal, {}) == ""
    long = instance_of(rule, signal, {(1, "$.k"): "é" * 101})
    assert (long[:41], len(long)) == ("é" * 40 + "~", 73)


@pytest.mark.parametrize(("text", "wanted", "same"), [
    ('{"a":[1,{"b":true}]}', {"a": [1.0, {"b": True}]}, True), ('{"a":[1,{"b":true}]}', {"a": [1, {"b": 1}]}, False),
    ("[1,2]", [1], False), ("[1]", [1, 2], False), ("[]", {}, False), ('{"a":1}', {"b": 1}, False),
    ('{"a":1,"b":2}', {"a": 1, "b": 3}, False),
    ('"ü"', "ü", True), ('"\\u00fc"', "ü", True), ("null", None, True), ("false", 0, False), ("true", True, True), ("[true]", [1], False),
])  # fmt: skip
def test_values_are_compared_as_jsonb_does(text: str, wanted: Any, same: bool) -> None:
    assert equal(text, wanted) is same
