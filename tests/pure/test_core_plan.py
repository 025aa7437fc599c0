"""Rows whole: what an order leaves to be recorded, and the small parts that everything is made of."""

from __future__ import annotations

from typing import Any

import pytest

from pgsig.condition import calendar, digest, dump, duration, parse
from pgsig.condition.parse import trigger_name
from pgsig.condition.pattern import PatternIndex, matches
from pgsig.decide.plan import Effects, most_runs, slots
from pgsig.decide.state import Entry, RuleState
from pgsig.model import Instance, Kind, LiveRun, State
from tests.pure.workbench import Bench, operator

A, B = {"signal": "a"}, {"signal": "b"}
NO_DURATION = "a duration is a text like 30s, 10m or 1h30m, or a number of seconds"
NO_TEXT = "is not a duration: write 500ms, 30s, 10m, 2h, 1d or 1h30m"
RUNNING = LiveRun(1, State.RUNNING)


def bench(*rules: tuple[str, Any], alive: list[LiveRun] | None = None, **spec: Any) -> Bench:
    made = Bench(operator(*rules, **spec))
    made.run_ids = iter(range(100, 200))  # type: ignore[assignment]
    made.instances[1, ""] = Instance(1, "", 5, "running" if alive else "stopped", list(alive or ()))
    made.live = {1: [""]}
    return made


def test_a_start_in_full() -> None:
    b = bench(("START", A), pool="gpu", priority=3, params={"x": 1})
    b.emit("a", depth=2)
    assert b.effects.document() == {
        "actions": [{
            "id": 1, "operator_id": 1, "rule_id": 100, "subject": "", "action": "START", "result": "recorded", "version": 1, "cause_id": 1,
            "nth": 0, "depth": 3, "evidence": (1,), "run_id": 100, "consumed": False,
            "explanation": {"text": "a", "met": True, "have": 1, "need": 1, "evidence": [1]},
        }],
        "runs": [{
            "id": 100, "operator_id": 1, "subject": "", "generation": 6, "version": 1, "action_id": 1, "depth": 3, "pool": "gpu",
            "priority": 3, "slots": 1, "handover_of": None, "params": {"x": 1}, "evidence": (1,), "claimable": True,
        }],
        "instances": [{"operator_id": 1, "subject": "", "desired": "running", "generation": 6, "run_id": 100}],
    }  # fmt: skip
    plain = bench(("START", A))
    plain.emit("a")
    assert [(r["pool"], r["priority"], r["params"]) for r in plain.effects.runs] == [("default", 0, {})]


def test_a_stop_in_full() -> None:
    b = bench(
        ("STOP", A),
        alive=[RUNNING, LiveRun(2, State.QUEUED), LiveRun(3, State.RETRYING), LiveRun(4, State.STARTING, True)],
    )
    b.emit("a")
    document = b.effects.document()
    assert (document["stops"], document["instances"]) == ([1, 2, 3], [
        {"operator_id": 1, "subject": "", "desired": "stopped", "generation": 5, "run_id": None}
    ])  # fmt: skip
    assert [(run.id, run.stopping) for run in b.instances[1, ""].runs] == [(1, True), (4, True)]
    b.emit("a")
    assert (b.results(), b.effects.stops) == (["recorded", "already_stopped"], [1, 2, 3])
    wanted = bench(("STOP", A))
    wanted.instances[1, ""].desired = "running"
    wanted.emit("a")
    assert (wanted.results(), wanted.effects.document()["instances"][0]["desired"]) == (["already_stopped"], "stopped")
    nothing = bench(("STOP", A))
    nothing.emit("a")
    assert set(nothing.effects.document()) == {"actions"}


def test_a_restart_and_a_stop_of_one_batch_name_the_run_that_there_was() -> None:
    b = bench(("RESTART", A), ("STOP", B), alive=[RUNNING])
    b.feed([b.signal("a"), b.signal("b")])
    assert b.effects.document()["instances"] == [
        {"operator_id": 1, "subject": "", "desired": "stopped", "generation": 6, "run_id": 100}
    ]
    assert b.effects.stops == [1, 100]
    assert b.instances[1, ""].runs == [LiveRun(1, State.RUNNING, True)]


def test_a_handover_keeps_the_newest_that_serves_and_has_room_beside_it() -> None:
    b = bench(("RESTART", A), alive=[RUNNING, LiveRun(2, State.RUNNING), LiveRun(3, State.STARTING)], handover="start_first",
              kind=Kind.STREAMING)  # fmt: skip
    b.emit("a")
    (run,) = b.effects.runs
    assert (b.effects.stops, run["handover_of"], run["slots"], run["claimable"]) == ([1, 3], 2, 2, False)
    retrying = bench(("RESTART", A), alive=[LiveRun(1, State.RETRYING)], handover="start_first", kind=Kind.STREAMING)
    retrying.emit("a")
    assert (retrying.effects.stops, retrying.effects.runs[0]["handover_of"]) == ([1], None)


def test_already_running_and_merged_name_their_run() -> None:
    b = bench(("START", A), alive=[RUNNING], kind=Kind.STREAMING)
    b.emit("a")
    assert [(row["result"], row["run_id"]) for row in b.effects.actions] == [("already_running", 1)]
    assert set(b.effects.document()) == {"actions"}
    m = bench(("START", A), alive=[RUNNING, LiveRun(2, State.QUEUED), LiveRun(3, State.QUEUED)], on_busy="merge")
    m.emit("a")
    assert (m.effects.document()["merges"], m.effects.actions[0]["run_id"]) == ([{"run_id": 2, "evidence": (1,)}], 2)
    m.emit("manual.w.op", {"action": "START", "params": {"x": 1}})
    assert m.effects.merges[1] == {"run_id": 2, "evidence": (2,), "params": {"x": 1}}


def test_a_restart_for_a_run_is_only_done_while_it_stays() -> None:
    """After a reload that failed: a STOP is not undone, and replicas that failed together are restarted once."""
    restart = {"action": "RESTART", "params": {}, "run": 1}

    def after(*orders: tuple[str, Any], **spec: Any) -> tuple[list[str], int]:
        both = [RUNNING, LiveRun(2, State.RUNNING)] if spec.get("replicas") == 2 else [RUNNING]
        b = bench(("STOP", A), ("RESTART", B), alive=both, kind=Kind.STREAMING, **spec)
        b.feed([b.signal(key, value) for key, value in orders])
        return list(b.results()), len(b.effects.runs)

    hand = ("manual.w.op", restart)
    assert after(hand) == (["recorded"], 1)
    assert after(("a", None), hand) == (["recorded", "not_running"], 0)
    assert after(("b", None), hand) == (["recorded", "not_running"], 1)
    assert after(("b", None), hand, handover="start_first") == (["recorded", "not_running"], 1)
    other = ("manual.w.op", {**restart, "run": 2})
    for handover in ("stop_first", "start_first"):
        assert after(hand, other, replicas=2, handover=handover) == (["recorded", "not_running"], 2)


def test_a_reload_goes_to_all_that_stay() -> None:
    b = bench(("RELOAD", A), alive=[RUNNING, LiveRun(2, State.STARTING), LiveRun(3, State.RUNNING, True)])
    b.emit("a")
    assert b.effects.document()["reloads"] == [{"run_id": n, "action_id": 1, "evidence": (1,)} for n in (1, 2)]
    assert b.effects.actions[0]["run_id"] == 1
    waiting = bench(("RELOAD", A), alive=[LiveRun(2, State.QUEUED)])
    waiting.emit("a")
    assert (waiting.results(), waiting.effects.reloads[0]["run_id"]) == (["recorded"], 2)


@pytest.mark.parametrize(
    ("limit", "waiting", "result"), [(None, 99, "queued"), (None, 100, "skipped"), (2, 1, "queued"), (2, 2, "skipped")]
)
def test_a_queue_is_bounded(limit: int | None, waiting: int, result: str) -> None:
    queue = [LiveRun(n + 2, State.QUEUED) for n in range(waiting)]
    b = bench(("START", A), alive=[RUNNING, *queue], **({"queue_limit": limit} if limit else {}))
    b.emit("a")
    assert b.results() == [result]


def test_what_is_not_done_is_recorded_as_none() -> None:
    b = bench(("START", A), ("RESTART", A))
    b.emit("a")
    assert [(row["action"], row["run_id"]) for row in b.effects.actions] == [("START", 100), ("NONE", None)]
    assert [slots(operator(on_busy=said)) for said in ("parallel(12)", "queue", "xparallel(3)")] == [12, 1, 1]
    assert (slots(operator()), Effects().document()) == (1, {})


def test_replicas_begin_together_and_a_start_fills_up_what_is_missing() -> None:
    b = bench(("START", A), kind=Kind.STREAMING, replicas=3)
    b.emit("a")
    assert [(row["id"], row["slots"], row["claimable"], row["generation"]) for row in b.effects.runs] == [
        (100, 3, True, 6), (101, 3, True, 7), (102, 3, True, 8),
    ]  # fmt: skip
    assert (b.effects.actions[0]["run_id"], b.effects.document()["instances"][0]["run_id"]) == (100, 100)
    b.emit("a")
    assert (b.results(), b.effects.actions[1]["run_id"]) == (["recorded", "already_running"], 100)
    some = bench(("START", A), alive=[RUNNING, LiveRun(2, State.RUNNING, True)], kind=Kind.STREAMING, replicas=3)
    some.emit("a")
    # Two are missing; the place of the one that stops is free only when it has ended.
    assert [row["claimable"] for row in some.effects.runs] == [True, False]
    assert some.results() == ["recorded"]


def test_replicas_are_handed_over_one_after_the_other() -> None:
    alive = [LiveRun(n, State.RUNNING) for n in (1, 2, 3)]
    b = bench(("RESTART", A), alive=alive, kind=Kind.STREAMING, replicas=3, handover="start_first")
    b.emit("a")
    assert [(row["handover_of"], row["slots"], row["claimable"]) for row in b.effects.runs] == [
        (1, 4, True), (2, 4, False), (3, 4, False),
    ]  # fmt: skip
    assert b.effects.stops == []
    fewer = bench(("RESTART", A), alive=alive, kind=Kind.STREAMING, replicas=2, handover="start_first")
    fewer.emit("a")
    assert (fewer.effects.stops, [row["handover_of"] for row in fewer.effects.runs]) == ([1], [2, 3])
    more = bench(("RESTART", A), alive=alive[:1], kind=Kind.STREAMING, replicas=2, handover="start_first")
    more.emit("a")
    assert [(row["handover_of"], row["slots"]) for row in more.effects.runs] == [(1, 3), (None, 2)]
    plain = bench(("RESTART", A), alive=alive, kind=Kind.STREAMING, replicas=3)
    plain.emit("a")
    assert (plain.effects.stops, len(plain.effects.runs)) == ([1, 2, 3], 3)
    assert not any(row["claimable"] for row in plain.effects.runs)


def test_an_order_says_how_many_runs_it_may_begin() -> None:
    b = bench(("START", A), kind=Kind.STREAMING, replicas=4)
    b.emit("a")
    assert [most_runs(order.operator) for order in b.decisions[-1].orders] == [4]
    batch = bench(("START", A), on_busy="parallel(7)")
    batch.emit("a")
    assert [most_runs(order.operator) for order in batch.decisions[-1].orders] == [1]


def test_a_run_carries_its_labels_and_the_key_of_its_limit() -> None:
    limit = {"key": "gpu {subject} {params.size} {params.none}", "max": 2}
    b = bench(("START", A), labels=["gpu"], concurrency=limit, params={"size": {"b": 1, "a": 2}})
    b.emit("a", None, "m-1")
    (run,) = b.effects.runs
    assert (run["labels"], run["limit_most"]) == (["gpu"], 2)
    assert run["limit_key"] == 'default/gpu m-1 {"a": 2, "b": 1} '
    plain = bench(("START", A))
    plain.emit("a")
    assert not {"labels", "limit_key", "limit_most"} & set(plain.effects.runs[0])


# ── small parts ──


@pytest.mark.parametrize(("given", "length"), [
    ("500ms", 0.5), ("1m", 60), ("2h", 7200), ("1d", 86400), ("1w", 604800), ("1.5h", 5400), (" 1h 30m ", 5400), (2, 2),
    (0.5, 0.5), ("3660d", 316224000),
])  # fmt: skip
def test_durations_are_read(given: Any, length: float) -> None:
    assert duration.seconds(given) == length


@pytest.mark.parametrize(("given", "said"), [
    (True, NO_DURATION), (None, NO_DURATION), ("", f'"" {NO_TEXT}'), ("1x", f'"1x" {NO_TEXT}'),
    ("0s", '"0s" is not between 1 ms and 10 years'),
    ("3661d", '"3661d" is not between 1 ms and 10 years'), (-1, '"-1" is not between 1 ms and 10 years'),
])  # fmt: skip
def test_what_is_no_duration_is_told(given: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        duration.seconds(given)
    assert str(caught.value) == said


def test_durations_are_written_and_limits_read() -> None:
    assert [duration.text(x) for x in (0, 0.001, 59.9999, 90061.5, 86400)] == ["0s", "1ms", "1m", "1d1h1m1s500ms", "1d"]
    assert [duration.limit(x) for x in ("3/1h", "1/1s", "1000/1d")] == [(3, 3600), (1, 1), (1000, 86400)]
    for wrong in ("3", "0/1h", "1001/1h", "x/1h", "/1h", "-1/1h"):
        with pytest.raises(ValueError) as caught:
            duration.limit(wrong)
        assert str(caught.value) == f'"{wrong}" is not a limit: write a count from 1 to 1000 and a duration, like 3/1h'


@pytest.mark.parametrize(("pattern", "key", "same"), [
    ("a.b", "a.b", True), ("a.b", "a.c", False), ("a", "a.b", False), ("a.*", "a.b", True), ("*.b", "a.b", True), ("a.*", "a", False),
    ("a.**", "a", True), ("a.**", "a.b.c", True), ("a.**", "b.a", False), ("a.b.**", "a", False), ("a.*.**", "a.b", True),
])  # fmt: skip
def test_a_pattern_alone_and_in_an_index_agree(pattern: str, key: str, same: bool) -> None:
    assert matches(pattern, key) is same
    assert PatternIndex([("z.**", 0), (pattern, 1), (pattern, 2)])[key] == ([1, 2] if same else [])
    assert PatternIndex[int]()[key] == []


def test_windows_that_calendars_have() -> None:
    assert [list(calendar.problems(x, "UTC")) for x in (60, 900, 86400, 604800)] == [[]] * 4
    told = "a window is a week, a day, or a part of a day of a minute or more that divides it, like 15m, 1h or 6h"
    for wrong in (59, 30, 7 * 3600, 2 * 86400, 14 * 86400):
        assert list(calendar.problems(wrong, "UTC")) == [("window", told)]
    assert list(calendar.problems(60, "Mars")) == [("tz", '"Mars" is not a time zone')]
    # The second midnight of Havana's longest day: windows begin at the first.
    assert calendar.window_of(1762059600 + 1800, 86400, "America/Havana")[0] <= 1762059600


def test_a_digest_is_of_the_meaning() -> None:
    assert digest({"b": 1, "a": "ü"}) == digest({"a": "ü", "b": 1}) != digest({"a": "u", "b": 1})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert trigger_name({"every": "1m"}) == "every-" + digest({"every": "1m"})[:8]


def test_a_state_in_full_survives_its_json() -> None:
    body = {
        "version": 1, "pending": {"0": [[3, 1.5, 2, False, "x"], [4, 1.5, 0, True]]}, "levels": {"1": [2, 1.0, 3, True, None, True]},
        "seen": {"0:a:": "f00"}, "armed": {"2": [7, 2.0, 1, True]}, "clock": 9.5, "fired": [1.0, 2.0], "custom": {"0": {"n": 1}},
    }  # fmt: skip
    state = RuleState.from_json(body)
    assert state.to_json() == body
    assert state.pending[0][0] == Entry(3, 1.5, 2, False, "x")
    assert (state.holds(4), state.holds(2), state.holds(7), state.holds(5), state.is_empty()) == (
        True,
        True,
        True,
        False,
        False,
    )
    assert (Entry(1, 2.0).ok, Entry(1, 2.0).told, RuleState().is_empty(), RuleState({0: []}).is_empty()) == (
        True,
        False,
        True,
        True,
    )


def test_short_forms_are_canonical() -> None:
    for given, canonical in (
        ({"signal": "a", "debounce": 90, "max_wait": "2m"}, {"signal": "a", "debounce": "1m30s", "max_wait": "2m"}),
        (
            {"signal": "a", "window": "24h", "tz": "UTC", "lateness": 1},
            {"signal": "a", "window": "1d", "lateness": "1s"},
        ),
        (
            {"signal": "a", "latest": False, "count": 1, "sum": {"of": "$", "reaches": 2.0}},
            {"signal": "a", "sum": {"of": "$", "reaches": 2}},
        ),
        ({"every": "60s", "label": "x"}, {"every": "1m", "label": "x"}),
    ):
        node, problems = parse(given, operator="w.o")
        assert (node is not None and dump(node), problems) == (canonical, [])
