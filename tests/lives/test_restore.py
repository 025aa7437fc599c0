"""A dump that goes on in another cluster: refused until somebody says so, and then as if it had never moved."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from pgsig.embedded import EmbeddedPostgres
from pgsig.errors import SchemaMismatch
from pgsig.settings import Settings
from pgsig.store.checkup import examine
from pgsig.store.database import connect
from pgsig.store.definitions import apply
from pgsig.store.migrate import migrate
from pgsig.store.revision import check
from tests.lives.clusters import burn, cluster, dump, restore
from tests.lives.story import actions, drain, emit, fates, go_on, leave_in_the_middle, the_old_runner_is_nobody
from tests.support_core import Connection, one

HERE = "SELECT pgsig_private.foreign_origin()"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[EmbeddedPostgres]:
    """Another cluster, a young one."""
    with cluster() as server:
        yield server


@pytest.fixture
def names(admin: Connection) -> Iterator[str]:
    """A name for a database on the shared server, which is dropped at the end."""
    name = "pgsig_restored"
    yield name
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_restored_dump_goes_on_where_it_was(
    database: str, server_dsn: str, elsewhere: EmbeddedPostgres, names: str
) -> None:
    """From the shared cluster into a younger one, and from there back into the older one."""
    burn(database, 3000)
    middle = leave_in_the_middle(database)
    archive = dump(database)
    go_on(database)  # what would have come of it
    second = restore(archive, elsewhere.dsn(), "second")
    refused_until_adopted(second)
    moved = emit_three(second)
    assert migrate(second, restored=True).adopted == 3
    with psycopg.connect(second) as connection:  # the roles are the cluster's own: the dump could not bring them
        assert one(
            connection, "SELECT has_function_privilege('pgsig_reader', 'pgsig.why(text, text, text)', 'EXECUTE')"
        )
    go_on(second)
    assert fates(second, middle.last) == fates(database, middle.last)
    assert actions(second, middle.last) == actions(database, middle.last)
    # What was emitted there before anybody said that it shall go on there is new, also from inside a subtransaction.
    assert {signal for signal, _, _ in fates(second, moved[-1], above=middle.last)} >= set(moved)
    assert migrate(second, restored=True).adopted is None
    the_old_runner_is_nobody(second, middle)

    # Once more, with what comes after; the numbers that it brings are far ahead of any cluster.
    with psycopg.connect(second, autocommit=True) as connection:
        emit(connection, *"abcde")
        last = one(connection, "SELECT max(id) FROM pgsig.signals")
    archive = dump(second)
    go_on(second)
    third = restore(archive, server_dsn, names)
    refused_until_adopted(third)
    moved = emit_three(third)
    assert migrate(third, restored=True).adopted == 3
    with connect(third, name="engine") as mine:
        from pgsig.engine import Engine

        drain(Engine(mine))
    assert fates(third, last) == fates(second, last)
    assert {signal for signal, _, _ in fates(third, moved[-1], above=last)} >= set(moved)
    with psycopg.connect(third, autocommit=True) as connection:
        emit(connection, "a")
        newest = one(connection, "SELECT max(id) FROM pgsig.signals")
    go_on(third)
    assert fates(third, newest, above=newest - 1) != []


def refused_until_adopted(dsn: str) -> None:
    with connect(dsn, name="test") as connection:
        with pytest.raises(SchemaMismatch, match=r"PS024 .*dump.*pgsig migrate --restored"):
            check(connection)
        with pytest.raises(SchemaMismatch, match="PS024"):
            apply(connection, {"workflow": "x", "operators": {"o": {"batch": {"command": ["true"]}}}})
    with pytest.raises(SchemaMismatch, match="PS024"):
        migrate(dsn)
    found = {finding.check: finding for finding in examine(Settings(database_url=dsn))}
    assert found["schema"].state == "problem"
    assert "--restored" in found["schema"].fix


def emit_three(dsn: str) -> list[int]:
    """Signals of programs that are faster than whoever restored: plain, from a savepoint, from a block that catches errors."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        emit(connection, "a")
        with connection.transaction(), connection.transaction():
            emit(connection, "a")
        connection.execute(
            "DO $$ BEGIN BEGIN PERFORM pgsig.emit('a'); EXCEPTION WHEN division_by_zero THEN NULL; END; END $$"
        )
        return [row[0] for row in connection.execute("SELECT id FROM pgsig.signals ORDER BY id DESC LIMIT 3")][::-1]


def test_snapshots_in_other_hands_still_mean_what_they_meant(database: str, elsewhere: EmbeddedPostgres) -> None:
    """A cursor that a job or a client keeps from before the dump finds what came after it in the new cluster, and nothing else."""
    burn(database, 2000)
    with psycopg.connect(database, autocommit=True) as connection:
        emit(connection, "a")
        cursor = one(connection, "SELECT pgsig_private.here()::text")
        emit(connection, "b")
    moved = restore(dump(database), elsewhere.dsn(), "snapshots")
    migrate(moved, restored=True)
    with psycopg.connect(moved, autocommit=True) as connection:
        emit(connection, "c")
        found = connection.execute(
            "SELECT key FROM pgsig.signals WHERE NOT pg_visible_in_snapshot(xid, %s) ORDER BY id", [cursor]
        )
        assert [key for (key,) in found] == ["b", "c"]
        here = one(connection, "SELECT pgsig_private.here()::text")
        assert one(connection, "SELECT bool_and(pg_visible_in_snapshot(xid, %s)) FROM pgsig.signals", here)
        said = one(connection, "INSERT INTO pgsig.signals (key) VALUES ('d') RETURNING xid")
        assert one(connection, "SELECT xid FROM pgsig.signals WHERE key = 'd'") == said


def test_a_copy_of_a_database_within_its_cluster_is_no_restore(connection: Connection) -> None:
    """The tests' own databases are such copies. Rows that were rewritten in place are still where they were."""
    assert one(connection, HERE) is None
    connection.execute("VACUUM (FULL, FREEZE) pgsig_private.origin")
    assert one(connection, HERE) is None
    connection.execute("CREATE TABLE copied AS SELECT * FROM pgsig_private.origin")
    connection.execute("DELETE FROM pgsig_private.origin")
    connection.execute("INSERT INTO pgsig_private.origin SELECT * FROM copied")
    assert "dump" in one(connection, HERE)


def test_a_cluster_that_fell_behind_is_noticed(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO pgsig_private.cursor (lane, seq, s1) SELECT lane, seq + 1, '90000000:90000000:' FROM pgsig_private.cursor"
    )
    assert "behind" in one(connection, HERE)
