"""Periodic triggers in the database: which are in force, and that they fell due.

Statements: `sql/queries/triggers.sql`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pgsig.model import Json
from pgsig.store.database import Connection, query

CHANNEL = "pgsig_definitions"  # notified by every apply


@dataclass(frozen=True, slots=True)
class Trigger:
    """since: only times after this one are due."""

    id: int
    spec: Json
    since: datetime


def live(connection: Connection) -> list[Trigger]:
    """The triggers of every namespace that are in force."""
    return [Trigger(*row) for row in connection.execute(query("live_triggers").encode())]


def fire(connection: Connection, due: Iterable[tuple[int, datetime]]) -> int:
    """Turn due times of triggers into ticks, each once whoever else fires it.

    Returns how many were fired here.
    """
    ordered = sorted(due)
    ids, times = [trigger for trigger, _ in ordered], [moment for _, moment in ordered]
    rows = connection.execute(query("fire_triggers").encode(), {"triggers": ids, "dues": times}).fetchall()
    return sum(row[0] is not None for row in rows)
