"""The pool of who serves requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgsig.store.database import Database
from tests.support import wait_for
from tests.support_core import Connection


@pytest.fixture
def pool(database: str) -> Iterator[Database]:
    """Of one connection."""
    pool = Database(database, name="test", size=1)
    yield pool
    pool.close()


def test_a_connection_that_its_server_has_ended_is_replaced(pool: Database, connection: Connection) -> None:
    first = backend(pool)
    assert backend(pool) == first
    connection.execute("SELECT pg_terminate_backend(%s)", [first])
    wait_for(lambda: not connection.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [first]).fetchall())
    assert backend(pool) != first


def test_nothing_is_asked_before_a_statement(pool: Database, connection: Connection) -> None:
    with pool.statement() as first:
        first.execute("SELECT 'the last one'")
        pid = first.info.backend_pid
    with pool.statement():
        asked = connection.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    assert asked == ("SELECT 'the last one'",)


def test_what_the_server_says_in_between_is_no_end(pool: Database, connection: Connection) -> None:
    with pool.statement() as listening:
        listening.execute("LISTEN hear")
    first = backend(pool)
    connection.execute("NOTIFY hear")
    assert backend(pool) == first


def backend(pool: Database) -> int:
    with pool.statement() as connection:
        return int(connection.execute("SELECT pg_backend_pid()").fetchall()[0][0])
