"""Rule 8, pausing; and conditions that are SQL functions. With a real database: what is held has to survive the batch that held it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgsig.errors import InvalidInput, NotFound
from pgsig.store import definitions
from pgsig.store.database import Connection, connect, translated
from tests.flow.workshop import Workshop


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


def started(shop: Workshop) -> list[list[int]]:
    return [evidence for _, _, action, _, evidence in shop.actions() if action == "START"]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "batch by batch"])
def test_hold_evaluates_at_the_resume_in_order(shop: Workshop, together: bool) -> None:
    shop.apply(op={"all": [{"signal": "a"}, {"signal": "b"}]})
    positions = []
    for text in ("emit a", "pgsig.pause('w.op')", "emit a", "emit b", "pgsig.resume('w')", "emit b"):
        _, emit, key = text.rpartition("emit ")
        positions.append(shop.emit(key) if emit else shop.call(f"SELECT {text}"))
        if not together:
            shop.evaluate()
    a1, _, a2, b1, _, b2 = positions
    if not together:
        assert shop.call("SELECT count(*) FROM pgsig_private.outcome WHERE outcome = 'held'") == 0
    shop.evaluate()
    assert started(shop) == [[a1, b1], [a2, b2]]
    assert [shop.outcomes(position) for position in (a1, a2, b1, b2)] == [["consumed"]] * 4
    assert [(action, result) for _, _, action, result, _ in shop.actions() if action == "NONE"] == [
        ("NONE", "paused"),
        ("NONE", "resumed"),
    ]


def test_what_is_held_can_be_asked_for(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    shop.call("SELECT pgsig.pause('w.op', reason => 'maintenance')")
    held = shop.emit("a")
    shop.evaluate()
    assert (shop.outcomes(held), started(shop)) == (["held"], [])


def test_collapse_keeps_the_newest_of_each_instance(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    shop.call("SELECT pgsig.pause('w.op', 'collapse')")
    x1, y1, x2 = shop.emit("a", 1, "x"), shop.emit("a", 1, "y"), shop.emit("a", 2, "x")
    shop.evaluate()
    shop.call("SELECT pgsig.resume('w.op')")
    shop.evaluate()
    assert started(shop) == [[y1], [x2]]
    assert shop.outcomes(x1) == ["superseded"]


def test_drop_records_what_it_dropped(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    shop.call("SELECT pgsig.pause('w.op', 'drop')")
    dropped = shop.emit("a")
    shop.call("SELECT pgsig.resume('w.op')")
    kept = shop.emit("a")
    shop.evaluate()
    assert (shop.outcomes(dropped), started(shop)) == (["expired"], [[kept]])


def test_a_paused_operator_still_obeys_by_hand(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    shop.call("SELECT pgsig.pause('w.op')")
    shop.call("SELECT pgsig.act('w.op', 'START')")
    shop.evaluate()
    assert [(action, result) for _, _, action, result, _ in shop.actions()] == [
        ("NONE", "paused"),
        ("START", "recorded"),
    ]


def test_a_rule_that_changes_while_paused_lets_go_of_what_it_held(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    shop.call("SELECT pgsig.pause('w.op')")
    held = shop.emit("a")
    shop.evaluate()
    shop.apply(op={"signal": "a", "eq": 1})
    assert shop.outcomes(held) == ["expired"]


def test_bad_pauses_are_refused(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    with pytest.raises(InvalidInput, match=r"(?s)PS204 .*PS201"), translated():
        shop.call("SELECT pgsig.pause('w.nothing', 'sleep')")
    with pytest.raises(NotFound, match="PS201"), translated():
        shop.call("SELECT pgsig.resume('v')")


SUM = """
CREATE SCHEMA ops;
CREATE FUNCTION ops.is_met(signal jsonb, state jsonb, OUT state jsonb, OUT met boolean) LANGUAGE plpgsql AS $$
DECLARE total int := coalesce((is_met.state->>'total')::int, 0) + (signal->>'value')::int;
BEGIN
    met := total >= 100;
    state := jsonb_build_object('total', CASE WHEN met THEN 0 ELSE total END);
END $$
"""


def test_a_sql_function_is_a_condition_with_a_memory(shop: Workshop) -> None:
    # AI-Flow's custom condition: three producers count up, the consumer starts when the sum reaches 100.
    shop.connection.execute(SUM.replace("state jsonb, OUT state jsonb", "INOUT state jsonb").encode())
    shop.apply(op={"signal": "num.*", "met_by": "ops.is_met"})
    first = [shop.emit("num.a", 40), shop.emit("num.b", 50)]
    shop.evaluate()
    reached = shop.emit("num.c", 20)
    bad = shop.emit("num.c", "many")
    shop.emit("num.a", 60)
    shop.evaluate()
    assert started(shop) == [[reached]]
    assert shop.outcomes(bad) == ["quarantined"]
    assert [shop.outcomes(position) for position in first] == [[], []]


def test_of_an_apply_or_a_pause_only_its_workflow_is_read_anew(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.apply("v", a={"signal": "k"}, b={"signal": "k"})
    shop.apply("w", c={"signal": "k"})
    shop.emit("k")
    shop.evaluate()
    monkeypatch.setattr(definitions, "catalog", lambda _: pytest.fail("all of them were read"))
    shop.apply("v", a={"signal": "other.**"})
    for key in ("k", "other.key"):
        shop.emit(key)
    shop.evaluate()
    shop.call("SELECT pgsig.pause('w.c', 'drop')")
    shop.emit("k")
    shop.emit("other")
    shop.evaluate()
    shop.call("SELECT pgsig.resume('w.c')")
    shop.emit("k")
    shop.evaluate()
    assert (
        "".join(operator for operator, _, action, _, _ in shop.actions() if action == "START")
        == "abc" + "ca" + "a" + "c"
    )
