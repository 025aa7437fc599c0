"""AI-Flow's conformance checklist: what its own tests assert of rules, service and scheduler, as far as it is about conditions and
signals. Each line is the name of a test here; those that other files test, or that pgsig answers differently on purpose, are below.

Service, elsewhere:
  same client and sequence stored once                  tests/store/test_emit.py, event ids
  a recovered client does not duplicate                 the same: an event id belongs to no session
  listening: later ones only, once, none missed         tests/store/test_jobs.py and tests/api/test_tail.py, late commits included
  the schema survives upgrade and clean-up              tests/store/test_schema.py

Service, different on purpose:
  failover, members, dead first address                 any number of web processes stand before one database: no members to find
  each client a new id, closed ids                      there are no client sessions; a sender is a source, an event has an id
  small client limit                                    one limit for all (PS103, PS602), refused by name
  time → offset                                         positions are not ordered by time across transactions: ask by position

Scheduler, elsewhere:
  status and heartbeats of finished tasks ignored       tests/store/test_jobs.py, a report under an old epoch
  heartbeat timeout                                     tests/store/test_jobs.py, the runs of the dead
  retries, killed ones are not retried                  tests/pure/test_retry.py, tests/flow/test_runner_batch.py
  crash with queued commands                            tests/flow/test_worker_faults.py: one transaction, so none is half done
  same entity → same worker                             tests/store/test_take.py: a lane has one worker at a time

Scheduler, different on purpose:
  all SUCCESS → run SUCCESS                             a workflow has no run: operators have, and each says how it ended
  extractor exception tolerated                         a subject is data, no code extracts it; a bad path finds nothing
  periodic tick = RESTART                               a tick is a signal: the rule says START or RESTART
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgsig.errors import Conflict, InvalidInput
from pgsig.store import triggers
from pgsig.store.database import Connection, connect
from pgsig.store.definitions import apply, catalog
from pgsig.store.reading import Filter, Place, signals
from tests.flow.hands import Hands

BATCH, STREAM = {"batch": {"command": ["x"]}}, {"streaming": {"command": ["x"]}}
A, B = {"signal": "a"}, {"signal": "b"}


@pytest.fixture
def hands(connection: Connection, database: str) -> Iterator[Hands]:
    with connect(database, name="engine") as other:
        yield Hands(connection, other)


def workflow(**operators: Any) -> dict[str, Any]:
    return {"workflow": "w", "operators": operators}


def acted(hands: Hands) -> list[tuple[str, str, str]]:
    return [(operator, action, result) for operator, _, action, result, _ in hands.actions()]


# ── service ──


def test_sending_returns_a_position_from_1_that_grows_and_a_time(hands: Hands) -> None:
    first, second = hands.emit("a"), hands.emit("a")
    assert 1 <= first < second
    assert hands.call("SELECT count(emitted_at) FROM pgsig.signals WHERE id IN (%s, %s)", first, second) == 2


@pytest.mark.parametrize(
    ("want", "found"),
    [
        (Filter(), [0, 1, 2, 3]),
        (Filter(key="k.a"), [0, 2, 3]),
        (Filter(key="k.*"), [0, 1, 2, 3]),
        (Filter(source="me"), [0, 1]),
        (Filter(source="nobody"), []),
        (Filter(namespace="other"), [3]),
        (Filter(key="k.a", namespace="default", source="me"), [0]),
        (Filter(key="*.b"), [1]),
    ],
)
def test_listing_filters_by_key_wildcard_namespace_and_sender(hands: Hands, want: Filter, found: list[int]) -> None:
    sent = [
        hands.send(*args)
        for args in (("k.a", 1, "me"), ("k.b", 1, "me"), ("k.a", 1, "you"), ("k.a", 1, "you", "other"))
    ]
    page = signals(hands.connection, want, Place(), 10)
    assert sorted(row["id"] for row in page.rows) == [sent[number] for number in found]


def test_a_listing_after_a_position_begins_behind_it(hands: Hands) -> None:
    sent = [hands.emit("a") for _ in range(4)]
    page = signals(hands.connection, Filter(key="a"), Place(sent[1], "newer"), 10)
    assert sorted(row["id"] for row in page.rows) == sent[2:]


def test_counting_in_total_and_per_sender_zero_too(hands: Hands) -> None:
    for sender in ("me", "me", "you"):
        hands.send("a", None, sender)
    count = (
        "SELECT coalesce(jsonb_object_agg(source, n), '{}') FROM"
        " (SELECT source, count(*) n FROM pgsig.signals WHERE key = %s GROUP BY 1) s"
    )
    assert hands.call(count, "a") == {"me": 2, "you": 1}
    assert hands.call(count, "nothing") == {}


# ── rules ──


def test_one_event_meets_any_and_all_needs_all_order_irrelevant(hands: Hands) -> None:
    hands.define(workflow(any={**BATCH, "start": {"any": [A, B]}}, all={**BATCH, "start": {"all": [A, B]}}))
    hands.send("b")
    assert hands.began == ["w.any"]
    hands.send("a")
    assert sorted(hands.began[1:]) == ["w.all"]  # the other one is queued behind its first run
    assert acted(hands) == [("any", "START", "recorded"), ("any", "START", "queued"), ("all", "START", "recorded")]


def test_all_falls_back_when_a_member_later_evaluates_false(hands: Hands) -> None:
    level = {"signal": "a", "eq": "on", "sticky": True}
    hands.define(workflow(op={**BATCH, "start": {"all": [B, level]}}))
    hands.send("a", "on")
    hands.send("a", "off")
    hands.send("b")
    assert acted(hands) == []
    hands.send("a", "on")
    assert acted(hands) == [("op", "START", "recorded")]


def test_two_rules_firing_together_first_declared_wins_both_consume(hands: Hands) -> None:
    hands.define(workflow(op={**STREAM, "restart": A, "start": A}))
    sent = hands.send("a")
    assert acted(hands) == [("op", "RESTART", "recorded"), ("op", "NONE", "outranked")]
    assert hands.outcomes(sent) == ["consumed", "consumed"]


def test_once_ignores_what_is_older_than_the_rule(hands: Hands) -> None:
    hands.emit("a")
    hands.define(workflow(op={**BATCH, "start": A}))
    assert acted(hands) == []
    hands.send("a")
    assert acted(hands) == [("op", "START", "recorded")]


def test_repeated_accepts_what_is_older_than_the_last_firing(hands: Hands) -> None:
    hands.define(workflow(op={**BATCH, "start": {"all": [B, {**A, "sticky": True}]}}))
    hands.send("a")
    for _ in range(2):
        hands.send("b")
        hands.end("w.op")
    assert hands.began == ["w.op", "w.op"]


def test_transitional_states_trigger_nothing_running_and_succeeded_do(hands: Hands) -> None:
    job = {**BATCH, "start": {"signal": "go"}}
    watch = {**BATCH, "start": [{"signal": f"run.w.job.{state}"} for state in ("running", "succeeded")]}
    hands.define(workflow(job=job, watch=watch))
    hands.send("go")
    hands.end("w.job")
    rows = hands.connection.execute("SELECT rule FROM pgsig.actions WHERE operator = 'watch' ORDER BY id").fetchall()
    assert rows == [("start",), ("start.2",)]
    with pytest.raises(InvalidInput, match="not a state of a run"):  # stopping is a mark on a run, none of its states
        apply(hands.connection, workflow(job=job, watch={**BATCH, "start": {"signal": "run.w.job.killing"}}))


def test_condition_state_persists_between_events_isolated_per_instance_and_workflow(hands: Hands) -> None:
    counting = {**BATCH, "start": {**A, "count": 2}}
    hands.define(workflow(op=counting))
    hands.define({"workflow": "v", "operators": {"op": counting}})
    hands.emit("a", subject="x")
    hands.emit("a", subject="y")
    hands.work()
    assert hands.began == []
    hands.restart_worker()
    hands.emit("a", subject="x")
    hands.work()
    assert sorted(hands.began) == ["v.op", "w.op"]
    assert {subject for _, subject, _, _, _ in hands.actions()} == {"x"}


def test_a_false_condition_leads_to_no_action(hands: Hands) -> None:
    hands.define(workflow(op={**BATCH, "start": {**A, "eq": 1}}))
    sent = hands.send("a", 2)
    assert (acted(hands), hands.outcomes(sent)) == ([], [])


# ── scheduler ──


def test_an_apply_launches_those_that_say_autostart(hands: Hands) -> None:
    # AI-Flow started every task without a START rule; here an operator without one waits for somebody, unless it says autostart.
    hands.define(
        workflow(eager={"batch": {"command": ["x"], "autostart": True}}, plain=BATCH, ruled={**BATCH, "start": A})
    )
    assert hands.began == ["w.eager"]


def test_start_on_alive_is_ignored_on_finished_it_is_a_new_generation(hands: Hands) -> None:
    skipping = {"batch": {"command": ["x"], "on_busy": "skip"}, "start": A}
    hands.define(workflow(service={**STREAM, "start": A}, job=skipping))
    hands.send("a")
    hands.send("a")
    assert [result for operator, _, result in acted(hands) if operator == "service"] == ["recorded", "already_running"]
    assert [result for operator, _, result in acted(hands) if operator == "job"] == ["recorded", "skipped"]
    hands.end("w.job")
    hands.send("a")
    generations = "SELECT array_agg(generation ORDER BY id) FROM pgsig.runs WHERE operator = 'job'"
    assert hands.call(generations) == [1, 2]


def test_restart_stops_what_is_there_and_starts_stop_stops(hands: Hands) -> None:
    hands.define(workflow(op={**STREAM, "restart": A, "stop": B}))
    hands.send("a")
    hands.send("a")
    assert hands.states("w.op") == ["stopped", "running"]
    hands.send("b")
    assert hands.states("w.op") == ["stopped", "stopped"]
    hands.send("b")
    assert [result for _, _, result in acted(hands)] == ["recorded", "recorded", "recorded", "already_stopped"]


def test_an_event_in_context_reaches_its_instance_a_broadcast_all(hands: Hands) -> None:
    hands.define(workflow(op={**STREAM, "start": A, "stop": B}))
    for subject in ("x", "y", "z"):
        hands.emit("a", subject=subject)
    hands.work()
    hands.emit("b", subject="x")
    hands.work()
    assert hands.states("w.op") == ["stopped", "running", "running"]
    hands.send("b")
    assert hands.states("w.op") == ["stopped"] * 3


def test_context_start_with_a_live_run_none_finished_a_new_one(hands: Hands) -> None:
    hands.define(workflow(op={**STREAM, "start": A, "stop": B}))
    for key in ("a", "a", "b", "a"):
        hands.emit(key, subject="x")
        hands.work()
    assert hands.states("w.op") == ["stopped", "running"]


def test_a_tick_starts_what_is_in_force_now(hands: Hands) -> None:
    hands.define(workflow(op={**BATCH, "start": {"every": "1m"}}))
    hands.define(workflow(op={"batch": {"command": ["y"]}, "start": {"every": "1m"}}))
    hands.tick(datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1))
    assert hands.call("SELECT version FROM pgsig_private.run") == 2


def test_what_is_sent_while_the_scheduler_is_down_is_processed_at_its_restart(hands: Hands) -> None:
    hands.define(workflow(op={"batch": {"command": ["x"], "on_busy": "parallel(9)"}, "start": A}))
    sent = [hands.emit("a") for _ in range(3)]
    hands.restart_worker()
    hands.work()
    hands.restart_worker()
    hands.work()
    assert [evidence for *_, evidence in hands.actions()] == [[position] for position in sent]


def test_pause_of_an_operator_no_execution_resume_runs(hands: Hands) -> None:
    hands.define(workflow(op={**BATCH, "start": A}))
    hands.call("SELECT pgsig.pause('w.op')")
    hands.send("a")
    assert hands.began == []
    hands.call("SELECT pgsig.resume('w.op')")
    hands.work()
    assert hands.began == ["w.op"]


def test_schedules_persist_and_an_invalid_one_stores_nothing(hands: Hands) -> None:
    good = workflow(op={**BATCH, "start": [{"every": "1m"}, {"cron": "0 2 * * *"}]})
    hands.define(good)
    assert len(triggers.live(hands.connection)) == 2
    with pytest.raises(InvalidInput, match="PS510"):
        apply(hands.connection, workflow(op={**BATCH, "start": [{"every": "1m"}, {"cron": "0 2 *"}]}))
    assert len(triggers.live(hands.connection)) == 2
    assert [operator.version for operator in catalog(hands.connection)] == [1]


def test_a_change_on_top_of_an_old_version_is_refused(hands: Hands) -> None:
    # AI-Flow rolled back the memory of its scheduler; here the apply is one transaction, and says which version it saw.
    hands.define(workflow(op={**BATCH, "start": A}))
    with pytest.raises(Conflict, match="PS541"):
        apply(hands.connection, workflow(op={**BATCH, "start": B}), base=0)
