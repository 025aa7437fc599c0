"""What people do with triggers: fire, skip, pause, resume, backfill; and what an order would do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgsig.clock import Clock
from pgsig.dry_run import what_if
from pgsig.errors import InvalidInput, NotFound
from pgsig.settings import Settings
from pgsig.store import backfills, doors, trigger_orders
from pgsig.store.database import query
from pgsig.store.reading import row
from tests.flow.clock_years import TURNED
from tests.flow.hands import Hands

Connection = psycopg.Connection[Any]
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Desk(Hands):
    """A shop with a clock, in a time of its own."""

    def __init__(self, connection: Connection, other: Connection) -> None:
        super().__init__(connection, other)
        connection.execute(TURNED)
        self.clock = Clock(Settings(), elapsed=lambda: 0.0)
        self.at(NOON)

    def at(self, moment: datetime) -> None:
        self.connection.execute("SELECT set_config('test.now', %s, false)", [moment.isoformat()])

    def let_pass(self, moment: datetime) -> None:
        """The clock looks at this time, and a worker evaluates what comes of it."""
        self.at(moment)
        self.clock._reload_at = 0.0
        self.clock.turn(self.connection)
        self.work()

    def ticks(self) -> list[dict[str, Any]]:
        found = self.connection.execute("SELECT value FROM pgsig.signals WHERE kind = 'tick' ORDER BY id")
        return [item[0] for item in found]

    def dues(self) -> list[datetime]:
        return [datetime.fromisoformat(value["due"]) for value in self.ticks()]

    def notes(self) -> list[dict[str, Any]]:
        found = self.connection.execute("SELECT value FROM pgsig.signals WHERE kind = 'manual' ORDER BY id")
        return [item[0] for item in found]


@pytest.fixture
def desk(connection: Connection, database: str) -> Any:
    with psycopg.connect(database, autocommit=True) as other:
        found = Desk(connection, other)
        yield found
        found.clock._wake_r.close()
        found.clock._wake_w.close()


def shop(desk: Desk, start: Any, **spec: Any) -> None:
    operator = {"batch": {"command": ["true"], **spec}, "start": start}
    desk.define({"workflow": "w", "operators": {"job": operator, "other": {"batch": {"command": ["true"]}}}})
    desk.connection.execute("UPDATE pgsig_private.trigger SET created_at = %s", [NOON])


def test_fired_now_it_is_a_tick_with_who_why_and_what(desk: Desk) -> None:
    shop(desk, {"every": "1h", "params": {"rows": 1}}, params={"rows": 0, "deep": True})
    trigger_orders.fire_now(desk.connection, "w.job", reason="a look", source="ann")
    trigger_orders.fire_now(desk.connection, "w.job", "every", params={"rows": 7}, source="ann")
    desk.work()
    first, second = desk.ticks()
    assert (first["by"], first["reason"], first["params"]) == ("ann", "a look", {"rows": 1})
    assert desk.connection.execute("SELECT params FROM pgsig.runs ORDER BY id").fetchall() == [
        ({"rows": 1, "deep": True},), ({"rows": 7, "deep": True},),
    ]  # fmt: skip
    assert second["params"] == {"rows": 7}
    # It is beside the due times: the next one comes all the same, and once.
    desk.let_pass(NOON + HOUR)
    assert desk.dues()[2:] == [NOON + HOUR]


def test_parameters_of_a_tick_that_waits_for_a_signal_reach_the_run(desk: Desk) -> None:
    shop(desk, {"all": [{"every": "1h", "params": {"deep": True}}, {"signal": "ready"}]})
    desk.let_pass(NOON + HOUR)
    desk.connection.execute("SELECT pgsig.emit('ready')")
    desk.work()
    assert desk.connection.execute("SELECT params FROM pgsig.runs").fetchall() == [({"deep": True},)]


def test_which_trigger_is_meant(desk: Desk) -> None:
    shop(desk, [{"every": "1h"}, {"every": "2h"}, {"cron": "@daily"}])
    with pytest.raises(InvalidInput, match=r"PS207 /trigger: w.job has several triggers \(name one of cron-"):
        trigger_orders.fire_now(desk.connection, "w.job")
    with pytest.raises(InvalidInput, match="several triggers that begin so"):
        trigger_orders.fire_now(desk.connection, "w.job", "every-")
    with pytest.raises(InvalidInput, match=r'PS207 /trigger: w.job has no trigger "at"'):
        trigger_orders.fire_now(desk.connection, "w.job", "at")
    with pytest.raises(InvalidInput, match=r"PS207 /trigger: w.other has no trigger"):
        trigger_orders.fire_now(desk.connection, "w.other")
    with pytest.raises(NotFound, match="PS201"):
        trigger_orders.fire_now(desk.connection, "w.nobody")
    assert trigger_orders.fire_now(desk.connection, "w.job", "cron") > 0


def test_the_next_time_is_skipped_and_no_other(desk: Desk) -> None:
    shop(desk, {"every": "1h", "missed": "all"})
    desk.at(NOON + HOUR / 2)
    assert trigger_orders.skip_next(desk.connection, "w.job", reason="maintenance", source="ann")[1] == NOON + HOUR
    assert trigger_orders.skip_next(desk.connection, "w.job", source="ann")[1] == NOON + 2 * HOUR
    desk.let_pass(NOON + 3 * HOUR)
    assert desk.dues() == [NOON + 3 * HOUR]
    # What is due by now and not fired yet is not what is skipped.
    desk.at(NOON + 5.5 * HOUR)
    assert trigger_orders.skip_next(desk.connection, "w.job")[1] == NOON + 6 * HOUR
    assert desk.dues() == [NOON + n * HOUR for n in (3, 4, 5)]
    gaps = desk.connection.execute(
        "SELECT first_due, why, by_whom, reason FROM pgsig_private.gap ORDER BY last_due"
    ).fetchall()
    assert gaps[0] == (NOON + HOUR, "skipped", "ann", "maintenance")
    assert [note["action"] for note in desk.notes()] == ["SKIP_TRIGGER"] * 3
    assert datetime.fromisoformat(desk.notes()[0]["due"]) == NOON + HOUR


@pytest.mark.parametrize(("mode", "fired"), [("hold", [1, 2, 3]), ("collapse", [3]), ("drop", [])])
def test_a_paused_trigger_is_silent_and_its_mode_says_what_the_resume_fires(
    desk: Desk, mode: str, fired: list[int]
) -> None:
    shop(desk, {"every": "1h"})
    trigger_orders.pause(desk.connection, "w.job", mode=mode, reason="storm", source="ann")
    desk.let_pass(NOON + 3.5 * HOUR)
    assert desk.ticks() == []
    with pytest.raises(InvalidInput, match=r"PS209 /trigger: .* is paused"):
        trigger_orders.skip_next(desk.connection, "w.job")
    trigger_orders.resume(desk.connection, "w.job", source="bob")
    assert desk.dues() == [NOON + n * HOUR for n in fired]
    desk.let_pass(NOON + 4 * HOUR)
    assert desk.dues() == [NOON + n * HOUR for n in (*fired, 4)]
    left_out = desk.connection.execute(
        "SELECT sum(times)::integer, min(why), min(by_whom) FROM pgsig_private.gap"
    ).fetchone()
    assert left_out == ((3 - len(fired), "paused", "bob") if len(fired) < 3 else (None, None, None))
    assert [(note["action"], note["mode"]) for note in desk.notes()] == [
        ("PAUSE_TRIGGER", mode),
        ("RESUME_TRIGGER", mode),
    ]


def test_a_rule_may_wait_for_what_people_do(desk: Desk) -> None:
    desk.define({
        "workflow": "w",
        "operators": {
            "job": {"batch": {"command": ["true"]}, "start": {"every": "1h"}},
            "tell": {"batch": {"command": ["true"]}, "start": {"signal": "manual.w.job", "where": '$.action == "PAUSE_TRIGGER"'}},
        },
    })  # fmt: skip
    trigger_orders.pause(desk.connection, "w.job")
    desk.work()
    assert desk.began == ["w.tell"]


# ── what would it do? ──


def test_a_dry_run_says_what_would_happen_and_nothing_does(desk: Desk) -> None:
    shop(desk, {"every": "1h"}, on_busy="skip")

    def count() -> tuple[Any, ...] | None:
        statement = "SELECT (SELECT count(*) FROM pgsig.signals), (SELECT count(*) FROM pgsig.runs), (SELECT count(*) FROM pgsig.actions)"
        return desk.connection.execute(statement).fetchone()

    before = count()
    (effect,) = what_if(desk.connection, lambda: doors.act(desk.connection, "w.job", "START"))
    assert (effect["action"], effect["result"], effect["rule"]) == ("START", "recorded", "manual")
    (effect,) = what_if(desk.connection, lambda: trigger_orders.fire_now(desk.connection, "w.job"))
    assert (effect["operator"], effect["action"], effect["result"], effect["rule"]) == (
        "job",
        "START",
        "recorded",
        "start",
    )
    found = what_if(desk.connection, lambda: doors.act_on(desk.connection, "w", "STOP"))
    assert [(effect["operator"], effect["result"]) for effect in found] == [
        ("job", "already_stopped"),
        ("other", "already_stopped"),
    ]
    with pytest.raises(NotFound):
        what_if(desk.connection, lambda: doors.act_on(desk.connection, "nothing", "STOP"))
    assert count() == before
    doors.act(desk.connection, "w.job", "START")
    desk.work()
    (effect,) = what_if(desk.connection, lambda: doors.act(desk.connection, "w.job", "START"))
    assert effect["result"] == "skipped"


def test_a_whole_workflow_is_ordered_at_once_or_not_at_all(desk: Desk) -> None:
    shop(desk, {"every": "1h"})
    positions = doors.act_on(desk.connection, "w", "START", reason="all of it")
    desk.work()
    assert sorted(desk.began) == ["w.job", "w.other"]
    assert [doors.effects(desk.connection, position)[0]["result"] for position in positions] == ["recorded"] * 2
    with pytest.raises(InvalidInput, match="PS202"):
        doors.act_on(desk.connection, "w", "DANCE")


# ── backfills ──


def test_a_backfill_fills_what_was_left_out_a_few_at_a_time(desk: Desk) -> None:
    shop(desk, {"every": "1h"}, on_busy="parallel(5)")
    desk.let_pass(NOON + 8.5 * HOUR)
    assert desk.dues() == [NOON + 8 * HOUR]
    given = ("w.job", None, NOON + HOUR, NOON + 8 * HOUR)
    planned = backfills.plan(desk.connection, *given, most=3)
    assert (len(planned.dues), planned.ticked) == (7, 1)
    desk.end("w.job")
    desk.began.clear()
    number = backfills.begin(desk.connection, *given, most=3, reason="after the storm", source="ann")
    for _ in range(3):  # however often clocks look
        desk.let_pass(NOON + 8.5 * HOUR)
    assert len(desk.began) == 3
    now = row(desk.connection, "backfill", id=number)
    assert now is not None
    assert (now["begun"], now["ended"], now["times"], now["state"]) == (3, 0, 7, "running")
    desk.end("w.job", "failed")
    desk.let_pass(NOON + 8.5 * HOUR)
    assert len(desk.began) == 4
    while len(desk.live["w.job"]) > 0:
        desk.end("w.job", "succeeded")
        desk.let_pass(NOON + 8.5 * HOUR)
    found = row(desk.connection, "backfill", id=number)
    assert found is not None
    assert (found["state"], found["ended"], found["failed"]) == ("done", 7, 1)
    assert desk.dues()[1:] == [NOON + n * HOUR for n in range(1, 8)]
    assert (desk.ticks()[1]["backfill"], desk.ticks()[1]["by"], desk.ticks()[1]["reason"]) == (
        number,
        "ann",
        "after the storm",
    )
    with pytest.raises(InvalidInput, match="PS208 /first: all 8 due times of the range became ticks"):
        backfills.begin(desk.connection, *given)
    assert len(backfills.plan(desk.connection, *given, again=True).dues) == 8


def test_a_cancelled_backfill_feeds_no_more(desk: Desk) -> None:
    shop(desk, {"every": "1h"})
    desk.let_pass(NOON + 8.5 * HOUR)
    number = backfills.begin(desk.connection, "w.job", None, NOON + HOUR, NOON + 7 * HOUR)
    backfills.cancel(desk.connection, number, reason="enough")
    desk.let_pass(NOON + 8.6 * HOUR)
    assert desk.dues() == [NOON + 8 * HOUR]
    assert desk.notes()[-1].items() >= {"action": "CANCEL_BACKFILL", "backfill": number, "reason": "enough"}.items()
    with pytest.raises(InvalidInput, match="PS208 /backfill: no backfill"):
        backfills.cancel(desk.connection, number)


def test_a_backfill_that_cannot_be_is_refused_with_all_that_is_wrong(desk: Desk) -> None:
    shop(desk, {"every": "1s"})
    desk.at(NOON + 200 * 24 * HOUR)
    with pytest.raises(
        InvalidInput,
        match=r"PS208 /first: the range holds more than 10000 due times \(the first 10000 end at 2027-03-01 14:46:40 UTC",
    ):
        backfills.begin(
            desk.connection, "w.job", None, NOON + timedelta(seconds=1), NOON + 115 * 24 * HOUR
        )  # ten million
    with pytest.raises(InvalidInput) as caught:
        backfills.begin(desk.connection, "w.job", None, NOON + 300 * 24 * HOUR, NOON + 299 * 24 * HOUR, most=0)
    assert [problem.where for problem in caught.value.problems] == ["/last", "/last", "/together"]
    assert all(problem.fix for problem in caught.value.problems)


def test_two_clocks_feed_a_backfill_no_faster_than_one(desk: Desk, database: str) -> None:
    shop(desk, {"every": "1h"})
    desk.let_pass(NOON + 8.5 * HOUR)
    backfills.begin(desk.connection, "w.job", None, NOON + HOUR, NOON + 7 * HOUR, most=2)
    with psycopg.connect(database) as rival:
        rival.execute("SELECT pgsig_private.feed_backfills()")  # has it in hand, and does not commit
        assert backfills.feed(desk.connection) == 1
        assert len(desk.dues()) == 1
        rival.commit()
    assert backfills.feed(desk.connection) == 1
    assert len(desk.dues()) == 3


def test_what_was_left_out_and_old_backfills_go_with_the_ticks_of_those_days(desk: Desk, database: str) -> None:
    shop(desk, {"every": "1h"})
    desk.let_pass(NOON + 8.5 * HOUR)
    number = backfills.begin(desk.connection, "w.job", None, NOON + HOUR, NOON + 2 * HOUR)
    backfills.cancel(desk.connection, number)
    old = datetime.now(UTC) - timedelta(days=29)
    desk.connection.execute("UPDATE pgsig_private.gap SET recorded_at = %s", [old])
    desk.connection.execute("UPDATE pgsig_private.backfill SET created_at = %s, ended_at = %s", [old, old])
    for chore in ("gaps", "backfills"):
        desk.connection.execute(query(f"prune_{chore}").encode(), {"limit": 10, "after": 0})
        assert desk.connection.execute(
            f"SELECT count(*) FROM pgsig_private.{chore.rstrip('s')}".encode()
        ).fetchone() == (0,)
