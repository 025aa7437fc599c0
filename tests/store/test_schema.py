"""The database as it is described: the picture is current, Postgres understands every named query, the API can be re-applied."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from pgsig.errors import SchemaMismatch
from pgsig.paths import room
from pgsig.store import migrate as migrating
from pgsig.store.database import Connection, Database, connect, queries
from pgsig.store.migrate import alembic_config, migrate
from pgsig.store.revision import check, head
from pgsig.store.schema import picture
from tests.support_core import one


def test_the_picture_is_current(connection: Connection) -> None:
    written = (room("sql") / "schema.sql").read_text(encoding="utf-8")
    assert picture(connection) == written, "run: make schema"


@pytest.mark.parametrize("name", sorted(queries()))
def test_every_named_query_is_one(connection: Connection, name: str) -> None:
    numbers: dict[str, str] = {}
    text = re.sub(r"%\((\w+)\)s", lambda found: numbers.setdefault(found[1], f"${len(numbers) + 1}"), queries()[name])
    connection.execute(f"PREPARE it AS {text.replace('%%', '%')}".encode())


def test_every_public_name_is_explained(connection: Connection) -> None:
    without = connection.execute(
        """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'pgsig'::regnamespace AND c.relkind IN ('v', 'p')
           AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL
        SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'pgsig'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
        """
    ).fetchall()
    assert without == []


def test_public_may_do_nothing(connection: Connection) -> None:
    open_to_all = connection.execute(
        """
        SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         WHERE p.pronamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace) AND a.grantee = 0
        UNION ALL
        SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace) AND a.grantee = 0
        """
    ).fetchall()
    assert open_to_all == []


def test_a_changed_api_is_applied_again_and_an_unchanged_one_is_not(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrate(database).api is False
    files = migrating.api_files()
    changed = {
        **files,
        "99_more.sql": "CREATE OR REPLACE FUNCTION pgsig_private.more() RETURNS int LANGUAGE sql AS 'SELECT 7'",
    }
    monkeypatch.setattr(migrating, "api_files", lambda: changed)
    assert migrate(database).api is True
    with connect(database, name="test") as connection:
        assert connection.execute("SELECT pgsig_private.more()").fetchone() == (7,)


def test_a_migration_that_fails_leaves_nothing_behind(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {**migrating.api_files(), "99_broken.sql": "CREATE TABLE pgsig_private.half (); SELECT 1/0"}
    monkeypatch.setattr(migrating, "api_files", lambda: broken)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(database)
    with connect(database, name="test") as connection:
        assert connection.execute("SELECT to_regclass('pgsig_private.half')").fetchone() == (None,)


@pytest.fixture
def analyst(connection: Connection) -> Iterator[str]:
    """A role of somebody's own, to which pgsig grants nothing."""
    name = f"pgsig_test_analyst_{connection.info.backend_pid}"
    connection.execute(f"CREATE ROLE {name}".encode())
    yield name
    connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


# What guarded the log at 0021, as far as it matters here.
GUARD = """
CREATE FUNCTION pgsig_private.before_signal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    NEW.lane := hashtextextended(NEW.namespace, 0) & 3;
    RETURN NEW;
END $$;
CREATE TRIGGER before_signal BEFORE INSERT ON pgsig.signals
    FOR EACH ROW WHEN (NEW.lane IS NULL) EXECUTE FUNCTION pgsig_private.before_signal();
"""


def test_the_log_of_before_it_had_a_view_is_the_same_log(database: str, connection: Connection, analyst: str) -> None:
    """Back to 0021, with rows and grants of that time, and on from there: rows, partitions, the table's oid and what others may."""
    log = "SELECT c.oid, count(*) FROM pg_class c JOIN pg_inherits i ON i.inhparent = c.oid WHERE c.oid = %s::regclass GROUP BY 1"
    before = connection.execute(log.encode(), ["pgsig_private.signal"]).fetchall()
    connection.execute("SELECT pgsig.emit('k', event_id => 'e', namespace => 'shop')")
    connection.execute(f"GRANT SELECT (id) ON pgsig.signals TO {analyst}".encode())
    downgrade(database, "0021")
    assert connection.execute(log.encode(), ["pgsig.signals"]).fetchall() == before
    assert one(connection, f"SELECT has_column_privilege('{analyst}', 'pgsig.signals', 'id', 'SELECT')")
    connection.execute(GUARD.encode())
    connection.execute("INSERT INTO pgsig.signals (key, namespace) VALUES ('l', 'shop'), ('m', 'default')")
    connection.execute(
        f"GRANT SELECT ON pgsig.signals TO {analyst}; GRANT INSERT (key) ON pgsig.signals TO {analyst}".encode()
    )
    rows = connection.execute("SELECT * FROM pgsig.signals ORDER BY id").fetchall()

    found = migrate(database)
    assert (found.before, found.after, found.api, found.adopted) == ("0021", head(), True, None)
    assert connection.execute(log.encode(), ["pgsig_private.signal"]).fetchall() == before
    for name in "pgsig.signals", "pgsig_private.signal":
        assert connection.execute(f"SELECT * FROM {name} ORDER BY id".encode()).fetchall() == rows
    may = """
        SELECT has_table_privilege(r, t, 'SELECT'), has_column_privilege(r, t, 'id', 'SELECT'), has_column_privilege(r, t, 'key', 'INSERT'),
               has_column_privilege(r, t, 'kind', 'INSERT')
          FROM (VALUES (%s, %s)) v(r, t)
    """
    for role, rights in (
        (analyst, (True, True, True, False)),
        ("pgsig_emitter", (False, True, True, False)),
        ("pgsig_reader", (True, True, False, False)),
        ("pgsig_service", (True, True, True, True)),
    ):
        assert connection.execute(may.encode(), [role, "pgsig.signals"]).fetchone() == rights, role
        behind = rights if role == "pgsig_service" else (False,) * 4
        assert connection.execute(may.encode(), [role, "pgsig_private.signal"]).fetchone() == behind, role
    connection.execute("INSERT INTO pgsig.signals (key) VALUES ('n')")
    assert one(connection, "SELECT pgsig.emit('k', event_id => 'e', namespace => 'shop')") == rows[0][1]
    assert one(connection, "SELECT count(*) FROM pgsig_private.take(10)") == 4
    connection.execute(f"DROP OWNED BY {analyst}".encode())
    test_the_picture_is_current(connection)


def downgrade(database: str, revision: str) -> None:
    store = Database(database, name="test", size=1)
    try:
        with store.engine.connect() as outer, outer.begin():
            config = alembic_config()
            config.attributes["connection"] = outer
            command.downgrade(config, revision)
    finally:
        store.close()


def test_the_newest_revision_is_known_without_alembic() -> None:
    assert head() == ScriptDirectory.from_config(alembic_config()).get_current_head()


def test_migrations_form_one_unbroken_line() -> None:
    """Two branches that take the same number each pass for themselves; what both of them merged would be refused by alembic only."""
    before, line = "", sorted((room("migrations") / "versions").glob("*.py"))
    for number, path in ((f"{place:04}", path) for place, path in enumerate(line, 1)):
        text, previous = path.read_text(encoding="utf-8"), f'"{before}"' if before else "None"
        assert path.name.startswith(number), f"{path.name} should be {number}: a number is missing, or was taken twice"
        said = re.findall(r"^(?:Revision ID|Revises): *(.*)$", text, re.MULTILINE)
        meant = re.findall(r"^(?:revision|down_revision) = (.*)$", text, re.MULTILINE)
        assert (said, meant) == ([number, before], [f'"{number}"', previous]), path.name
        before = number
    assert before == head()


def test_a_worker_carries_no_library_that_it_does_not_use() -> None:
    text = (
        "import sys, pgsig.worker; print([name for name in ('alembic', 'sqlalchemy', 'flask') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_unknown_revision_is_refused_with_the_way_out(database: str) -> None:
    with connect(database, name="test") as connection:
        connection.execute("UPDATE pgsig_private.schema_version SET version_num = '9999'")
        with pytest.raises(SchemaMismatch, match=r"PS022 .*9999.*pgsig migrate"):
            check(connection)
    with pytest.raises(SchemaMismatch, match=r"PS021 .*9999"):
        migrate(database)
