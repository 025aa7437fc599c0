"""Clocks on a real database: each due time becomes one tick, whoever fires it and whatever was missed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from pgsig.clock import Clock
from pgsig.condition import schedule
from pgsig.condition.missed import Settled
from pgsig.settings import Settings
from pgsig.store import triggers
from pgsig.store.definitions import apply
from pgsig.store.triggers import Place
from tests.support import wait_for

Connection = psycopg.Connection[Any]


def workflow(**when: Any) -> dict[str, Any]:
    return {
        "workflow": "w",
        "operators": {"job": {"batch": {"command": ["true"]}, "start": [{key: value} for key, value in when.items()]}},
    }


def ticks(connection: Connection) -> list[datetime]:
    rows = connection.execute("SELECT due_at FROM pgsig_private.tick ORDER BY due_at").fetchall()
    return [row[0] for row in rows]


@contextmanager
def running(*clocks: Clock) -> Iterator[None]:
    threads = [threading.Thread(target=clock.run, name=clock.name) for clock in clocks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for clock in clocks:
            clock.stop()
        for thread in threads:
            thread.join(10)


@pytest.fixture
def clock(database: str) -> Callable[[str], Clock]:
    return lambda name: Clock(Settings(database_url=database), name=name)


def seen_alive(connection: Connection, count: int) -> bool:
    row = connection.execute("SELECT count(*) FROM pgsig_private.process WHERE role = 'clock' AND ended_at IS NULL")
    return row.fetchone() == (count,)


def test_an_apply_is_in_force_at_once_and_three_clocks_make_one_tick(
    connection: Connection, clock: Callable[[str], Clock]
) -> None:
    clocks = [clock("one"), clock("two"), clock("three")]
    with running(*clocks):
        wait_for(lambda: seen_alive(connection, 3))
        apply(connection, workflow(every="1s"))
        wait_for(lambda: len(ticks(connection)) >= 2)
    due = ticks(connection)
    gaps = {later - sooner for sooner, later in pairwise(due)}
    assert gaps == {timedelta(seconds=1)}
    signals = connection.execute("SELECT key, kind, value->>'trigger', source FROM pgsig.signals WHERE kind = 'tick'")
    found = signals.fetchall()
    assert len(found) == len(due) == sum(item.fired for item in clocks)
    key, kind, name, source = found[0]
    assert (key, kind, source) == ("tick.w.job", "tick", f"trigger:{name}")
    assert seen_alive(connection, 0)


def test_a_start_fires_the_latest_missed_time_and_no_other(
    connection: Connection, clock: Callable[[str], Clock]
) -> None:
    apply(connection, workflow(every="1h"))
    now = datetime.now(UTC)
    connection.execute("UPDATE pgsig_private.trigger SET created_at = %s", [now - timedelta(hours=10)])
    with running(clock("late")):
        wait_for(lambda: ticks(connection))
    (only,) = ticks(connection)
    assert now - timedelta(hours=1) < only <= datetime.now(UTC)


def test_what_was_fired_is_not_missed(connection: Connection, clock: Callable[[str], Clock]) -> None:
    apply(connection, workflow(every="1h"))
    (trigger,) = triggers.live(connection)
    now = datetime.now(UTC)
    (last,) = schedule.last_due(schedule.build(trigger.spec), now - timedelta(hours=2), now)
    connection.execute("UPDATE pgsig_private.trigger SET created_at = %s", [last - timedelta(hours=10)])
    (trigger,) = triggers.live(connection)
    settled = Settled((last,), None, last)
    assert triggers.settle(connection, [(trigger, settled)]).places[trigger.id] == Place(last, 1)
    assert triggers.settle(connection, [(trigger, settled)]).places[trigger.id] == Place(last, 0)
    one = clock("one")
    with running(one):
        wait_for(lambda: seen_alive(connection, 1))
    assert len(ticks(connection)) == 1 or ticks(connection)[-1] > last


def test_an_at_that_was_past_at_the_apply_never_comes_one_that_passed_since_does(
    connection: Connection, clock: Callable[[str], Clock]
) -> None:
    now = datetime.now(UTC)
    past, missed = (now - timedelta(hours=1)).isoformat(), (now - timedelta(minutes=1)).isoformat()
    apply(connection, workflow(at=past))
    connection.execute("UPDATE pgsig_private.trigger SET created_at = %s", [now - timedelta(minutes=30)])
    apply(connection, workflow(at=missed))
    connection.execute(
        "UPDATE pgsig_private.trigger SET created_at = %s WHERE removed_at IS NULL", [now - timedelta(minutes=30)]
    )
    with running(clock("one")):
        wait_for(lambda: ticks(connection))
    assert ticks(connection) == [datetime.fromisoformat(missed)]


def test_an_at_in_the_near_future_fires_within_moments(connection: Connection, clock: Callable[[str], Clock]) -> None:
    with running(clock("one")):
        wait_for(lambda: seen_alive(connection, 1))
        moment = datetime.now(UTC) + timedelta(milliseconds=700)
        apply(connection, workflow(at=moment.isoformat()))
        wait_for(lambda: ticks(connection))
    delay = connection.execute("SELECT fired_at - due_at FROM pgsig_private.tick").fetchone()
    assert delay is not None
    assert timedelta(0) <= delay[0] < timedelta(seconds=1)


def test_a_removed_trigger_is_silent(connection: Connection, clock: Callable[[str], Clock]) -> None:
    apply(connection, workflow(every="1s"))
    with running(clock("one")):
        wait_for(lambda: ticks(connection))
        apply(connection, workflow(every="1000h"))
        version = wait_for(lambda: removed_at(connection))
        wait_for(lambda: datetime.now(UTC) > version + timedelta(seconds=1.5))
    signals = connection.execute("SELECT max(emitted_at) FROM pgsig.signals WHERE kind = 'tick'").fetchone()
    assert signals is not None
    assert signals[0] < version + timedelta(milliseconds=100)


def removed_at(connection: Connection) -> datetime:
    row = connection.execute("SELECT max(removed_at) FROM pgsig_private.trigger").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def test_a_clock_survives_the_loss_of_its_connection(connection: Connection, clock: Callable[[str], Clock]) -> None:
    apply(connection, workflow(every="1s"))
    with running(clock("one")):
        wait_for(lambda: ticks(connection))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgsig clock one'"
        )
        before = ticks(connection)[-1]
        wait_for(lambda: ticks(connection)[-1] > before + timedelta(seconds=1))


def test_stop_before_run_ends_it_at_once(clock: Callable[[str], Clock]) -> None:
    one = clock("one")
    one.stop()
    one.run()
    one.stop()


def test_a_clock_that_cannot_keep_up_renews_and_stops(
    connection: Connection, clock: Callable[[str], Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, renewed, fired = clock("late"), threading.Event(), threading.Event()

    def renew(*_: Any, **__: Any) -> bool:
        if fired.is_set():
            renewed.set()
        return True

    def always(_: Any) -> bool:
        fired.set()
        return True

    monkeypatch.setattr("pgsig.store.processes.renew", renew)
    monkeypatch.setattr(one, "_fire", always)
    with running(one):
        wait_for(renewed, 30)
    assert not [thread for thread in threading.enumerate() if thread.name == "late"]


def test_a_trigger_that_cannot_be_had_or_does_not_answer_leaves_the_others_alone(
    connection: Connection, clock: Callable[[str], Clock]
) -> None:
    home = "tests.pure.test_definition_apscheduler"
    start = [{"trigger": "no.such:thing"}, {"trigger": f"{home}:Stuck"}, {"every": "1s"}]
    apply(connection, {"workflow": "w", "operators": {"job": {"batch": {"command": ["true"]}, "start": start}}})
    with running(clock("one")):
        wait_for(lambda: len(ticks(connection)) >= 2)
    names = connection.execute("SELECT DISTINCT value->>'trigger' ~ '^every-' FROM pgsig.signals WHERE kind = 'tick'")
    assert names.fetchall() == [(True,)]


def test_a_trigger_is_in_force_within_a_second_of_its_apply(
    connection: Connection, clock: Callable[[str], Clock]
) -> None:
    apply(connection, workflow(every="1000h"))
    with running(clock("one")):
        wait_for(lambda: seen_alive(connection, 1))
        apply(connection, workflow(every="1s"))
        wait_for(lambda: ticks(connection))
    row = connection.execute(
        "SELECT t.created_at, min(k.due_at), min(k.fired_at) FROM pgsig_private.trigger t"
        " JOIN pgsig_private.tick k ON k.trigger_id = t.id GROUP BY t.id"
    ).fetchone()
    assert row is not None
    applied, due, fired = row
    # Its very first due time is fired: what was not in force by then would have been loaded later.
    assert due - applied <= timedelta(seconds=1)
    assert fired - due < timedelta(seconds=1)
