"""A workshop for flow tests: definitions on a real database, signals, and an engine that evaluates them when it is told to."""

from __future__ import annotations

import json
from typing import Any

from pgsig.engine import Engine
from pgsig.model import Json
from pgsig.store.database import Connection
from pgsig.store.definitions import apply


class Workshop:
    """One connection that emits and looks, and an engine of its own connection given by the test."""

    def __init__(self, connection: Connection, other: Connection) -> None:
        self.connection = connection
        self.engine = Engine(other)

    def apply(self, name: str = "w", **operators: Json) -> None:
        """Apply a workflow. An operator given as its START condition alone is a batch operator that does nothing."""
        whole = {
            operator: body
            if "batch" in body or "streaming" in body
            else {"batch": {"command": ["true"]}, "start": body}
            for operator, body in operators.items()
        }
        apply(self.connection, {"workflow": name, "operators": whole})

    def emit(self, key: str, value: Json = None, subject: str = "") -> int:
        row = self.connection.execute(
            "SELECT pgsig.emit(%s, %s::jsonb, %s)", [key, json.dumps(value), subject]
        ).fetchone()
        assert row is not None
        return int(row[0])

    def call(self, text: str, *given: Any) -> Any:
        row = self.connection.execute(text.encode(), given).fetchone()
        return None if row is None else row[0]

    def evaluate(self) -> int:
        """Evaluate everything that is there. Returns how many signals that were."""
        total = 0
        while (step := self.engine.step()).taken:
            total += step.taken
        return total

    def actions(self) -> list[tuple[Any, ...]]:
        """(operator, subject, action, result, evidence) of every action, in order."""
        return self.connection.execute(
            "SELECT operator, subject, action, result, evidence FROM pgsig.actions ORDER BY id"
        ).fetchall()

    def outcomes(self, signal: int) -> list[str]:
        rows = self.connection.execute(
            "SELECT outcome FROM pgsig.outcomes WHERE signal_id = %s ORDER BY rule, subject", [signal]
        ).fetchall()
        return [row[0] for row in rows]
