"""What the demonstration asks the database: the public views, as anybody could ask them with psql."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgsig import condition
from pgsig.condition import MISSING, Leaf
from pgsig.definition import Definition
from pgsig.store.database import Connection
from pgsig.store.reading import regex

WORKFLOW = "digits"


@dataclass(frozen=True)
class Event:
    """Something to show: an action, or a state of a run that people want to know of. detail: the signal behind it."""

    at: datetime
    what: str
    operator: str
    result: str
    detail: str
    milliseconds: float | None


@dataclass(frozen=True)
class Span:
    """Where a piece of the ledger begins: what came before is not looked at."""

    signal: int
    action: int


def here(connection: Connection) -> Span:
    """The end of the ledger as it is now."""
    signal, action = (
        one(connection, "SELECT max(id) FROM pgsig.signals"),
        one(connection, "SELECT max(id) FROM pgsig.actions"),
    )
    return Span(signal or 0, action or 0)


def events(connection: Connection, span: Span) -> tuple[list[Event], Span]:
    """What happened since, and the new end."""
    actions = connection.execute(
        """
        SELECT a.recorded_at, a.action, a.operator, a.result, s.key, s.subject, s.value #>> '{reason}', s.emitted_at, s.kind, a.id
          FROM pgsig.actions a LEFT JOIN pgsig.signals s ON s.id = a.cause_id
         WHERE a.id > %s AND a.workflow = %s ORDER BY a.id LIMIT 200
        """,
        [span.action, WORKFLOW],
    ).fetchall()
    states = connection.execute(
        """
        SELECT s.emitted_at, split_part(s.key, '.', 4), split_part(s.key, '.', 3), s.value ->> 'reason', s.id
          FROM pgsig.signals s
         WHERE s.id > %s AND s.kind = 'state' AND s.key ~ ('^run\\.' || %s || '\\.[^.]+\\.(ready|retrying|failed|lost)$')
         ORDER BY s.id LIMIT 200
        """,
        [span.signal, WORKFLOW],
    ).fetchall()
    found = [
        Event(
            at,
            action,
            operator,
            result,
            _cause(key, subject, reason, kind),
            (at - emitted).total_seconds() * 1000 if emitted else None,
        )
        for at, action, operator, result, key, subject, reason, emitted, kind, _ in actions
    ] + [Event(at, state, operator, "", reason or "", None) for at, state, operator, reason, _ in states]
    end = Span(max([span.signal, *(row[-1] for row in states)]), max([span.action, *(row[-1] for row in actions)]))
    return sorted(found, key=lambda event: event.at), end


def _cause(key: str | None, subject: str | None, reason: str | None, kind: str | None) -> str:
    if kind == "manual":
        return "autostart" if reason == "autostart" else f"by hand{': ' + reason if reason else ''}"
    return f"{key or 'a signal that is gone'} {subject or ''}".rstrip()


@dataclass(frozen=True)
class Figures:
    """For the status line. milliseconds: median from an emit to the action that it caused."""

    judged: int
    passed: int
    actions: int
    milliseconds: float | None
    canary: str
    frozen: bool


def figures(connection: Connection, span: Span) -> Figures:
    """What happened since `span`, in numbers."""
    judged, passed = _row(
        connection,
        """SELECT count(*), count(*) FILTER (WHERE value ->> 'verdict' = 'passed') FROM pgsig.signals
            WHERE id > %s AND key = 'model.validated'""",
        span.signal,
    )
    count, median, _ = latency(connection, span)
    canary = _row(
        connection,
        "SELECT max(progress ->> 'text') FROM pgsig.runs WHERE workflow = %s AND operator = 'canary' AND state = 'running'",
        WORKFLOW,
    )
    return Figures(judged, passed, count, median, canary[0] or "", frozen(connection))


def frozen(connection: Connection) -> bool:
    """Whether somebody holds the freeze."""
    query = "SELECT value FROM pgsig.signals WHERE key = 'ops.freeze' ORDER BY id DESC LIMIT 1"
    return bool(one(connection, query) == "on")


def state(connection: Connection, operator: str) -> str:
    """What is seen of an operator without a subject: stopped, running and so on; never_run at first."""
    query = "SELECT observed FROM pgsig.operators WHERE workflow = %s AND operator = %s AND subject = ''"
    return str(one(connection, query, WORKFLOW, operator))


def latency(connection: Connection, span: Span) -> tuple[int, float | None, float | None]:
    """How many actions the signals since `span` led to, and the median and the longest time from signal to action, in milliseconds."""
    count, median, longest = _row(
        connection,
        """
        SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), max(ms)
          FROM (SELECT extract(epoch FROM a.recorded_at - s.emitted_at)::float8 * 1000 AS ms
                  FROM pgsig.actions a JOIN pgsig.signals s ON s.id = a.cause_id
                 WHERE s.id > %s AND a.workflow = %s) t
        """,
        span.signal,
        WORKFLOW,
    )
    return count, median, longest


def count(connection: Connection, query: str, *parameters: Any) -> int:
    """The number that a query answers with."""
    return int(_row(connection, query, *parameters)[0] or 0)


def one(connection: Connection, query: str, *parameters: Any) -> Any:
    """The value that a query answers with; None where there is no row."""
    row = connection.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row else None


@dataclass(frozen=True)
class Balance:
    """Signals against rules. pairs: signals that a rule was interested in, each with that rule. open: without an outcome, though no
    rule waits with them. twice: actions with the same rule, instance and cause."""

    pairs: int
    open: tuple[str, ...]
    twice: int
    actions: int


def balance(connection: Connection, definition: Definition, span: Span) -> Balance:
    """Hold every signal since `span` against every rule of the workflow: exactly one outcome for each pair."""
    rows = connection.execute(
        """
        WITH leaf AS (
            SELECT * FROM jsonb_to_recordset(%(leaves)s::jsonb)
                AS l(number int, operator text, rule text, key text, eq jsonb, path text, mode text)
        ), pair AS (
            SELECT l.number, l.operator, l.rule, l.mode, s.id, s.key, max(s.id) OVER (PARTITION BY l.number) AS newest
              FROM leaf l JOIN pgsig.signals s ON s.namespace = 'default' AND s.id > %(after)s AND s.key ~ l.key
             WHERE l.mode IN ('latest', 'sticky')
                OR ((l.eq IS NULL OR s.value = l.eq) AND (l.path IS NULL OR jsonb_path_match(s.value, l.path::jsonpath, '{}', true)))
        )
        SELECT p.operator || '.' || p.rule || ': signal ' || p.id || ' ' || p.key,
               -- The newest of these is what the rule goes by until another comes.
               p.mode IN ('latest', 'sticky') AND p.id = p.newest AS may_wait,
               (SELECT count(*) FROM pgsig.outcomes o
                 WHERE o.signal_id = p.id AND o.workflow = %(workflow)s AND o.operator = p.operator AND o.rule = p.rule) AS outcomes
          FROM pair p
        """,
        {"leaves": json.dumps(_leaves(definition)), "after": span.signal, "workflow": WORKFLOW},
    ).fetchall()
    wrong = tuple(name for name, may_wait, outcomes in rows if outcomes != 1 and not (may_wait and outcomes == 0))
    actions, twice = _row(
        connection,
        """SELECT count(*), count(*) - count(DISTINCT (operator, subject, rule, cause_id)) FROM pgsig.actions
            WHERE id > %s AND workflow = %s""",
        span.action,
        WORKFLOW,
    )
    return Balance(len(rows), wrong, twice, actions)


def _leaves(definition: Definition) -> list[dict[str, Any]]:
    """The leaves of every rule, as rows."""
    found: list[dict[str, Any]] = []
    for operator in definition.operators:
        for rule in operator.rules:
            tree, _ = condition.parse(rule.condition, operator=f"{definition.workflow}.{operator.name}")
            for leaf in condition.leaves(tree) if tree is not None else ():
                row = {
                    "number": len(found),
                    "operator": operator.name,
                    "rule": rule.name,
                    "key": regex(leaf.pattern),
                    "mode": "edge",
                }
                if isinstance(leaf, Leaf):
                    row |= {"mode": leaf.mode, "path": leaf.where} | ({} if leaf.eq is MISSING else {"eq": leaf.eq})
                found.append(row)
    return found


def _row(connection: Connection, query: str, *parameters: Any) -> Sequence[Any]:
    row = connection.execute(query.encode(), parameters or None).fetchone()
    assert row is not None
    return tuple(row)
