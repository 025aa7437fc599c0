"""Options of rules, and the forms that know time or ask a function: in Python and in documents, canonical, and part of the digest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgsig import Condition, Workflow, absent, at_least, signal
from pgsig.condition import digest
from pgsig.decide.match import match, questions
from pgsig.definition import Definition, parse
from pgsig.definition.changes import KnownOperator, compare
from pgsig.errors import InvalidInput, Problem
from pgsig.model import Action
from tests.pure.workbench import Bench, operator

A, B = signal("a.x"), signal("b.x")


def defined(start: Any, **more: Any) -> Definition:
    """A workflow of one operator that starts by this."""
    return parse({"workflow": "w", "operators": {"op": {"batch": {"command": ["x"]}, "start": start}, **more}})


def problems(start: Any, **more: Any) -> list[Problem]:
    with pytest.raises(InvalidInput) as refused:
        defined(start, **more)
    return list(refused.value.problems)


def test_a_rule_without_options_keeps_the_digest_that_it_always_had() -> None:
    (rule,) = defined({"signal": "a", "by": "none"}).operators[0].rules
    assert rule.digest == digest(["START", {"signal": "a"}, "none"])
    assert rule.options == {}
    (plain,) = defined({"signal": "a", "shadow": False}).operators[0].rules
    assert plain.digest == digest(["START", {"signal": "a"}, "subject"])


def test_options_are_canonical_and_part_of_the_digest() -> None:
    definition = defined({"signal": "a", "max": "03/60m", "then": "stop", "shadow": True, "by": "$.id"})
    (rule,) = definition.operators[0].rules
    said = {"max": "3/1h", "then": "STOP", "shadow": True}
    assert (rule.condition, rule.by, rule.options) == ({"signal": "a"}, "$.id", said)
    assert definition.document["operators"]["op"]["start"] == {"signal": "a", "by": "$.id", **said}
    assert parse(definition.document).digest == definition.digest
    digests = {
        defined({"signal": "a", **options}).operators[0].rules[0].digest
        for options in ({}, {"max": "3/1h"}, {"max": "4/1h"}, {"max": "3/1h", "then": "STOP"}, {"shadow": True})
    }
    assert len(digests) == 5


def test_one_condition_with_other_options_is_another_rule() -> None:
    rules = defined([{"signal": "a", "shadow": True}, {"signal": "a"}]).operators[0].rules
    assert [(rule.name, rule.options) for rule in rules] == [("start", {"shadow": True}), ("start.2", {})]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"max": "3"}, "PS503", "like 3/1h"),
        ({"max": "0/1h"}, "PS503", "from 1 to 1000"),
        ({"max": "3/1x"}, "PS503", "not a duration"),
        ({"max": 3}, "PS503", "a text of a count and a duration"),
        ({"max": None}, "PS503", "a text"),
        ({"then": "STOP"}, "PS506", "add max: 3/1h"),
        ({"max": "3/1h", "then": "START"}, "PS506", "all the same"),
        ({"max": "3/1h", "then": "STPO"}, "PS503", "did you mean STOP?"),
        ({"max": "3/1h", "then": "Stop"}, "PS503", "did you mean STOP?"),
        ({"max": "3/1h", "then": "none"}, "PS503", "leave it out to do nothing"),
        ({"max": "3/1h", "then": ["STOP"]}, "PS503", "then is one of"),
        ({"shadow": "yes"}, "PS503", "true or false"),
        ({"by": 3}, "PS503", "subject, none"),
    ],
)
def test_an_option_that_is_wrong_is_named(options: dict[str, Any], code: str, said: str) -> None:
    (problem,) = problems({"signal": "a", **options})
    assert (problem.code, problem.where) == (code, f"/operators/op/start/{list(options)[-1]}")
    assert said in str(problem)


def test_all_that_is_wrong_is_named_at_once_beside_the_condition_s_own_mistakes() -> None:
    found = problems(
        [{"signal": "A", "max": "x", "then": "y", "shadow": 1, "by": ""}, {"all": [{"signal": "a", "max": "1/1h"}]}]
    )
    assert [problem.where.removeprefix("/operators/op/start/") for problem in found] == [
        *("0/max", "0/then", "0/shadow", "0/by", "0/signal"),
        "1/all/0/max",
    ]
    assert found[-1].message == '"max" does not go with signal'


def test_a_plan_shows_options() -> None:
    new = defined({"signal": "a", "max": "3/1h", "then": "STOP"})
    old = {"id": 7, "name": "start", "action": "START", "condition": {"signal": "a"}, "by": "subject", "digest": "x"}
    known = {"op": KnownOperator(1, "op", "batch", {"command": ["x"]}, rules=({**old, "options": {"shadow": True}},))}
    changes = compare(new, known, before=1, digest="")
    assert [(rule.change, rule.options) for rule in changes.operators[0].rules] == [
        ("new", {"max": "3/1h", "then": "STOP"}),
        ("removed", {"shadow": True}),
    ]
    assert [rule["options"] for rule in changes.as_dict()["operators"][0]["rules"]] == [
        {"max": "3/1h", "then": "STOP"},
        {"shadow": True},
    ]


# ── Python ──


@pytest.mark.parametrize(
    ("condition", "tree"),
    [
        (A.count(3, distinct="$.shard"), {"signal": "a.x", "count": 3, "distinct": "$.shard"}),
        (A.sum("$.rows", 100), {"signal": "a.x", "sum": {"of": "$.rows", "reaches": 100}}),
        (A.debounce("30s", max_wait=timedelta(minutes=5)), {"signal": "a.x", "debounce": "30s", "max_wait": "5m"}),
        ((A & B).debounce("30s"), {"all": [A.tree, B.tree], "debounce": "30s"}),
        (
            (A | B).window("1d", tz="Europe/Berlin", lateness="10m"),
            {"any": [A.tree, B.tree], "window": "1d", "tz": "Europe/Berlin", "lateness": "10m"},
        ),
        (at_least(2, A, B).window("1h"), {"at_least": 2, "of": [A.tree, B.tree], "window": "1h"}),
        (A.met_by("ops.is_met"), {"signal": "a.x", "met_by": "ops.is_met"}),
        (absent("heartbeat", for_="5m"), {"absent": "heartbeat", "for": "5m"}),
        (
            absent("heartbeat", for_=timedelta(minutes=5), after="run.x.y.running").label("silent"),
            {"absent": "heartbeat", "for": "5m", "after": "run.x.y.running", "label": "silent"},
        ),
        (A.max("3/1h"), {"signal": "a.x", "max": "3/1h"}),
        (
            (A & B).max("3/1h", then=Action.STOP).by("none"),
            {"all": [A.tree, B.tree], "max": "3/1h", "then": "STOP", "by": "none"},
        ),
        ((A | B).shadow(), {"any": [A.tree, B.tree], "shadow": True}),
    ],
)
def test_builders_are_canonical_json(condition: Condition, tree: dict[str, Any]) -> None:
    assert condition.tree == tree
    workflow = Workflow("w")
    workflow.batch("op", command=["x"], start=condition)
    assert workflow.as_document()["operators"]["op"]["start"] == tree


def test_what_belongs_to_the_rule_does_not_go_into_a_part() -> None:
    for part, key in ((A.max("3/1h"), "max"), (A.shadow(), "shadow"), (A.by("none"), "by")):
        with pytest.raises(TypeError, match=rf"{key} belongs to the whole rule: write \(a & b\)\.{key}"):
            part & B
    with pytest.raises(TypeError, match="belongs to a signal"):
        (A & B).sum("$.n", 3)
    with pytest.raises(TypeError, match="belongs to a signal"):
        absent("a", for_="1m").met_by("a.b")


def test_paths_and_functions_that_only_postgres_can_check_are_collected() -> None:
    definition = defined(
        [A.count(2, distinct="$.shard").tree, {"all": [A.sum("$.rows", 5).tree, B.met_by("ops.is_met").tree]}]
    )
    assert [(use.path, use.where, use.predicate) for use in definition.paths] == [
        ("$.shard", "/operators/op/start/0/distinct", False),
        ("$.rows", "/operators/op/start/1/all/0/sum/of", False),
    ]
    assert [(use.name, use.where) for use in definition.functions] == [
        ("ops.is_met", "/operators/op/start/1/all/1/met_by")
    ]


@pytest.mark.parametrize("by", ["$.id", "strict $.id", "lax $.id"])
def test_every_path_that_may_stand_at_by_is_asked_for(by: str) -> None:
    bench = Bench(operator(("START", {"signal": "a"}), by=by))
    one = bench.signal("a", {"id": "x"})
    assert questions(match(bench.catalog, [one])) == [(one, by, False)]
    assert [order.subject for order in bench.feed([one], {(one.id, by): "x"}).orders] == ["x"]
