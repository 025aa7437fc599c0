"""Rules of meaning 6 to 12, each through the real engine; 1 to 5 are in test_rules.py. A test's name carries its number."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pgsig.errors import Conflict
from pgsig.store.database import Connection, connect, translated
from tests.flow.runs import claim, did, evidence, runner, succeed
from tests.flow.workshop import Workshop

A, B = {"signal": "a"}, {"signal": "b"}
BATCH = {"command": ["true"]}


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


@pytest.mark.parametrize(
    ("on_busy", "results", "runs"),
    [
        ("queue", ["recorded", "queued", "queued"], 3), ("skip", ["recorded", "skipped", "skipped"], 1),
        ("merge", ["recorded", "queued", "merged"], 2), ("parallel(2)", ["recorded", "recorded", "queued"], 3),
    ],
)  # fmt: skip
def test_rule_6_start_on_a_live_batch_run_follows_on_busy(
    shop: Workshop, on_busy: str, results: list[str], runs: int
) -> None:
    shop.apply(op={"batch": {**BATCH, "on_busy": on_busy}, "start": A})
    shop.emit("a")
    shop.evaluate()
    claim(shop, runner(shop))
    last = [shop.emit("a") for _ in range(2)]
    shop.evaluate()
    assert [result for *_, result in did(shop)] == results
    assert shop.call("SELECT count(*) FROM pgsig.runs") == runs
    if on_busy == "merge":
        assert shop.call("SELECT evidence FROM pgsig.runs ORDER BY id DESC LIMIT 1") == last


def test_rule_6_a_streaming_run_is_started_once_and_stop_cancels_what_is_queued(shop: Workshop) -> None:
    shop.apply(op={"streaming": BATCH, "start": A, "stop": B, "restart": {"signal": "c"}})
    for key in ("a", "a", "b", "c"):
        shop.emit(key)
    shop.evaluate()
    assert [row[1:] for row in did(shop)] == [
        ("START", "recorded"), ("START", "already_running"), ("STOP", "recorded"), ("RESTART", "recorded"),
    ]  # fmt: skip
    states = shop.connection.execute("SELECT state FROM pgsig.runs ORDER BY id").fetchall()
    assert states == [("stopped",), ("queued",)]


def test_rule_7_an_action_names_the_version_that_decided_it_and_state_survives(shop: Workshop) -> None:
    shop.apply(op={"all": [A, B]}, other={"signal": "x"})
    first = shop.emit("a")
    shop.evaluate()
    shop.apply(op={"all": [A, B]}, other={"signal": "y"})
    shop.emit("x")
    shop.emit("b")
    shop.evaluate()
    assert evidence(shop)[0][0] == first
    assert shop.connection.execute("SELECT version FROM pgsig.actions").fetchall() == [(2,)]


def test_rule_7_a_rule_that_changed_starts_at_now(shop: Workshop) -> None:
    shop.apply(op={"all": [A, B]})
    waiting = shop.emit("a")
    shop.evaluate()
    unseen = shop.emit("a")
    shop.apply(op={"all": [A, B, {"signal": "c"}]})
    for key in ("b", "c"):
        shop.emit(key)
    shop.evaluate()
    assert (did(shop), shop.outcomes(waiting), shop.outcomes(unseen)) == ([], ["expired"], [])


@pytest.mark.parametrize(
    ("mode", "outcomes", "started"),
    [("hold", ["consumed", "consumed"], [0, 1]), ("collapse", ["superseded", "consumed"], [1]), ("drop", ["expired", "expired"], [])],
)  # fmt: skip
def test_rule_8_a_pause_holds_collapses_or_drops(
    shop: Workshop, mode: str, outcomes: list[str], started: list[int]
) -> None:
    shop.apply(op=A)
    shop.call("SELECT pgsig.pause('w', %s)", mode)
    signals = [shop.emit("a") for _ in range(2)]
    shop.evaluate()
    shop.call("SELECT pgsig.resume('w')")
    shop.evaluate()
    assert [shop.outcomes(number)[0] for number in signals] == outcomes
    assert [found for _, _, action, _, found in shop.actions() if action == "START"] == [[signals[i]] for i in started]
    assert [row[2] for row in did(shop) if row[1] == "NONE"] == ["paused", "resumed"]


def test_rule_9_a_duplicate_answers_with_the_first_position_and_another_body_is_an_error(shop: Workshop) -> None:
    shop.apply(op=A)
    emit = "SELECT pgsig.emit('a', %s::jsonb, source => 's', event_id => 'e')"
    first = shop.call(emit, json.dumps(1))
    assert shop.call(emit, json.dumps(1)) == first
    with pytest.raises(Conflict, match="PS109"), translated():
        shop.call(emit, json.dumps(2))
    assert shop.call("SELECT pgsig.emit('a', '2', source => 'another', event_id => 'e')") > first
    shop.evaluate()
    assert len(did(shop)) == 2


def test_rule_10_a_loop_ends_at_the_limit_of_its_depth_and_is_shown(shop: Workshop) -> None:
    shop.connection.execute("UPDATE pgsig_private.setting SET value = '5' WHERE name = 'depth_limit'")
    shop.apply(op={"batch": BATCH, "start": [A, {"signal": "run.w.op.succeeded", "max": "1000/1h"}]})
    shop.emit("a")
    worker = runner(shop)
    while shop.evaluate():
        for run, epoch, _ in claim(shop, worker):
            succeed(shop, run, epoch)
    assert shop.call("SELECT max(depth) FROM pgsig.actions") == 5
    assert shop.connection.execute("SELECT detail FROM pgsig.outcomes WHERE outcome = 'quarantined'").fetchall() == [
        ("the causal chain is longer than 5",)
    ]


def test_rule_11_what_fails_is_put_aside_with_its_error_and_the_rest_goes_on(shop: Workshop) -> None:
    shop.apply(op=A, other=A)
    good, bad, last = (shop.emit("a", value) for value in (1, 2, 3))
    while shop.engine.step(1, poison={bad: "RuntimeError: no"}).taken:
        pass
    assert evidence(shop) == [[good], [good], [last], [last]]
    assert shop.outcomes(bad) == ["quarantined", "quarantined"]
    assert shop.call("SELECT detail FROM pgsig.outcomes WHERE signal_id = %s LIMIT 1", bad) == "RuntimeError: no"


def test_rule_12_a_signal_for_a_closed_window_is_late(shop: Workshop) -> None:
    shop.apply(op={**A, "count": 2, "window": "1m", "lateness": "5s"})
    numbers = []
    for shift in ("10 min", "0"):
        numbers.append(shop.call(
            "INSERT INTO pgsig.signals (key, emitted_at) VALUES ('a', clock_timestamp() + %s::interval) RETURNING id", shift
        ))  # fmt: skip
        shop.evaluate()
    assert (shop.outcomes(numbers[0]), shop.outcomes(numbers[1]), did(shop)) == ([], ["late"], [])
