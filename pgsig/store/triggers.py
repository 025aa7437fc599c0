"""Periodic triggers in the database: which are in force, and settling their due times.

Any process may settle: a clock because something is due, a person's command because it skips or resumes (`trigger_orders`). Statements:
`sql/queries/triggers.sql`; what is settled how: `sql/api/45_triggers.sql`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgsig.condition import duration, missed
from pgsig.condition.missed import Gap, Policy, Settled
from pgsig.model import Json
from pgsig.store.database import Connection, query, translated
from pgsig.store.reading import Row, row, rows

CHANNEL = "pgsig_definitions"  # notified by every apply, and by what people do with a trigger


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
    by: str | None = "pgsig",
    reason: str = "",
) -> Answer:
    """Settle due times, each only if its trigger still stands where the caller saw it. ahead: also times that are not due yet.

    by, reason: who leaves out what is left out, and why; None for the database's login.
    """
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


def _gap(gap: Gap, by: str | None, reason: str) -> dict[str, Any]:
    return {
        "first": gap.first.isoformat(),
        "last": gap.last.isoformat(),
        "times": gap.times,
        "why": gap.why,
        "by": by,
        "reason": reason,
    }


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
