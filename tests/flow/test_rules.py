"""Rules of meaning 1 to 5, each through the real engine; 6 to 12 are in test_rules_on.py. A test's name carries its number."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pgsig.engine import Engine
from pgsig.store.database import Connection, connect
from tests.flow.runs import claim, did, evidence, runner, succeed
from tests.flow.workshop import Workshop

A, B = {"signal": "a"}, {"signal": "b"}
BATCH = {"command": ["true"]}


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


def test_rule_1_order_is_that_of_becoming_visible(shop: Workshop, database: str) -> None:
    shop.apply(op={"all": [A, B]})
    with psycopg.connect(database) as late:
        (early,) = late.execute("SELECT pgsig.emit('a')").fetchone() or (0,)
        seen = shop.emit("a")
        shop.evaluate()  # the position before it is not there yet
        late.commit()
    ends = [shop.emit("b"), shop.emit("b")]
    shop.evaluate()
    assert evidence(shop) == [[seen, ends[0]], [early, ends[1]]]


def test_rule_1_inside_one_take_the_position_decides_and_no_timestamp(shop: Workshop) -> None:
    shop.apply(op={"seq": [A, B]})
    shop.connection.execute(
        "INSERT INTO pgsig.signals (key, emitted_at)"
        " VALUES ('a', clock_timestamp() + interval '1 hour'), ('b', clock_timestamp() - interval '1 s')"
    )
    shop.evaluate()
    assert len(did(shop)) == 1


def test_rule_1_seq_and_latest_go_by_position(shop: Workshop, database: str) -> None:
    shop.apply(pair={"seq": [A, B]}, newest={"all": [{**A, "latest": True}, {"signal": "c"}]})
    with psycopg.connect(database) as late:
        (first,) = late.execute("SELECT pgsig.emit('a')").fetchone() or (0,)
        last, newest = shop.emit("b"), shop.emit("a")
        shop.evaluate()
        late.commit()
    go = shop.emit("c")
    shop.evaluate()
    assert evidence(shop) == [[first, last], [newest, go]]
    assert sorted(shop.outcomes(first)) == ["consumed", "superseded"]


def test_rule_2_each_signal_and_rule_has_one_outcome_that_can_be_asked_for(shop: Workshop) -> None:
    shop.apply(both={"all": [{**A, "latest": True}, B]}, short={"all": [A, B], "within": "1ms"}, picky={**A, "eq": 1})
    signals = [
        shop.call(
            "INSERT INTO pgsig.signals (key, emitted_at) VALUES ('a', clock_timestamp() - interval '1 s') RETURNING id"
        ),
        shop.call("SELECT pgsig.emit('a', '1e5000')"),
        shop.emit("b"),
    ]
    shop.call("SELECT pgsig.pause('w.both')")
    signals.append(shop.emit("a"))
    shop.evaluate()
    rows = shop.connection.execute(
        "SELECT signal_id, operator, outcome FROM pgsig.outcomes ORDER BY signal_id, operator"
    ).fetchall()
    first, unreadable, joined, held = signals
    assert (first, "both", "superseded") in rows
    assert (unreadable, "both", "consumed") in rows
    assert (unreadable, "picky", "quarantined") in rows
    assert (joined, "both", "consumed") in rows
    assert (first, "short", "expired") in rows
    assert (held, "both", "held") in rows
    assert len({row[:2] for row in rows}) == len(rows)
    assert not any(operator == "picky" for number, operator, _ in rows if number == first)  # it asked for 1


def test_rule_3_customer_a_never_joins_customer_b(shop: Workshop) -> None:
    shop.apply(op={"all": [A, B]})
    a, _, b = shop.emit("a", 1, "A"), shop.emit("b", 1, "B"), shop.emit("b", 1, "A")
    shop.evaluate()
    assert [(subject, found) for _, subject, _, _, found in shop.actions()] == [("A", [a, b])]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "batch by batch"])
def test_rule_3_a_signal_without_subject_reaches_every_live_instance(shop: Workshop, together: bool) -> None:
    shop.apply(op={"streaming": BATCH, "start": A, "stop": B})
    for key, subject in (("a", "x"), ("a", "y"), ("b", ""), ("b", "")):
        shop.emit(key, 1, subject)
        if not together:
            shop.evaluate()
    shop.evaluate()
    assert did(shop) == [
        *(("x", "START", "recorded"), ("y", "START", "recorded"), ("x", "STOP", "recorded"), ("y", "STOP", "recorded")),
        ("", "STOP", "already_stopped"),
    ]


def test_rule_3_a_start_without_subject_goes_to_the_instance_without(shop: Workshop) -> None:
    shop.apply(op=A)
    shop.emit("a", 1, "x")
    shop.emit("a")
    shop.evaluate()
    assert did(shop) == [("x", "START", "recorded"), ("", "START", "recorded")]


def test_rule_3_a_level_without_subject_holds_for_every_instance(shop: Workshop) -> None:
    shop.apply(op={"all": [A, {"not": {"signal": "freeze", "sticky": True, "eq": "on"}}]})
    shop.emit("freeze", "on")
    x, y = shop.emit("a", 1, "x"), shop.emit("a", 1, "y")
    shop.evaluate()
    assert did(shop) == []
    shop.emit("freeze", "off")
    shop.evaluate()
    assert evidence(shop) == [[x], [y]]


def test_rule_3_an_instance_by_a_path_may_have_a_long_name(shop: Workshop) -> None:
    shop.apply(op={**A, "by": "$.id"})
    shop.emit("a", {"id": "ü" * 500})
    shop.evaluate()
    ((run, epoch, subject),) = claim(shop, runner(shop))
    succeed(shop, run, epoch)
    assert len(subject.encode()) <= 200


def test_rule_4_a_second_action_for_the_same_firing_is_refused_by_the_database(shop: Workshop) -> None:
    shop.apply(op=A)
    shop.emit("a")
    shop.evaluate()
    with pytest.raises(psycopg.errors.UniqueViolation, match="action_once"):
        shop.connection.execute(
            "INSERT INTO pgsig_private.action (id, operator_id, rule_id, subject, action, result, version, cause_id, nth)"
            " SELECT id + 1, operator_id, rule_id, subject, action, result, version, cause_id, nth FROM pgsig_private.action"
        )


def test_rule_4_two_workers_on_the_same_signals_act_once(shop: Workshop, database: str) -> None:
    shop.apply(op=A)
    signals = [shop.emit("a") for _ in range(6)]
    with connect(database, name="second") as other:
        second = Engine(other)
        while shop.engine.step(2).taken + second.step(1).taken:
            pass
    assert evidence(shop) == [[number] for number in signals]


def test_rule_5_first_declared_wins_both_consume_and_stop_beats_the_rest(shop: Workshop) -> None:
    shop.apply(op={"streaming": BATCH, "start": [A, {**A, "eq": 1}], "restart": B, "stop": {**A, "eq": 0}})
    first = shop.emit("a", 1)
    shop.evaluate()
    assert did(shop) == [("", "START", "recorded"), ("", "NONE", "outranked")]
    assert shop.outcomes(first) == ["consumed", "consumed"]
    shop.emit("a", 0)
    shop.evaluate()
    assert [row[1:] for row in did(shop)[2:]] == [("NONE", "outranked"), ("STOP", "recorded")]
