"""Traps that other schedulers fell into, one test each, through the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import psycopg
import pytest

from pgsig.errors import Conflict
from pgsig.store.database import Connection, connect, translated
from pgsig.store.definitions import apply
from tests.flow.runs import claim, did, evidence, runner, succeed
from tests.flow.workshop import Workshop

A, B = {"signal": "a"}, {"signal": "b"}
BATCH = {"command": ["true"]}
BOTH = {"all": [A, B]}


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


def emit_at(shop: Workshop, key: str, at: object) -> int:
    """A signal of a given time."""
    return int(shop.call("INSERT INTO pgsig.signals (key, emitted_at) VALUES (%s, %s) RETURNING id", key, at))


def now(shop: Workshop) -> datetime:
    found: datetime = shop.call("SELECT clock_timestamp()")
    return found


def test_same_millisecond_ties_go_by_position(shop: Workshop) -> None:
    shop.apply(op={"seq": [A, B]}, newest={"all": [{"signal": "v", "latest": True, "eq": 2}, B]})
    moment = now(shop)
    numbers = [emit_at(shop, key, moment) for key in ("b", "a", "b")]
    shop.call(
        "INSERT INTO pgsig.signals (key, value, emitted_at) VALUES ('v', '1', %s), ('v', '2', %s) RETURNING id",
        moment,
        moment,
    )
    shop.evaluate()
    assert numbers[1:] in evidence(shop)
    assert [operator for operator, *_ in shop.actions()] == ["op", "newest"]


def test_customer_a_and_customer_b_never_pair_up(shop: Workshop) -> None:
    shop.apply(op=BOTH, path={**BOTH, "by": "$.customer"})
    for key, customer in (("a", "A"), ("b", "B")):
        shop.emit(key, {"customer": customer}, customer)
    shop.evaluate()
    assert did(shop) == []


def test_meet_all_starts_anew_after_each_firing(shop: Workshop) -> None:
    # AI-Flow's MeetAll stayed true for ever: the next a alone would have fired.
    shop.apply(op=BOTH)
    first = [shop.emit("a"), shop.emit("b")]
    shop.emit("a")
    shop.evaluate()
    shop.emit("a")
    shop.evaluate()
    assert evidence(shop) == [first]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "batch by batch"])
def test_a_reset_in_the_same_batch_as_its_trigger(shop: Workshop, together: bool) -> None:
    shop.apply(op={"all": [A, {"not": {"signal": "freeze", "sticky": True, "eq": "on"}}]})
    emitted = []
    for key, value in (("freeze", "on"), ("a", 1), ("freeze", "off"), ("freeze", "on"), ("a", 2), ("freeze", "off")):
        emitted.append(shop.emit(key, value))
        if not together:
            shop.evaluate()
    shop.evaluate()
    assert evidence(shop) == [[emitted[1]], [emitted[4]]]


def test_a_value_overwritten_before_evaluation_is_seen_all_the_same(shop: Workshop) -> None:
    shop.apply(op={"signal": "state", "eq": "ready"}, changes={"signal": "state", "changed": True})
    numbers = [shop.emit("state", value) for value in ("ready", "busy", "ready", "ready")]
    shop.evaluate()
    found = shop.actions()
    assert [e for operator, *_, e in found if operator == "op"] == [[numbers[0]], [numbers[2]], [numbers[3]]]
    assert [e for operator, *_, e in found if operator == "changes"] == [[number] for number in numbers[:3]]


def test_events_while_busy_are_queued(shop: Workshop) -> None:
    shop.apply(op=A)
    worker = runner(shop)
    numbers = [shop.emit("a")]
    shop.evaluate()
    ((run, epoch, _),) = claim(shop, worker)
    numbers += [shop.emit("a"), shop.emit("a")]
    shop.evaluate()
    assert claim(shop, worker, 9) == []  # the instance is busy
    done = [run]
    succeed(shop, run, epoch)
    while given := claim(shop, worker, 9):
        done += [number for number, _, _ in given]
        for number, grant, _ in given:
            succeed(shop, number, grant)
    assert len(done) == 3
    assert evidence(shop) == [[number] for number in numbers]


def test_events_while_paused_are_held_also_over_a_crash(shop: Workshop, database: str) -> None:
    shop.apply(op=BOTH)
    shop.call("SELECT pgsig.pause('w.op')")
    pair = [shop.emit("a"), shop.emit("b")]
    shop.evaluate()
    shop.engine.connection.close()
    with connect(database, name="engine") as other:
        shop.engine = type(shop.engine)(other)
        shop.call("SELECT pgsig.resume('w.op')")
        shop.evaluate()
    assert pair in evidence(shop)


def test_an_event_before_its_waiter_is_not_for_it_unless_it_commits_later(shop: Workshop, database: str) -> None:
    # A rule sees what becomes visible after its apply. An open transaction has not happened yet.
    with psycopg.connect(database) as late:
        before = shop.emit("a")
        (during,) = late.execute("SELECT pgsig.emit('a')").fetchone() or (0,)
        shop.apply(op=A)
        late.commit()
    shop.evaluate()
    assert (evidence(shop), shop.outcomes(before)) == ([[during]], [])


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("2025-10-26T00:30:00+02:00", "2025-10-26T23:30:00+01:00", True),  # 24 hours apart, on a day of 25
        ("2025-10-26T00:30:00+02:00", "2025-10-27T00:10:00+01:00", False),
        ("2025-03-29T23:59:59+01:00", "2025-03-30T00:00:00+01:00", False),
        ("2025-03-30T00:00:00+01:00", "2025-03-30T23:59:59+02:00", True),  # on a day of 23
    ],
)
def test_dst_edges_of_a_window(shop: Workshop, first: str, second: str, joined: bool) -> None:
    shop.apply(op={"signal": "a", "count": 2, "window": "1d", "tz": "Europe/Berlin"})
    shop.connection.execute(
        "CREATE TABLE pgsig_private.signals_2025 PARTITION OF pgsig_private.signal FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')"
    )
    for text in (first, second):
        emit_at(shop, "a", datetime.fromisoformat(text).astimezone(BERLIN))
    shop.evaluate()
    assert len(did(shop)) == joined


FUNCTION = """
CREATE SCHEMA ops;
CREATE FUNCTION ops.third(signal jsonb, INOUT state jsonb, OUT met boolean) LANGUAGE sql AS $$
    SELECT to_jsonb(coalesce(state::int, 0) + 1), coalesce(state::int, 0) + 1 = 3
$$
"""


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "batch by batch"])
def test_a_function_remembers_only_signals_that_it_is_for(shop: Workshop, together: bool) -> None:
    shop.connection.execute(FUNCTION.encode())
    shop.apply(op={"signal": "a", "met_by": "ops.third", "eq": 1})
    numbers = []
    for value in (1, 2, 2, 1, 1):
        numbers.append(shop.emit("a", value))
        if not together:
            shop.evaluate()
    shop.evaluate()
    assert evidence(shop) == [[numbers[-1]]]


def test_commits_out_of_order_lose_and_repeat_nothing(shop: Workshop, database: str) -> None:
    shop.apply(op=A)
    with psycopg.connect(database) as one, psycopg.connect(database) as two, psycopg.connect(database) as never:
        first, second, _ = (
            (each.execute("SELECT pgsig.emit('a')").fetchone() or (0,))[0] for each in (one, two, never)
        )
        third = shop.emit("a")
        shop.evaluate()
        two.commit()
        shop.evaluate()
        never.rollback()
        one.commit()
        shop.evaluate()
    assert evidence(shop) == [[third], [second], [first]]


def test_a_burst_is_handled_whole_with_no_further_event(shop: Workshop) -> None:
    # Others evaluate once for a burst and wait for the next event to look again.
    shop.apply(op={"batch": {**BATCH, "on_busy": "parallel(100)"}, "start": BOTH})
    shop.call("SELECT count(pgsig.emit('a')) + count(pgsig.emit('b')) FROM generate_series(1, 50)")
    while shop.engine.step(7).taken:
        pass
    assert [row[1:] for row in did(shop)] == [("START", "recorded")] * 50
    assert len({number for found in evidence(shop) for number in found}) == 100


def test_two_rules_and_one_stop(shop: Workshop) -> None:
    shop.apply(op={"streaming": BATCH, "start": {"signal": "go"}, "stop": [A, {**A, "eq": 1}]})
    shop.emit("go")
    stop = shop.emit("a", 1)
    shop.evaluate()
    assert [row[1:] for row in did(shop)] == [("START", "recorded"), ("STOP", "recorded"), ("NONE", "outranked")]
    assert shop.outcomes(stop) == ["consumed", "consumed"]


def test_the_lost_half_of_an_and_expires(shop: Workshop) -> None:
    shop.apply(op={**BOTH, "within": "10s"})
    moment = now(shop)
    lost = emit_at(shop, "a", moment)
    shop.evaluate()
    # Nothing else comes: a timer ends it.
    shop.call("UPDATE pgsig_private.timer SET due_at = clock_timestamp() RETURNING rule_id")
    shop.engine.fire_timers()
    shop.call(
        "UPDATE pgsig_private.signal SET emitted_at = emitted_at + interval '11 s' WHERE kind = 'timer' RETURNING id"
    )
    shop.evaluate()
    assert (shop.outcomes(lost), did(shop)) == (["expired"], [])
    assert shop.call("SELECT count(*) FROM pgsig_private.rule_state") == 0
    assert shop.call("SELECT count(*) FROM pgsig_private.timer") == 0


def test_duplicates_with_another_body_are_refused_and_change_nothing(shop: Workshop) -> None:
    shop.apply(op=A)
    text = "SELECT pgsig.emit(%s, %s::jsonb, %s, source => 's', event_id => 'e')"
    first = shop.call(text, "a", "1", "x")
    assert shop.call(text, "a", "1", "x") == first
    for body in (("a", "2", "x"), ("a", "1", "y"), ("b", "1", "x")):
        with pytest.raises(Conflict, match="PS109"), translated():
            shop.call(text, *body)
    shop.evaluate()
    assert evidence(shop) == [[first]]


def test_an_idempotent_apply_makes_no_version_and_keeps_all_state(shop: Workshop) -> None:
    document = {"workflow": "w", "operators": {"op": {"batch": BATCH, "start": {**BOTH, "within": "1h"}}}}
    assert apply(shop.connection, document).version == 1
    first = shop.emit("a")
    shop.evaluate()
    tables = (
        "SELECT (SELECT jsonb_agg(s) FROM pgsig_private.rule_state s), (SELECT jsonb_agg(l) FROM pgsig_private.lane l)"
    )
    before = shop.connection.execute(tables.encode()).fetchall()
    again = apply(shop.connection, document)
    assert (again.version, again.changes.any) == (1, False)
    assert shop.connection.execute(tables.encode()).fetchall() == before
    last = shop.emit("b")
    shop.evaluate()
    assert evidence(shop) == [[first, last]]
