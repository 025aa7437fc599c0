"""Conditions that can never be true (PS514) and operators that start each other for ever (PS533): refused where that is proved, and
only there.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.pure.test_definition_options import defined, problems

S = {"signal": "s", "sticky": True}
N = {"signal": "s", "latest": True}
GO = {"signal": "go"}


def job(**rules: Any) -> dict[str, Any]:
    return {"batch": {"command": ["x"]}, **rules}


# ── never true ──


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"all": [{**S, "eq": 1}, {**S, "eq": 2}, GO]}, "two values at once"),
        ({"all": [{**S, "eq": 1}, {"all": [{**S, "eq": 2}, GO]}]}, "two values at once"),
        ({"all": [{**S, "eq": "a"}, {**S, "eq": "b", "where": "$ > 1"}, GO]}, "two values at once"),
        ({"all": [{**N, "eq": 1}, {**N, "eq": 2}]}, "two values at once"),
        ({"all": [{**N, "eq": 1}, {**S, "eq": True}]}, "two values at once"),
        ({"at_least": 2, "of": [{**N, "eq": 1}, {**N, "eq": 2}]}, "two values at once"),
        ({"seq": [{**N, "eq": 1}, {**N, "eq": 2}]}, "two values at once"),
        ({"seq": [N, N]}, "one latest s"),
        ({"any": [GO, {"all": [{**N, "eq": 1}, {**N, "eq": 2}]}]}, "two values at once"),
        ({"all": [{**S, "eq": 1}, {"not": {**S, "eq": 1}}, GO]}, "wanted and denied"),
        ({"all": [{**S, "eq": 1}, {"not": S}, GO]}, "wanted and denied"),
        ({"all": [{**N, "where": "$ > 1"}, {"not": {**S, "where": "$ > 1"}}]}, "wanted and denied"),
        ({"all": [{**GO, "subject": "x"}, {**GO, "subject": "y"}]}, "add by: none"),
        ({"seq": [{**GO, "subject": "x"}, {"signal": "a", "subject": "y"}]}, "x and y never meet"),
        ({"seq": [{"every": "10m"}, {"every": "10m"}], "within": "9m"}, "take 10m at least, within is 9m"),
        ({"seq": [{"every": "10m"}, GO, {"every": "10m"}, {"every": "10m"}], "within": "19m"}, "take 20m at least"),
        ({"all": [GO, {"seq": [{"every": "10m"}, {"every": "10m"}]}], "within": "9m"}, "take 10m at least"),
        (
            {"seq": [{"every": "12h"}, {"every": "12h"}, {"every": "12h"}], "window": "1d"},
            "take 1d at least, window is 1d",
        ),
        ([{"every": "10m"}, {"signal": "tick.w.op", "count": 3, "within": "19m"}], "take 20m at least"),
        (
            [{"every": "10m"}, {"every": "15m"}, {"signal": "tick.w.op", "count": 5, "within": "19m"}],
            "take 20m at least",
        ),
    ],
)
def test_what_can_never_be_true_is_refused(start: Any, said: str) -> None:
    (problem,) = problems(start)
    assert problem.code == "PS514"
    assert said in str(problem)
    assert problem.where.startswith("/operators/op/start")


@pytest.mark.parametrize(
    "start",
    [
        {"all": [{**GO, "eq": 1}, {**GO, "eq": 2}]},  # two signals
        {"all": [{**S, "eq": 1}, {**S, "eq": 1.0}, GO]},
        {"all": [{**S, "eq": 1}, {**S, "where": "$ > 5"}, GO]},  # predicates are not compared
        {"all": [{**S, "eq": 1}, {**S, "eq": 2, "source": "x"}, GO]},
        {"all": [{**S, "eq": 1}, {**S, "signal": "t", "eq": 2}, GO]},
        {"any": [{**N, "eq": 1}, {**N, "eq": 2}]},
        {"at_least": 1, "of": [{**N, "eq": 1}, {**N, "eq": 2}]},
        {"all": [{**S, "eq": 1}, {"not": {**S, "eq": 2}}, GO]},
        {"all": [S, {"not": {**S, "eq": 1}}, GO]},
        {"all": [{"signal": "s", "eq": 1}, {"not": {**S, "eq": 1}}]},  # it came, and another one after it
        {"all": [{**GO, "subject": "x"}, {**GO, "subject": "y"}], "by": "none"},
        {"any": [{**GO, "subject": "x"}, {**GO, "subject": "y"}]},
        {"seq": [{"every": "10m"}, {"every": "10m"}], "within": "10m"},
        {"all": [{"every": "10m"}, {"every": "10m"}], "within": "1s"},  # one tick is both
        {"seq": [{"every": "10m"}, {"every": "20m"}], "within": "1s"},
        {"seq": [{"cron": "0 0 * * *"}, {"cron": "0 0 * * *"}], "within": "1s"},  # intervals alone are known
        {"seq": [{"every": "12h"}] * 3, "window": "1d", "tz": "Europe/Berlin"},  # once a year
        [{"every": "10m"}, {"cron": "* * * * *"}, {"signal": "tick.w.op", "count": 9, "within": "1s"}],
        [{"every": "10m"}, {"signal": "tick.w.op", "count": 3, "within": "20m"}],
        {"signal": "go", "count": 10_000, "within": "1s"},
    ],
)
def test_what_may_come_true_is_left_alone(start: Any) -> None:
    defined(start)


# ── for ever ──

END = {"signal": "run.w.op.succeeded"}


@pytest.mark.parametrize(
    ("start", "more", "cycle"),
    [
        (END, {}, "op is started by"),
        ({"signal": "run.*.*.failed"}, {}, "op is started by"),
        ({"signal": "run.w.**"}, {}, "op is started by"),
        ({"any": [GO, END]}, {}, "op is started by"),
        ({**END, "sticky": True}, {}, "op is started by"),
        ({**END, "debounce": "10s"}, {}, "op is started by"),
        ({"all": [END, {"signal": "ready", "sticky": True}]}, {}, "op is started by"),
        ({"all": [END, {"not": {"signal": "freeze", "sticky": True}}]}, {}, "op is started by"),
        ({"signal": "run.w.b.succeeded"}, {"b": job(start=END)}, "b → op → b"),
        (
            {"signal": "run.w.c.failed"},
            {"b": job(restart=END), "c": job(start={"signal": "run.w.b.stopped"})},
            "b → c → op → b",
        ),
        (
            {"all": [{"signal": "run.w.b.succeeded"}, {"signal": "run.w.c.succeeded"}]},
            {"b": job(start=END), "c": job(start=END)},
            "b → op → b",
        ),
        ({**END, "max": "3/1h", "then": "restart"}, {}, "op is started by"),
        ([{**END, "max": "3/1h"}, {"signal": "run.w.op.failed"}], {}, "op is started by"),
    ],
)
def test_a_loop_without_a_limit_is_refused(start: Any, more: dict[str, Any], cycle: str) -> None:
    (problem,) = problems(start, **more)
    assert problem.code == "PS533"
    assert problem.message.startswith(cycle)
    assert "max: 3/1h" in problem.fix


@pytest.mark.parametrize(
    ("start", "more"),
    [
        ({**END, "max": "3/1h"}, {}),
        ({**END, "max": "3/1h", "then": "stop"}, {}),
        ({**END, "shadow": True}, {}),
        ({"signal": "run.w.b.succeeded"}, {"b": job(start={**END, "max": "3/1h"})}),
        ({"signal": "run.w.b.succeeded"}, {"b": job(stop=END)}),
        ({"signal": "run.w.b.succeeded"}, {"b": job(start={"all": [END, GO]})}),  # each round waits for somebody else
        ({"signal": "run.w.b.succeeded"}, {"b": job(start={"all": [END, {"every": "1h"}]})}),
        ({"signal": "run.w.b.succeeded"}, {"b": job(start={"seq": [GO, END]})}),
        ({"at_least": 2, "of": [END, GO, {"signal": "x"}]}, {}),
        (
            {"all": [{"signal": "run.w.b.succeeded"}, {"signal": "run.w.c.succeeded"}]},
            {"b": job(start=END), "c": job(start=GO)},
        ),
        ({"absent": "heartbeat", "for": "5m", "after": "run.w.op.running"}, {}),  # a watchdog
        ({"signal": "run.other.op.succeeded"}, {}),
        ({"all": [GO, {**END, "sticky": True}]}, {}),
        ({"signal": "run.w.b.succeeded"}, {"b": job(start={"signal": "run.w.c.failed"}), "c": job(start=GO)}),
    ],
)
def test_what_ends_or_waits_for_somebody_is_no_loop(start: Any, more: dict[str, Any]) -> None:
    defined(start, **more)


def test_each_loop_is_named_once_and_who_hangs_on_it_is_not() -> None:
    hanging = job(start={"signal": "run.w.op.failed"})
    other = {"x": job(start={"signal": "run.w.y.failed"}), "y": job(start={"signal": "run.w.x.failed"})}
    found = problems(END, hanging=hanging, **other)
    assert [problem.message.partition(":")[0] for problem in found] == [
        "op is started by what becomes of its own runs, for ever",
        "y → x → y",
    ]
