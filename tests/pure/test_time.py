"""Forms that know time: count, sum and distinct over it, debounce, windows, absence, and the timers that they ask for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pgsig.condition import dump, parse
from pgsig.condition.calendar import window_of
from tests.pure.workbench import EPOCH, Bench, operator

START = EPOCH.timestamp()


def bench(condition: Any, **given: Any) -> Bench:
    return Bench(operator(("START", condition), **given))


def due(b: Bench, subject: str = "") -> float | None:
    """Seconds since the epoch of the bench when the rule wants to be looked at again."""
    found = b.decisions[-1].timers[100, subject]
    return None if found is None else round(found - START, 3)


def tick(b: Bench, at: float, subject: str = "") -> list[tuple[int, ...]]:
    return b.emit("timer.w.op", {"rule": 100}, subject, at=at)


def counted(b: Bench, path: str, *values: Any) -> list[list[tuple[int, ...]]]:
    """Feed signals `a` with what Postgres finds at a path of each."""
    found = []
    for value in values:
        signal = b.signal("a", value)
        found.append([order.evidence for order in b.feed([signal], {(signal.id, path): value}).orders])
    return found


def test_count_distinct_takes_one_of_each_value() -> None:
    b = bench({"signal": "a", "count": 2, "distinct": "$.shard"})
    assert counted(b, "$.shard", "1", "1", "2", "1", "3") == [[], [], [(1, 3)], [], [(2, 5)]]
    assert counted(bench({"signal": "a", "count": 2, "distinct": "$.x"}), "$.x", None, "1") == [[], []]


def test_sum_fires_when_it_is_reached_and_starts_anew() -> None:
    b = bench({"signal": "a", "sum": {"of": "$.n", "reaches": 100}})
    assert counted(b, "$.n", "60", "many", "50", "100", "nan") == [[], [], [(1, 3)], [(4,)], []]


def test_within_asks_for_a_timer_and_expires_by_it() -> None:
    b = bench({"all": [{"signal": "a"}, {"signal": "b"}], "within": "10s"})
    b.emit("a", at=100)
    assert due(b) == 110.001
    assert tick(b, 110.001) == []
    assert b.fates() == [(1, "expired")]
    assert b.states == {}
    assert due(b) is None


def test_within_is_inclusive() -> None:
    b = bench({"all": [{"signal": "a"}, {"signal": "b"}], "within": "10s"})
    b.emit("a", at=100)
    assert b.emit("b", at=110) == [(1, 2)]


def test_debounce_waits_for_quiet_and_hands_over_everything() -> None:
    b = bench({"signal": "a", "debounce": "30s", "max_wait": "5m"})
    b.emit("a", at=100)
    assert due(b) == 130
    b.emit("a", at=120)
    assert due(b) == 150
    assert tick(b, 130) == []  # the timer of before: something came since
    assert due(b) == 150
    assert tick(b, 150) == [(1, 2)]
    assert (b.states, due(b)) == ({}, None)


def test_debounce_does_not_wait_for_ever() -> None:
    b = bench({"signal": "a", "debounce": "30s", "max_wait": "1m"})
    fired = [b.emit("a", at=at) for at in (100, 120, 140, 159)]
    assert fired == [[]] * 4
    assert due(b) == 160
    assert tick(b, 160) == [(1, 2, 3, 4)]


def test_debounce_of_a_condition_starts_when_its_signals_come() -> None:
    b = bench({"all": [{"signal": "a"}, {"signal": "b"}], "debounce": "10s"})
    b.emit("a", at=100)
    assert tick(b, 110) == []
    assert due(b) is None  # quiet, but b is missing: only a signal can change that
    b.emit("b", at=200)
    assert due(b) == 210
    assert tick(b, 210) == [(1, 3)]


def test_a_window_joins_only_what_lies_in_it_and_leftovers_expire() -> None:
    b = bench({"all": [{"signal": "a"}, {"signal": "b"}], "window": "1d"})
    day = 86400.0
    b.emit("a", at=day - 10)
    assert due(b) == day + 0.001
    assert b.emit("b", at=day + 10) == []
    assert b.fates() == [(1, "expired")]
    assert b.emit("a", at=day + 20) == [(2, 3)]


def test_rule_12_a_signal_for_a_closed_window_is_late() -> None:
    b = bench({"signal": "a", "count": 2, "window": "1h", "lateness": "10m"})
    b.emit("a", at=3000)
    b.emit("a", at=3600 + 599)  # of the next window; the first is still open for one second
    assert b.emit("a", at=3500) == [(1, 3)]  # committed late, within lateness
    b.emit("a", at=3600 + 700)
    assert b.fates()[-2:] == [(2, "consumed"), (4, "consumed")]
    b.emit("a", at=3400)
    assert b.fates()[-1] == (5, "late")


@pytest.mark.parametrize(
    ("moment", "length", "zone", "begin", "end"),
    [
        ("2026-10-25T00:30:00", 86400, "Europe/Berlin", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),  # 25 hours
        ("2026-03-29T12:00:00", 86400, "Europe/Berlin", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),  # 23 hours
        (
            "2026-10-25T01:30:00",
            3600,
            "Europe/Berlin",
            "2026-10-25T01:00:00",
            "2026-10-25T02:00:00",
        ),  # 02:30 for the second time
        (
            "2026-03-29T21:30:00",
            21600,
            "Europe/Berlin",
            "2026-03-29T17:00:00",
            "2026-03-29T22:00:00",
        ),  # the last one is cut
        ("2026-01-01T00:00:00", 604800, "UTC", "2025-12-29T00:00:00", "2026-01-05T00:00:00"),
    ],
)
def test_windows_follow_the_calendar_of_their_zone(moment: str, length: float, zone: str, begin: str, end: str) -> None:
    def at(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert window_of(at(moment), length, zone) == (at(begin), at(end))


def test_windows_leave_no_gap_and_do_not_overlap_over_a_change_of_clocks() -> None:
    at = datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp()
    for length in (900.0, 3600.0, 21600.0, 86400.0):
        begin, end = window_of(at, length, "Europe/Berlin")
        for _ in range(60):
            assert begin < end
            assert window_of(end - 0.5, length, "Europe/Berlin") == (begin, end)
            following = window_of(end, length, "Europe/Berlin")
            assert following[0] == end
            begin, end = following


ABSENT = {"absent": "beat", "for": "5m", "after": "up"}


def test_absence_is_armed_and_every_match_puts_it_off() -> None:
    b = bench(ABSENT)
    b.emit("beat", at=10)  # not armed: nobody waits for it
    assert b.states == {}
    b.emit("up", at=100)
    assert due(b) == 400
    b.emit("beat", at=300)
    assert due(b) == 600
    assert tick(b, 400) == []
    assert tick(b, 600) == [(5,)]
    assert due(b) is None  # until it is armed again
    b.emit("up", at=700)
    assert due(b) == 1000


def test_absence_without_after_is_armed_by_its_first_match_and_repeats() -> None:
    b = bench({"absent": "beat", "for": "5m"})
    b.emit("beat", at=100)
    assert tick(b, 400) == [(2,)]
    assert due(b) == 700
    assert tick(b, 700) == [(3,)]


def test_absence_joins_other_signals_until_what_was_missed_comes_after_all() -> None:
    b = bench({"all": [ABSENT, {"signal": "go"}]})
    b.emit("up", at=100)
    assert tick(b, 400) == []
    assert b.emit("go", at=500) == [(2, 3)]
    b.emit("up", at=600)
    tick(b, 900)
    b.emit("up", at=950)  # up again: the absence of before is over
    assert b.fates()[-1] == (5, "expired")
    assert b.emit("go", at=960) == []


def test_instances_have_timers_of_their_own() -> None:
    b = bench(ABSENT)
    b.emit("up", None, "x", at=100)
    b.emit("up", None, "y", at=200)
    assert (b.decisions[0].timers, due(b, "y")) == ({(100, "x"): START + 400}, 500)
    assert tick(b, 400, "x") == [(3,)]
    assert tick(b, 500, "y") == [(4,)]


def test_a_timer_of_a_rule_that_is_gone_is_nothing() -> None:
    b = bench(ABSENT)
    assert b.emit("timer.w.op", {"rule": 7}) == []
    assert b.emit("timer.w.op", "nonsense") == []


@pytest.mark.parametrize(
    "tree",
    [
        ABSENT,
        {"absent": "a.*", "for": "1d", "label": "silence"},
        {"signal": "a", "count": 3, "distinct": "$.shard", "within": "1h"},
        {"signal": "a", "sum": {"of": "$.n", "reaches": 2.5}},
        {"signal": "a", "debounce": "30s", "max_wait": "5m"},
        {
            "all": [{"signal": "a"}, {"signal": "b"}],
            "window": "1d",
            "tz": "Europe/Berlin",
            "lateness": "10m",
            "debounce": "1s",
        },
    ],
)
def test_canonical_json_survives_a_round_trip(tree: Any) -> None:
    node, problems = parse(tree, operator="w.o")
    assert problems == []
    assert node is not None
    assert dump(node) == tree


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"absent": "a"}, [("PS507", "")]),
        ({"absent": "A", "for": "x", "after": "**"}, [("PS505", "/absent"), ("PS505", "/after"), ("PS503", "/for")]),
        ({"signal": "a", "count": 2, "sum": {"of": "$", "reaches": 1}}, [("PS506", "/sum")]),
        ({"signal": "a", "sum": 3}, [("PS503", "/sum")]),
        ({"signal": "a", "distinct": "$.x"}, [("PS506", "/distinct")]),
        ({"signal": "a", "max_wait": "5m"}, [("PS502", "/max_wait")]),
        ({"signal": "a", "debounce": "5m", "max_wait": "1m"}, [("PS503", "/max_wait")]),
        ({"signal": "a", "window": "7h", "tz": "Mars"}, [("PS503", "/window"), ("PS511", "/tz")]),
        ({"signal": "a", "sticky": True, "debounce": "1s"}, [("PS506", "/debounce")]),
        ({"not": ABSENT}, [("PS504", "/not")]),
    ],
)
def test_mistakes_about_time_are_named(tree: Any, expected: list[tuple[str, str]]) -> None:
    node, problems = parse(tree, operator="w.o")
    assert node is None
    assert [(problem.code, problem.where) for problem in problems] == expected
