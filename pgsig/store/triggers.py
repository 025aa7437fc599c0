"""Periodic triggers in the database: which are in force, settling their due times, and what people do with them.

Any process may settle: a clock because something is due, a person's command because it skips or resumes. Statements:
`sql/queries/triggers.sql`; what is settled how: `sql/api/45_triggers.sql`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgsig.condition import duration, missed, schedule
from pgsig.condition.missed import Gap, Policy, Settled
from pgsig.errors import InvalidInput, Problem
from pgsig.model import Json
from pgsig.store.database import Connection, query, translated
from pgsig.store.reading import Row, row, rows

CHANNEL = "pgsig_definitions"  # notified by every apply, and by what people do with a trigger
MOST_TIMES = 10_000  # of one backfill
MOST_TOGETHER = 1000


@dataclass(frozen=True, slots=True)
class Trigger:
    """since: its place; due times up to there are settled."""

    id: int
    spec: Json
    since: datetime

    @property
    def policy(self) -> Policy:
        return missed.policy(self.spec.get("missed", "latest"))

    @property
    def jitter(self) -> float:
        """Seconds by which it may be fired later than it is due."""
        return duration.seconds(self.spec["jitter"]) if "jitter" in self.spec else 0.0

    @property
    def seed(self) -> str:
        """What its jitter is drawn from: the same for every clock."""
        return str(self.id)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trigger stands after an attempt to settle. fired: ticks that the attempt wrote."""

    since: datetime
    fired: int


@dataclass(frozen=True, slots=True)
class Answer:
    """places: by trigger; one that is missing is not in force any more. now: the time of triggers."""

    places: dict[int, Place]
    now: datetime | None


def live(connection: Connection) -> list[Trigger]:
    """The triggers of every namespace that are in force and not paused."""
    return [Trigger(*found) for found in connection.execute(query("live_triggers").encode())]


def now(connection: Connection) -> datetime:
    """The time of triggers: the database's."""
    found = connection.execute(query("trigger_now").encode()).fetchone()
    assert found is not None
    return found[0]  # type: ignore[no-any-return]


def settle(
    connection: Connection,
    asked: Sequence[tuple[Trigger, Settled]],
    *,
    ahead: bool = False,
    by: str = "pgsig",
    reason: str = "",
) -> Answer:
    """Settle due times, each only if its trigger still stands where the caller saw it. ahead: also times that are not due yet."""
    document = [
        {
            "trigger": trigger.id,
            "since": trigger.since.isoformat(),
            "until": settled.until.isoformat(),
            "ticks": [due.isoformat() for due in settled.ticks],
            "gap": _gap(settled.gap, by, reason) if settled.gap else None,
        }
        for trigger, settled in asked
    ]
    found = connection.execute(
        query("settle_triggers").encode(), {"asked": json.dumps(document), "ahead": ahead}
    ).fetchall()
    return Answer({item[0]: Place(item[1], item[2]) for item in found}, found[0][3] if found else None)


def _gap(gap: Gap, by: str, reason: str) -> dict[str, Any]:
    return {
        "first": gap.first.isoformat(),
        "last": gap.last.isoformat(),
        "times": gap.times,
        "why": gap.why,
        "by": by,
        "reason": reason,
    }


def feed(connection: Connection) -> int:
    """Let the next times of every backfill become ticks, as far as its bound allows. Returns how many backfills go on."""
    found = connection.execute(query("feed_backfills").encode()).fetchone()
    return int(found[0]) if found else 0


# ── what people do; each is a signal that says who and why, and returns its position ──


def fire_now(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    *,
    params: Json = None,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """Let a trigger tick now, beside its due times. trigger: its name or the beginning of it; None for the only one.

    Raises NotFound for an unknown operator, InvalidInput (PS207) for an unknown trigger, or one of several.
    """
    given = {"operator": operator, "trigger": trigger, "namespace": namespace, "reason": reason, "source": source}
    return _id(connection, "fire_trigger", **given, params=None if params is None else json.dumps(params))


def pause(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    mode: str = "hold",
    *,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """Pause a trigger. mode: what becomes of due times until the resume: hold, collapse or drop. Raises like `fire_now`."""
    given = {"operator": operator, "trigger": trigger, "namespace": namespace, "reason": reason, "source": source}
    return _id(connection, "pause_trigger", **given, mode=mode)


def resume(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    *,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """End the pause of a trigger, and settle what was due meanwhile as the pause says. Raises like `fire_now`."""
    with connection.transaction():
        found = _locked(connection, find(connection, operator, trigger, namespace)["id"])
        more: dict[str, Any] = {"mode": found["paused"]}
        if found["paused"] is not None:
            item, times = Trigger(found["id"], found["spec"], found["since"]), schedule.build(found["spec"])
            connection.execute(query("unpause_trigger").encode(), {"id": item.id})
            settled = _since_the_pause(times, item, found["now"], missed.AT_RESUME[found["paused"]])
            if settled is not None:
                settle(connection, [(item, settled)], by=source or "", reason=reason)
                more["ticks"] = len(settled.ticks)
        return _note(connection, found["id"], "RESUME_TRIGGER", more, reason, source)


def _since_the_pause(times: schedule.Times, item: Trigger, moment: datetime, how: Policy) -> Settled | None:
    """What a pause held back: nothing of it is fired for being recent, the mode decides of all."""
    old = schedule.last_due(times, item.since, moment, max(1, how.most))
    if not old:
        return None
    fired = old[len(old) - how.most :] if how.most else []
    gap = missed.gap_between(times, item.since, fired[0] if fired else old[-1], "paused", inclusive=not fired)
    return Settled(tuple(fired), gap, old[-1])


def skip_next(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    *,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> tuple[int, datetime]:
    """Leave out the next due time of a trigger. Returns the position of the manual signal, and the due time.

    What is due by now and nobody has fired yet is fired first. Raises like `fire_now`; InvalidInput (PS209) where nothing is to come.
    """
    with connection.transaction():
        found = _locked(connection, find(connection, operator, trigger, namespace)["id"])
        item, times = Trigger(found["id"], found["spec"], found["since"]), schedule.build(found["spec"])
        moment = found["now"]
        if found["paused"] is not None:
            raise InvalidInput([Problem("PS209", f"{found['name']} is paused", "/trigger", "resume it first")])
        due = missed.settle(times, item.since, moment, item.policy, seed=item.seed, jitter_most=item.jitter)
        if due is not None:
            item = Trigger(item.id, item.spec, settle(connection, [(item, due)]).places[item.id].since)
        upcoming = schedule.next_due(times, item.since)
        if upcoming is None:
            raise InvalidInput(
                [Problem("PS209", f"{found['name']} has no due time to come", "/trigger", "there is nothing to skip")]
            )
        gap = Gap(upcoming, upcoming, 1, "skipped")
        settle(connection, [(item, Settled((), gap, upcoming))], ahead=True, by=source or "", reason=reason)
        connection.execute(query("announce_triggers").encode())
        return _note(connection, item.id, "SKIP_TRIGGER", {"due": upcoming.isoformat()}, reason, source), upcoming


# ── backfills ──


@dataclass(frozen=True)
class Backfill:
    """What a backfill would do. dues: the times. ticked: how many of the range are left out because they became ticks."""

    trigger: Row
    dues: tuple[datetime, ...]
    ticked: int


def plan_backfill(
    connection: Connection,
    operator: str,
    trigger: str | None,
    first: datetime,
    last: datetime,
    *,
    most: int = 1,
    again: bool = False,
    namespace: str = "default",
) -> Backfill:
    """The due times of a trigger from `first` to `last`, both included, that did not become ticks; all of them with `again`.

    most: how many are to be on the way at once. Raises InvalidInput with everything that is wrong (PS208).
    """
    found = find(connection, operator, trigger, namespace)
    problems = []
    if last < first:
        problems.append(Problem("PS208", "the range ends before it begins", "/last", "exchange first and last"))
    if last > found["now"]:
        problems.append(
            Problem(
                "PS208",
                f"{_utc(last)} is not past: the clocks will fire it",
                "/last",
                f"end at {_utc(found['now'])} at the latest",
            )
        )
    if not 1 <= most <= MOST_TOGETHER:
        problems.append(Problem("PS208", f"{most} cannot be on the way at once", "/most", f"1 to {MOST_TOGETHER}"))
    dues: list[datetime] = []
    if not problems:
        times = schedule.build(found["spec"])
        before = first.astimezone(UTC) - schedule.MICROSECOND
        dues = schedule.due_between(times, before, last, MOST_TIMES + 1)
        if len(dues) > MOST_TIMES:
            problems.append(
                Problem(
                    "PS208",
                    f"the range holds more than {MOST_TIMES} due times",
                    "/first",
                    f"the first {MOST_TIMES} end at {_utc(dues[-2])}",
                )
            )
        elif not dues:
            problems.append(
                Problem("PS208", "the range holds no due time", "/first", "pgsig calendar shows when it is due")
            )
    if problems:
        raise InvalidInput(problems, subject="the backfill")
    there = set() if again else {item["due_at"] for item in rows(connection, "ticked", id=found["id"], dues=dues)}
    return Backfill(found, tuple(due for due in dues if due not in there), len(there))


def backfill(
    connection: Connection,
    operator: str,
    trigger: str | None,
    first: datetime,
    last: datetime,
    *,
    most: int = 1,
    again: bool = False,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """Feed due times that have passed to the rules, at most `most` on the way at once. Returns the backfill's number.

    Raises like `plan_backfill`, also where every time of the range became a tick.
    """
    wanted = plan_backfill(connection, operator, trigger, first, last, most=most, again=again, namespace=namespace)
    if not wanted.dues:
        raise InvalidInput(
            [
                Problem(
                    "PS208",
                    f"all {wanted.ticked} due times of the range became ticks",
                    "/first",
                    "say --again to have them again",
                )
            ]
        )
    return _id(
        connection,
        "begin_backfill",
        id=wanted.trigger["id"],
        dues=list(wanted.dues),
        most=most,
        reason=reason,
        source=source,
    )


def cancel_backfill(connection: Connection, number: int, *, reason: str = "", source: str | None = None) -> int:
    """Let no further time of a backfill become a tick. Returns the position of the manual signal. Raises InvalidInput (PS208)."""
    return _id(connection, "cancel_backfill", id=number, reason=reason, source=source)


# ── to read ──


def find(connection: Connection, operator: str, trigger: str | None, namespace: str = "default") -> Row:
    """A trigger with its place, by its operator and its name, the beginning of that, or None for the only one. Raises like `fire_now`."""
    with translated():
        found = row(connection, "find_trigger", namespace=namespace, operator=operator, trigger=trigger)
    assert found is not None
    return found


def in_force(
    connection: Connection, *, namespace: str | None = None, workflow: str | None = None, operator: str | None = None,
    operators: Sequence[int] | None = None,
) -> list[Row]:  # fmt: skip
    """Triggers with their places, of everything or of what is named. operators: by id."""
    given = {"namespace": namespace, "workflow": workflow, "operator": operator}
    return rows(connection, "triggers_in_force", **given, operators=None if operators is None else list(operators))


def _locked(connection: Connection, trigger: int) -> Row:
    found = row(connection, "lock_trigger", id=trigger)
    assert found is not None
    return found


def _note(connection: Connection, trigger: int, word: str, more: Json, reason: str, source: str | None) -> int:
    connection.execute(query("announce_triggers").encode())
    return _id(connection, "note_trigger", id=trigger, word=word, more=json.dumps(more), reason=reason, source=source)


def _id(connection: Connection, name: str, /, **given: Any) -> int:
    with translated():
        return int(rows(connection, name, **given)[0]["id"])


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
