"""A worker's statements go by libpq itself: what comes back, what is raised, and how the connection is left."""

from __future__ import annotations

import json
import re

import psycopg
import pytest

from pgsig.engine import PART, Engine
from pgsig.store.database import connect
from pgsig.store.signals import lock, record
from pgsig.store.wire import array, quoted, wire
from tests.support_core import Connection, one, operator

ODD = ["", " ", "NULL", "null", 'a"b', "a\\b", "{}", "a,b", "'", "ü\t\n", "%s", "$1", "x" * 200]


def test_every_subject_comes_through(connection: Connection, database: str) -> None:
    operator(connection, "o", ("START", {"signal": "a"}))
    connection.execute("SELECT pgsig.emit('a', 'null', s) FROM unnest(%s::text[]) s", [ODD])
    with connect(database, name="engine") as mine:
        assert Engine(mine).step().actions == len(ODD)
    for table in ("action", "run", "instance"):
        found = connection.execute(f"SELECT DISTINCT subject FROM pgsig_private.{table}".encode()).fetchall()
        assert sorted(row[0] for row in found) == sorted(ODD)
    assert one(connection, "SELECT %s::text[]", array([quoted(text) for text in ODD])) == ODD


def test_a_batch_of_several_parts_is_one_transaction(connection: Connection, database: str) -> None:
    operator(connection, "o", ("START", {"signal": "a"}))
    number = 2 * PART + 1
    connection.execute(f"SELECT pgsig.emit('a', 'null', i::text) FROM generate_series(1, {number}) i".encode())
    connection.execute("ALTER TABLE pgsig_private.action ADD CONSTRAINT none CHECK (subject <> '%s')" % (number - 1))
    with connect(database, name="engine") as mine:
        engine = Engine(mine)
        with pytest.raises(psycopg.errors.CheckViolation):
            engine.step(number)
        assert mine.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert one(connection, "SELECT count(*) FROM pgsig_private.action") == 0
        connection.execute("ALTER TABLE pgsig_private.action DROP CONSTRAINT none")
        assert (engine.step(number).actions, engine.step().taken) == (number, 0)
    assert one(connection, "SELECT count(DISTINCT xmin::text) FROM pgsig_private.action") == 1


def test_what_fails_is_raised_as_psycopg_would_and_leaves_an_open_transaction_open(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        number = operator(connection, "o")
        assert lock(connection, [(number, "")], 1)[0][number, ""].runs == []
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), connection.transaction():
            wire(connection).ask("take", limit="many", keys="{}", operators="{}", count="0", idle="", lane=None)
        with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():  # noqa: PT012 - it is told when it is asked for
            record(connection, {"outcomes": [{"signal_id": 1, "rule_id": 1, "subject": "", "outcome": "lost"}]})
            wire(connection).finish()
        assert one(connection, "SELECT count(*) FROM pgsig_private.operator") == 1
    assert wire(connection).ask("depth_limit") == [(100,)]


def test_an_evaluation_that_fails_leaves_what_is_prepared(connection: Connection, database: str) -> None:
    """Where psycopg has prepared statements of its own, it deallocates all when it rolls back: a worker was never well again after that."""
    operator(connection, "o", ("START", {"signal": "a"}))
    connection.execute("ALTER TABLE pgsig_private.action ADD CONSTRAINT none CHECK (subject <> 'bad')")
    connection.execute("SELECT pgsig.emit('a', subject => 'bad')")
    with connect(database, name="engine") as mine:
        engine = Engine(mine)
        for _ in range(8):
            mine.execute("SELECT %s::integer", [1])
        with pytest.raises(psycopg.errors.CheckViolation):
            engine.step()
        connection.execute("ALTER TABLE pgsig_private.action DROP CONSTRAINT none")
        assert engine.step().actions == 1


def test_what_psycopg_deallocated_is_prepared_again(connection: Connection, database: str) -> None:
    operator(connection, "o", ("START", {"signal": "a"}))
    with connect(database, name="engine") as mine:
        engine = Engine(mine)

        def roll_back() -> None:
            for _ in range(8):
                mine.execute("SELECT %s::integer", [1])
            with mine.transaction(force_rollback=True):
                mine.execute("SELECT 1")
            assert one(connection, "SELECT 1") == 1

        for subject in "12":
            connection.execute("SELECT pgsig.emit('a', subject => %s)", [subject])
            assert engine.step().actions == 1
            assert wire(mine).ask("depth_limit") == [(100,)]
            roll_back()
            assert one(mine, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'pgsig%%'") == 0
        assert wire(mine).ask("depth_limit") == [(100,)]
        roll_back()
        # Inside somebody's transaction it cannot be repeated, but is known the next time.
        with pytest.raises(psycopg.errors.InvalidSqlStatementName), mine.transaction():
            wire(mine).ask("depth_limit")
        assert wire(mine).ask("depth_limit") == [(100,)]


def test_a_connection_that_breaks_says_so(connection: Connection, database: str) -> None:
    with connect(database, name="engine") as mine:
        engine = Engine(mine)
        engine.step()
        connection.execute("SELECT pg_terminate_backend(%s)", [mine.info.backend_pid])
        with pytest.raises(psycopg.OperationalError, match=re.compile("terminat|closed|connection", re.IGNORECASE)):
            engine.step()
        assert mine.closed


def test_behind_a_pooler_nothing_is_prepared(connection: Connection, database: str) -> None:
    operator(connection, "o", ("START", {"signal": "a"}))
    connection.execute("SELECT pgsig.emit('a', %s)", [json.dumps({"x": 1})])
    with connect(database, name="engine", pooled=True) as mine:
        assert Engine(mine).step().actions == 1
        assert one(mine, "SELECT count(*) FROM pg_prepared_statements") == 0
    with connect(database, name="engine", pooled=False) as mine:
        Engine(mine).step()
        Engine(mine).step()
        assert (
            one(
                mine,
                "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'pgsig%%' AND generic_plans + custom_plans >= 0",
            )
            == 3
        )
