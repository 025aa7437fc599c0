"""A signal that comes alone: where its key did so before, the instances that it acts on are locked with the take, not in a journey of their
own. What comes of it is the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgsig.engine import Engine
from pgsig.model import Json
from pgsig.store.database import connect
from pgsig.store.wire import Wire
from tests.flow.runs import did, evidence
from tests.flow.workshop import Workshop
from tests.support_core import Connection

A, B = {"signal": "a"}, {"signal": "b"}
BATCH = {"command": ["true"]}
LONG, SHORT = ["take", "lock_instances"], ["take"]


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a worker waits for, by name."""
    found: list[str] = []
    ask = Wire.ask

    def spy(wire: Wire, name: str, **arguments: Any) -> list[tuple[Any, ...]]:
        found.append(name)
        return ask(wire, name, **arguments)

    monkeypatch.setattr(Wire, "ask", spy)
    return found


def start_signal(shop: Workshop) -> None:
    """As a claim emits it, for a run of nobody here."""
    shop.connection.execute("INSERT INTO pgsig.signals (kind, key) VALUES ('state', 'run.w.other.starting')")


def alone(shop: Workshop, asked: list[str], key: str, value: Json = None, subject: str = "") -> list[str]:
    """Emit and evaluate one signal. Returns what was asked."""
    shop.emit(key, value, subject)
    asked.clear()
    assert shop.engine.step().taken == 1
    return asked[:]


def together(shop: Workshop, asked: list[str]) -> list[str]:
    """Evaluate the two signals that are there. Returns what was asked."""
    asked.clear()
    assert shop.engine.step().taken == 2
    return asked[:]


def test_the_second_of_a_key_takes_a_journey_less(shop: Workshop, asked: list[str]) -> None:
    shop.apply(op=A, other={"streaming": BATCH, "start": A})
    assert alone(shop, asked, "a", subject="one") == LONG
    assert alone(shop, asked, "a", subject="two") == SHORT
    assert alone(shop, asked, "b") == ["take"]  # nobody's, and nothing to lock
    assert alone(shop, asked, "a", subject="one") == SHORT
    assert [subject for subject, *_ in did(shop)] == ["one", "one", "two", "two", "one", "one"]
    runs = shop.connection.execute("SELECT count(*), count(DISTINCT id) FROM pgsig.runs").fetchone()
    assert runs == (5, 5)  # what streams already is not started again


def test_several_at_once_lock_what_they_need(shop: Workshop, asked: list[str]) -> None:
    shop.apply(op=A, other=B)
    alone(shop, asked, "a")
    signals = [shop.emit("b"), shop.emit("a")]
    assert together(shop, asked) == LONG
    assert evidence(shop)[1:] == [[number] for number in signals]
    shop.emit("nobodys")
    shop.emit("a")  # with company, which may be locked for only later, and then crosswise
    assert together(shop, asked) == LONG
    for _ in range(20):
        shop.emit("a")
    shop.evaluate()
    assert shop.engine.expected == {}
    assert alone(shop, asked, "a") == LONG


@pytest.mark.parametrize(
    "condition",
    [
        {**A, "eq": 1}, {**A, "where": "$ == 1"}, {**A, "subject": ""}, {**A, "source": "x"}, {**A, "count": 2, "within": "1h"},
        {"all": [A, {**A, "latest": True}]}, {**A, "by": "none"}, {**A, "shadow": True}, {**A, "max": "5/1h"},
    ],
)  # fmt: skip
def test_what_may_lead_to_nothing_is_not_expected(shop: Workshop, asked: list[str], condition: Json) -> None:
    shop.apply(op=condition, sure=A)
    for _ in range(2):
        assert alone(shop, asked, "a", 1) == LONG


def test_an_order_by_hand_is_not_expected(shop: Workshop, asked: list[str]) -> None:
    """It leads to more than the rules that ask for its key."""
    shop.apply(op=B, other={"signal": "manual.w.op"})
    for _ in range(2):
        shop.connection.execute("SELECT pgsig.act('w.op', 'START')")
        asked.clear()
        assert shop.engine.step().taken == 1
        assert asked == LONG
        assert shop.engine.expected == {}
    assert [row[0] for row in shop.actions()] == ["op", "other"] * 2


def test_new_rules_are_asked_for_anew(shop: Workshop, asked: list[str]) -> None:
    shop.apply(op=A)
    alone(shop, asked, "a")
    shop.apply(op=B, late=A)
    alone(shop, asked, "c")
    assert shop.engine.expected == {}
    assert alone(shop, asked, "a") == LONG
    assert [row[0] for row in shop.actions()] == ["op", "late"]
    assert alone(shop, asked, "a") == SHORT


def test_a_pause_holds_it_as_any_other(shop: Workshop, asked: list[str]) -> None:
    shop.apply(op=A)
    alone(shop, asked, "a")
    shop.connection.execute("SELECT pgsig.pause('w.op')")
    shop.evaluate()
    held = shop.emit("a")
    shop.evaluate()
    assert shop.outcomes(held) == ["held"]
    shop.connection.execute("SELECT pgsig.resume('w.op')")
    shop.evaluate()
    assert shop.outcomes(held) == ["consumed"]


def test_the_same_comes_of_it(shop: Workshop, database: str) -> None:
    """One engine remembers, one is new for each signal. They see what is alive of their subject, and decide alike."""
    shop.apply(
        op={"streaming": {**BATCH, "replicas": 2}, "start": A, "restart": B, "stop": {"signal": "c"}},
        then={"batch": {**BATCH, "on_busy": "skip"}, "start": A},
    )
    with connect(database, name="new") as other:
        for key in "aabacaba":
            for subject in ("new", "remembers"):
                shop.emit(key, subject=subject)
                assert (Engine(other) if subject == "new" else shop.engine).step().taken == 1
                while Engine(other).step().taken:
                    pass  # the states of runs that it ended
    by_subject: dict[str, list[tuple[str, str, str]]] = {"new": [], "remembers": []}
    for operator, subject, action, result, _ in shop.actions():
        by_subject[subject].append((operator, action, result))
    assert by_subject["new"] == by_subject["remembers"]
    assert len(set(by_subject["new"])) > 4
    assert len(shop.engine.expected) == 3


@pytest.mark.parametrize("key", ["run.w.other.starting", "run.*.*.starting", "run.w.**", "*.w.other.*"])
def test_what_says_that_a_run_starts_is_no_company_unless_a_rule_asks_for_it(
    shop: Workshop, asked: list[str], key: str
) -> None:
    """Neither for what is expected of its key from then on, nor for what is taken of one that is."""

    def with_a_start() -> list[str]:
        start_signal(shop)
        shop.emit("a")
        return together(shop, asked)

    shop.apply(op=A)
    for wanted in (SHORT, LONG):
        found = [with_a_start(), with_a_start(), alone(shop, asked, "a"), with_a_start()]
        assert found == [LONG, wanted, wanted, wanted]
        assert shop.actions()[-1][0] == "op"
        shop.apply(op=A, other={"streaming": BATCH, "start": B, "stop": {"signal": key}})


def test_a_signal_of_elsewhere_is_not_kept_waiting(shop: Workshop, asked: list[str]) -> None:
    """What comes alone is looked for in its lane first. Where one comes after the other there, the others have their turn all the same."""
    shop.apply(op=A)
    spaces = [f"n{number}" for number in range(20)]
    lane = "SELECT (hashtextextended(%s, 0) & 3) = (hashtextextended('default', 0) & 3)"
    other = next(name for name in spaces if not shop.call(lane, name))
    alone(shop, asked, "a")
    assert shop.engine.step().taken == 0
    shop.connection.execute("SELECT pgsig.emit('elsewhere', namespace => %s)", [other])
    steps = []
    for _ in range(3):
        shop.emit("a")
        steps.append(shop.engine.step())
    assert [(step.taken, step.elsewhere) for step in steps] == [(1, True), (1, True), (2, False)]


def test_an_empty_lane_is_not_all_that_is_looked_at(shop: Workshop, asked: list[str]) -> None:
    shop.apply(op=A)
    alone(shop, asked, "a")
    assert shop.engine.step().taken == 0
    shop.connection.execute(
        "SELECT pgsig.emit('elsewhere', namespace => 'n0'), pgsig.emit('elsewhere', namespace => 'n1')"
    )
    assert shop.engine.step().taken == 2


def test_the_end_of_a_window_that_another_worker_left_is_no_obstacle(
    shop: Workshop, asked: list[str], database: str
) -> None:
    """In that lane there is nothing more, but the window is to be closed; what is new is in another one."""
    shop.apply(op=A)
    alone(shop, asked, "a")
    assert shop.engine.step().taken == 0
    shop.emit("b")
    with connect(database, name="another") as other:
        assert Engine(other).step(1).taken == 1  # as many as it asked for: there may be more
    shop.connection.execute(
        "SELECT pgsig.emit('elsewhere', namespace => 'n0'), pgsig.emit('elsewhere', namespace => 'n1')"
    )
    assert shop.engine.step().taken == 2
    assert shop.engine.step().taken == 0
