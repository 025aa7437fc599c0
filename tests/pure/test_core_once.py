"""Each signal ends once for each instance of a rule, whatever number of leaves held it; and a batch is its signals one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pgsig.decide import advance
from tests.pure.workbench import Bench, operator


def doubles(bench: Bench) -> list[tuple[Any, ...]]:
    """(signal, rule, instance) with more than one outcome: the database would refuse the second."""
    keys = [(fate.signal_id, fate.rule_id, fate.subject) for d in bench.decisions for fate in d.fates]
    return [key for key, times in Counter(keys).items() if times > 1]


def test_a_level_that_was_also_an_edge_ends_once() -> None:
    bench = Bench(operator(("START", {"all": [{"signal": "a"}, {"signal": "a", "sticky": True}]})))
    assert [bench.emit("a", True) for _ in range(3)] == [[(1,)], [(2,)], [(3,)]]
    assert bench.fates() == [(1, "consumed"), (2, "consumed"), (3, "consumed")]
    assert doubles(bench) == []


def test_a_latest_that_another_part_still_holds_is_not_superseded() -> None:
    bench = Bench(operator(("START", {"all": [{"signal": "a", "latest": True}, {"signal": "a", "count": 2}]})))
    assert bench.emit("a") == []
    assert bench.emit("a") == [(1, 2)]
    assert bench.fates() == [(1, "consumed"), (2, "consumed")]


def test_what_several_levels_held_is_superseded_once() -> None:
    levels = {"any": [{"signal": "m", "sticky": True, "eq": 1}, {"signal": "m", "sticky": True, "eq": 2}]}
    bench = Bench(operator(("START", {"all": [{"signal": "go"}, levels]})))
    bench.emit("m", 1)
    bench.emit("m", 2)
    assert bench.fates() == [(1, "superseded")]
    assert bench.emit("go") == [(3,)]


def test_a_level_that_expired_as_an_edge_is_not_superseded_as_well() -> None:
    parts = {"all": [{"signal": "a"}, {"signal": "b"}], "within": "10s"}
    bench = Bench(operator(("START", {"all": [parts, {"signal": "a", "sticky": True}]})))
    for key, at in (("a", 100), ("b", 200), ("a", 201), ("a", 300)):
        bench.emit(key, True, at=at)
    assert bench.fates() == [(1, "expired"), (2, "consumed"), (3, "consumed")]
    assert bench.states[100, ""]["levels"] == {"2": [4, bench.states[100, ""]["pending"]["0"][0][1], 0, True]}


@pytest.mark.parametrize("after", ["up", None])
def test_the_signal_that_armed_an_absence_ends_when_the_absence_is_complete(after: str | None) -> None:
    condition = {"absent": "beat", "for": "5m", **({"after": after} if after else {})}
    bench = Bench(operator(("START", condition)))
    bench.emit(after or "beat", at=100)
    assert bench.emit("timer.w.op", {"rule": 100}, at=400) == [(2,)]
    # With an `after` it is over; without, it goes on counting from that signal.
    assert bench.fates() == ([(1, "superseded")] if after else []) + [(2, "consumed")]
    bench.emit("beat", at=500)
    assert doubles(bench) == []
    assert (1, "superseded") in bench.fates()


A, B = {"signal": "a"}, {"signal": "b"}


def both_ways(condition: Any, events: list[tuple[Any, ...]], action: str = "START") -> tuple[Bench, Bench]:
    """The same signals as one batch, and one by one."""
    together, apart = Bench(operator((action, condition))), Bench(operator((action, condition)))
    together.feed([together.signal(key, value, subject, at=at) for key, value, subject, at in events])
    for key, value, subject, at in events:
        apart.emit(key, value, subject, at=at)
    return together, apart


@pytest.mark.parametrize(
    ("condition", "events"),
    [
        # An instance that has nothing left is no longer there for a signal without subject.
        ({"all": [A, B]}, [("a", 1, "x", 1), ("b", 1, "x", 2), ("a", 1, "", 3), ("b", 1, "x", 4)]),
        # Nothing is waited with: an older signal that commits later is not too old.
        ({"all": [A, B], "within": "10s"}, [("a", 1, "", 100), ("b", 1, "", 105), ("a", 1, "", 50), ("b", 1, "", 58)]),
        ({"signal": "a", "count": 2, "window": "1h"}, [("a", 1, "", 100), ("a", 1, "", 105), ("a", 1, "", 50)]),
        ({"absent": "a", "for": "1m", "after": "b"}, [("b", 1, "", 100), ("a", 1, "", 90), ("b", 1, "", 70)]),
    ],
)
def test_a_batch_decides_as_its_signals_one_by_one(condition: Any, events: list[tuple[Any, ...]]) -> None:
    together, apart = both_ways(condition, events)
    assert [order.evidence for d in together.decisions for order in d.orders] == [
        order.evidence for d in apart.decisions for order in d.orders
    ]
    assert sorted(together.fates()) == sorted(apart.fates())
    assert together.states == apart.states
    assert together.decisions[-1].timers == {k: v for d in apart.decisions for k, v in d.timers.items()}


def test_stop_without_subject_reaches_what_started_in_the_same_batch() -> None:
    bench = Bench(operator(("START", A), ("STOP", B), ("RESTART", {"signal": "c"})))
    signals = [bench.signal(*given) for given in (("a", 1, "x"), ("a", 1, "y"), ("b",), ("c",), ("b",))]
    orders = bench.feed(signals).orders
    assert [(str(o.action), o.subject) for o in orders] == [
        ("START", "x"), ("START", "y"), ("STOP", "x"), ("STOP", "y"), ("RESTART", ""), ("STOP", ""),
    ]  # fmt: skip
    assert bench.results() == ["recorded"] * 6


def test_a_run_that_lives_is_reached_until_its_runner_has_stopped_it() -> None:
    bench = Bench(operator(("STOP", B), ("RESTART", {"signal": "c"})))
    bench.live = {1: {"firm": True, "queued": False}}
    orders = bench.feed([bench.signal(key) for key in ("b", "c")]).orders
    # What only waited is gone with the STOP, and a RESTART for all does not bring it back.
    assert [(str(o.action), o.subject) for o in orders] == [("STOP", "firm"), ("STOP", "queued"), ("RESTART", "firm")]


def test_time_goes_on_while_signals_are_dropped() -> None:
    # A timer is not among what came meanwhile: without it the debounce would wait for ever.
    bench = Bench(operator(("START", {"signal": "a", "debounce": "30s"})))
    bench.emit("a", at=100)
    order = {"action": "PAUSE", "mode": "drop"}
    signals = [
        bench.signal("manual.w.op", order, at=110),
        bench.signal("a", at=120),
        bench.signal("timer.w.op", {"rule": 100}, at=130),
        bench.signal("manual.w.op", {"action": "RESUME"}, at=140),
    ]
    orders = bench.feed(signals).orders
    assert [(order.rule_id, order.evidence) for order in orders if order.rule_id] == [(100, (1,))]
    assert bench.fates() == [(3, "expired"), (1, "consumed")]


def test_a_timer_does_not_collapse_what_came() -> None:
    bench = Bench(operator(("START", {"all": [A, B], "debounce": "30s"})))
    bench.emit("a", at=100)
    signals = [
        bench.signal("manual.w.op", {"action": "PAUSE", "mode": "collapse"}, at=110),
        bench.signal("b", at=120),
        bench.signal("timer.w.op", {"rule": 100}, at=130),
        bench.signal("manual.w.op", {"action": "RESUME"}, at=140),
        bench.signal("timer.w.op", {"rule": 100}, at=150),
    ]
    assert [order.evidence for order in bench.feed(signals).orders if order.rule_id] == [(1, 3)]


def test_an_instance_by_a_path_has_a_name_that_a_subject_may_have() -> None:
    # Runs of it emit signals about it, and those take 200 bytes of subject.
    bench = Bench(operator(("START", A), by="$.id"))
    long = ["ü" * 150 + end for end in "xy"]
    signals = [bench.signal("a", {"id": name}) for name in long]
    orders = bench.feed(signals, {(s.id, "$.id"): name for s, name in zip(signals, long, strict=True)}).orders
    assert all(len(order.subject.encode()) <= 200 for order in orders)
    assert len({order.subject for order in orders}) == 2


def test_what_waits_in_vain_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advance.MOST_WAITING == 10_000  # the largest count
    monkeypatch.setattr(advance, "MOST_WAITING", 3)
    bench = Bench(operator(("START", {"all": [A, B]})))
    bench.feed(bench.signal("a") for _ in range(5))
    assert [entry[0] for entry in bench.states[100, ""]["pending"]["0"]] == [3, 4, 5]
    assert bench.fates() == [(1, "expired"), (2, "expired")]
    assert bench.emit("b") == [(3, 6)]
