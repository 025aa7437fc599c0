"""What rules remember is found at once, whatever else cannot be removed."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgsig.store.database import query
from pgsig.store.housekeeping import Progress, prune
from tests.support_core import Connection, one, operator

VERSIONS = 2000
RULE = 1


def remember(connection: Connection, body: Any, subject: str = "s") -> None:
    state = {"rule_id": RULE, "subject": subject, "body": body}
    connection.execute("SELECT pgsig_private.record(%s)", [Jsonb({"states": [state]})])


def remembered(connection: Connection, *subjects: str) -> dict[str, Any]:
    given = {"rules": [RULE] * len(subjects), "subjects": list(subjects), "whole": []}
    return {row[1]: row[2] for row in connection.execute(query("load_states").encode(), given)}


def pages_read(connection: Connection, subject: str) -> int:
    """Pages of tables and indexes that a load reads, planning apart."""
    given = {"rules": [RULE], "subjects": [subject], "whole": []}
    rows = connection.execute(b"EXPLAIN (ANALYZE, BUFFERS) " + query("load_states").encode(), given).fetchall()
    text = "\n".join(row[0] for row in rows)
    return sum(
        map(
            int,
            re.findall(
                r"hit=(\d+)", text.splitlines()[1] + "".join(re.findall(r"^  Buffers.*$", text, re.MULTILINE)[:1])
            ),
        )
    )


def test_a_state_is_replaced_forgotten_and_remembered_anew(connection: Connection) -> None:
    operator(connection, "o", ("START", {"signal": "k"}))
    assert remembered(connection, "s", "t") == {}
    remember(connection, None)
    assert one(connection, "SELECT count(*) FROM pgsig_private.state") == 0  # there was nothing to forget
    remember(connection, {"n": 1})
    remember(connection, {"n": 2})
    remember(connection, {"n": 3}, "t")
    assert remembered(connection, "s", "t", "u") == {"s": {"n": 2}, "t": {"n": 3}}
    assert one(connection, "SELECT count(*) FROM pgsig_private.state") == 2
    remember(connection, None)
    assert remembered(connection, "s", "t") == {"t": {"n": 3}}
    assert one(connection, "SELECT count(*) FROM pgsig_private.rule_state") == 1
    remember(connection, {"n": 4})
    assert remembered(connection, "s", "t") == {"s": {"n": 4}, "t": {"n": 3}}
    remember(connection, None, "t")
    connection.execute("UPDATE pgsig_private.state SET changed_at = changed_at - interval '2 minutes'")
    assert prune(connection, Progress())["forgotten"] == 1
    assert one(connection, "SELECT jsonb_agg(subject) FROM pgsig_private.state") == ["s"]


def test_versions_that_a_snapshot_keeps_are_not_read(connection: Connection, database: str) -> None:
    """A dump, or a long report, keeps each of them: also where nothing is remembered any more, it is the last version that is met first."""
    operator(connection, "o", ("START", {"signal": "k"}))
    remember(connection, {"n": 0})
    with psycopg.connect(database) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM pgsig_private.lane")
        for number in range(VERSIONS):
            remember(connection, {"n": number})
        assert remembered(connection, "s") == {"s": {"n": VERSIONS - 1}}
        assert pages_read(connection, "s") < 10
        remember(connection, None)
        assert remembered(connection, "s") == {}
        assert pages_read(connection, "s") < 10
