"""The versions of a workflow, and what an apply would meet: signals that rules wait with, runs that are alive.

Statements: `sql/queries/versions.sql`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from pgsig.definition import Definition, parse
from pgsig.definition.changes import Changes, KnownOperator, compare
from pgsig.definition.document import ACTIONS
from pgsig.errors import InvalidInput, NotFound
from pgsig.model import Json, Kind
from pgsig.store.database import Connection, query

PAGE = 50


@dataclass(frozen=True)
class Version:
    """One version. changes: from the one before; None where this pgsig cannot read one of the two."""

    version: int
    applied_at: datetime
    applied_by: str
    in_force: bool
    changes: Changes | None


@dataclass(frozen=True)
class Flight:
    """What an apply would meet. waiting: by rule id, (signals waited with or held, levels remembered).
    runs: by operator, (live, queued)."""

    waiting: dict[int, tuple[int, int]] = field(default_factory=dict)
    runs: dict[str, tuple[int, int]] = field(default_factory=dict)


def history(connection: Connection, workflow: str, namespace: str = "default", *, limit: int = PAGE) -> list[Version]:
    """The newest versions of a workflow, newest first. Raises NotFound."""
    names = {"workflow": workflow, "namespace": namespace}
    rows = _rows(connection, "versions", **names, before=None, limit=limit + 1)
    if not rows:
        raise _unknown(workflow, namespace)
    read = [_read(row["definition"]) for row in rows] + [None]
    first = rows[-1]["version"] == 1
    found = []
    for n, row in enumerate(rows[:limit]):
        new, old = read[n], read[n + 1]
        known = new is not None and (old is not None or (first and n == len(rows) - 1))
        changes = between(old, new, before=row["version"] - 1) if known and new is not None else None
        found.append(Version(row["version"], row["applied_at"], row["applied_by"], row["in_force"], changes))
    return found


def between(old: Definition | None, new: Definition, *, before: int) -> Changes:
    """What it takes to get from one definition to another; rules have their place as id."""
    known = {
        operator.name: KnownOperator(
            0, operator.name, operator.kind, operator.spec, False,
            tuple(
                {"id": place, "name": r.name, "action": r.action, "condition": r.condition, "by": r.by, "digest": r.digest,
                 "options": r.options}
                for place, r in enumerate(operator.rules)
            ),
        )
        for operator in (old.operators if old is not None else ())
    }  # fmt: skip
    return compare(new, known, before=before, digest=old.digest if old is not None else "")


def document(
    connection: Connection, workflow: str, namespace: str = "default", version: int | None = None
) -> tuple[int, dict[str, Any]]:
    """(version, definition as it was applied) of one version, by default the newest. Raises NotFound."""
    rows = _rows(connection, "version", workflow=workflow, namespace=namespace, version=version)
    if rows:
        return rows[0]["version"], ordered(rows[0]["definition"])
    newest = _rows(connection, "version", workflow=workflow, namespace=namespace, version=None)
    if not newest:
        raise _unknown(workflow, namespace)
    raise NotFound(
        f"there is no version {version} of {workflow}",
        code="PS542",
        where="version",
        fix=f"it has 1 to {newest[0]['newest']}",
    )


def ordered(definition: Json) -> dict[str, Any]:
    """A stored definition with its keys in the order of the canonical form: a jsonb does not keep it, and rules count by it."""
    first = {key: definition[key] for key in ("workflow", "namespace", "description") if key in definition}
    places = (*Kind, "description", *ACTIONS, "order")
    operators = {
        name: {str(key): body[key] for key in places if key in body} | body
        for name, body in definition["operators"].items()
    }
    return {**first, "operators": operators}


def flight(connection: Connection, workflow: str, namespace: str = "default") -> Flight:
    """What waits and what is alive of a workflow now."""
    names = {"workflow": workflow, "namespace": namespace}
    return Flight(
        {row["rule_id"]: (row["waiting"], row["levels"]) for row in _rows(connection, "waiting_signals", **names)},
        {row["operator"]: (row["live"], row["queued"]) for row in _rows(connection, "runs_in_flight", **names)},
    )


def with_flight(changes: Changes, meets: Flight) -> dict[str, Any]:
    """The changes for machines, with `waiting` and `levels` at each rule and `live_runs` and `queued_runs` at each operator."""
    told = changes.as_dict()
    for operator, said in zip(changes.operators, told["operators"], strict=True):
        said["live_runs"], said["queued_runs"] = meets.runs.get(operator.name, (0, 0))
        for rule, line in zip(operator.rules, said["rules"], strict=True):
            line["waiting"], line["levels"] = meets.waiting.get(rule.id or 0, (0, 0))
    return told


def words(changes: Changes) -> Iterator[str]:
    """What changed in a few words: `+report`, `~serve (handover, +restart)`, `-old`."""
    for operator in changes.operators:
        if operator.change in ("added", "removed"):
            yield f"{'+' if operator.change == 'added' else '-'}{operator.name}"
        elif operator.change == "changed":
            rules = [f"{'+' if r.change == 'new' else '-'}{r.name}" for r in operator.rules if r.change != "kept"]
            yield f"~{operator.name} ({', '.join([*operator.fields, *rules]) or 'order of rules'})"


def _read(definition: Json) -> Definition | None:
    try:
        return parse(ordered(definition))
    except InvalidInput:
        return None


def _unknown(workflow: str, namespace: str) -> NotFound:
    return NotFound(
        f'there is no workflow "{workflow}" in namespace "{namespace}"',
        code="PS542",
        where="workflow",
        fix="pgsig ps lists them",
    )


def _rows(connection: Connection, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name).encode(), parameters).fetchall()
