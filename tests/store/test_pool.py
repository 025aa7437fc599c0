"""The pool of who serves requests."""

from __future__ import annotations

import psycopg

from pgsig.store.database import Database
from tests.support import wait_for


def test_a_connection_that_its_server_has_ended_is_replaced(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        pool = Database(database, name="test", size=1)
        try:
            first = _backend(pool)
            assert _backend(pool) == first
            other.execute("SELECT pg_terminate_backend(%s)", [first])
            wait_for(lambda: not other.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [first]).fetchall())
            assert _backend(pool) != first
        finally:
            pool.close()


def test_nothing_is_asked_before_a_statement(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        pool = Database(database, name="test", size=1)
        try:
            with pool.statement() as connection:
                connection.execute("SELECT 'the last one'")
                backend = connection.info.backend_pid
            with pool.statement():
                asked = other.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [backend]).fetchone()
            assert asked == ("SELECT 'the last one'",)
        finally:
            pool.close()


def test_what_the_server_says_in_between_is_no_end(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        pool = Database(database, name="test", size=1)
        try:
            with pool.statement() as connection:
                connection.execute("LISTEN hear")
            first = _backend(pool)
            other.execute("NOTIFY hear")
            assert _backend(pool) == first
        finally:
            pool.close()


def _backend(pool: Database) -> int:
    with pool.statement() as connection:
        return int(connection.execute("SELECT pg_backend_pid()").fetchall()[0][0])
