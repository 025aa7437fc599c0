"""Who may do what: an emitter emits and nothing else, the public does nothing, and no object of a caller gets between."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.support_core import Connection, one


@pytest.fixture
def emitter(database: str, connection: Connection) -> Iterator[Connection]:
    """A login of its own that is a member of pgsig_emitter, and nothing else."""
    login = sql.Identifier(f"pgsig_test_{one(connection, 'SELECT pg_backend_pid()')}")
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' IN ROLE pgsig_emitter").format(login))
    try:
        with psycopg.connect(database, user=login.as_string().strip('"'), password="x", autocommit=True) as session:
            yield session
    finally:
        connection.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(login, login))


def test_emitter_may_emit(emitter: Connection, connection: Connection) -> None:
    emitter.execute("SELECT pgsig.emit('a')")
    for _ in range(2):
        emitter.execute("SELECT pgsig.emit('b', event_id => 'e')")
    emitter.execute('SELECT pgsig.emit_many(\'[{"key": "c"}, {"key": "d", "event_id": "f"}]\')')
    emitter.execute("INSERT INTO pgsig.signals (key, value, subject, event_id) VALUES ('e', '1', 's', 'g')")
    with emitter.cursor().copy("COPY pgsig.signals (key) FROM STDIN") as copy:
        copy.write_row(("f",))
    keys = [row[0] for row in connection.execute("SELECT key FROM pgsig.signals ORDER BY id")]
    assert keys == list("abcdef")
    sources = connection.execute("SELECT DISTINCT source FROM pgsig.signals").fetchall()
    assert sources == [(emitter.info.user,)]


@pytest.mark.parametrize(
    "attempt",
    [
        "INSERT INTO pgsig.signals (key, id) VALUES ('k', 1)",
        "INSERT INTO pgsig.signals (key, lane) VALUES ('k', 0)",
        "INSERT INTO pgsig.signals (key, kind) VALUES ('manual.w.o', 'manual')",
        "INSERT INTO pgsig.signals (key, depth) VALUES ('k', 0)",
        "INSERT INTO pgsig.signals (key, xid) VALUES ('k', '3')",
        "INSERT INTO pgsig.signals (key, emitted_at) VALUES ('k', now())",
        "SELECT value FROM pgsig.signals",
        "UPDATE pgsig.signals SET key = 'other'",
        "DELETE FROM pgsig.signals",
        "SELECT id FROM pgsig_private.signal",
        "INSERT INTO pgsig_private.signal (lane, key) VALUES (0, 'k')",
        "UPDATE pgsig_private.signal SET key = 'other'",
        "DELETE FROM pgsig_private.signal",
        "TRUNCATE pgsig_private.signal",
        "COPY pgsig_private.signal (lane, key) FROM STDIN",
        "SELECT nextval('pgsig_private.signal_id')",
        "SELECT pgsig_private.lane_of('user', 'k', '1', '', 'default', '')",
        "SELECT pgsig_private.first_position('default', 's', 'e')",
        "SELECT * FROM pgsig_private.event",
        "INSERT INTO pgsig_private.event VALUES ('default', 's', 'e', 1, '')",
        "SELECT * FROM pgsig_private.cursor",
        "SELECT * FROM pgsig_private.take(1)",
        "SELECT pgsig_private.record('{}')",
        "SELECT pgsig.act('w.o', 'STOP')",
        "SELECT * FROM pgsig.operators",
        "SELECT * FROM pgsig.runs",
        "SELECT setval('pgsig_private.signal_id', 1)",
        "CREATE TABLE pgsig.mine ()",
        "CREATE FUNCTION pgsig.emit(integer) RETURNS void LANGUAGE sql AS ''",
    ],
)
def test_emitter_may_nothing_else(emitter: Connection, attempt: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        emitter.execute(attempt.encode())


def test_reader_reads_the_view_and_nothing_behind_it(connection: Connection) -> None:
    connection.execute("SELECT pgsig.emit('k')")
    connection.execute("SET ROLE pgsig_reader")
    assert connection.execute("SELECT key FROM pgsig.signals").fetchall() == [("k",)]
    assert one(connection, "SELECT sum(waiting) FROM pgsig.lag") == 1
    for view in "operators", "actions", "runs", "outcomes", "triggers":
        connection.execute(f"SELECT * FROM pgsig.{view}".encode())
    for attempt in (
        "SELECT key FROM pgsig_private.signal",
        "INSERT INTO pgsig.signals (key) VALUES ('k')",
        "UPDATE pgsig.signals SET key = 'other'",
        "DELETE FROM pgsig.signals",
        "INSERT INTO pgsig_private.signal (lane, key) VALUES (0, 'k')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(attempt.encode())


def test_public_may_nothing(connection: Connection) -> None:
    granted = connection.execute(
        """
        SELECT p.oid::regprocedure::text FROM pg_proc p
         WHERE p.pronamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace)
           AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
        UNION ALL
        SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace) AND a.grantee = 0
        """
    ).fetchall()
    assert granted == []


def test_hostile_search_path(emitter: Connection, connection: Connection) -> None:
    """Objects of the caller that bear the names of the system's are not what the functions use."""
    connection.execute(
        sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO pgsig_emitter").format(
            sql.Identifier(connection.info.dbname)
        )
    )
    emitter.execute("CREATE SCHEMA bad")
    caught = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$"
    for name, arguments, result in functions_named(connection):
        emitter.execute(f"CREATE FUNCTION bad.{name}({arguments}) RETURNS {result} {caught}".encode())
    for symbol, kind, result in operators_named(connection):
        function = f"bad.caught_{result}"
        emitter.execute(f"CREATE OR REPLACE FUNCTION {function}({kind}, {kind}) RETURNS {result} {caught}".encode())
        emitter.execute(
            f"CREATE OPERATOR bad.{symbol} (FUNCTION = {function}, LEFTARG = {kind}, RIGHTARG = {kind})".encode()
        )
    for statement in (
        "CREATE FUNCTION bad.jsonb_typeof(jsonb) RETURNS text LANGUAGE sql AS $$ SELECT 'array' $$",
        f"CREATE FUNCTION bad.pg_notify(text, text) RETURNS void {caught}",
        "CREATE DOMAIN bad.int8 AS pg_catalog.int8 CHECK (VALUE < 0)",
        "CREATE TEMP TABLE event (signal_id bigint)",
        "SET search_path = bad, pg_temp, pg_catalog",
    ):
        emitter.execute(statement.encode())
    emitter.execute("SELECT pgsig.emit('k', event_id => 'e')")
    emitter.execute("SELECT pgsig.emit('k', event_id => 'e')")
    emitter.execute("SELECT pgsig.emit('k.l', '1', 's')")
    emitter.execute("SELECT pgsig.emit('k.l', '1', 's', 'elsewhere')")
    emitter.execute("INSERT INTO pgsig.signals (key, namespace) VALUES ('k.l', 'elsewhere')")
    with pytest.raises(psycopg.Error, match="PS101"):
        emitter.execute("SELECT pgsig.emit(pg_catalog.repeat('k', 201))")
    with pytest.raises(psycopg.Error, match="PS102"):
        emitter.execute("INSERT INTO pgsig.signals (key) VALUES ('manual.k')")
    with pytest.raises(psycopg.Error, match="not a run"):
        emitter.execute("SELECT pgsig.emit('k', run_id => 7)")
    with pytest.raises(psycopg.Error, match="PS110"):
        emitter.execute("SELECT pgsig.emit_many('{}')")
    assert one(connection, "SELECT count(*) FROM pgsig.signals") == 4


# What is called for each signal pays for each setting: these name everything with its schema instead of pinning their search_path.
QUALIFIED = ["pgsig.emit", "pgsig_private.insert_signal", "pgsig_private.lane_of"]


def sources(connection: Connection) -> str:
    """What the qualified functions say, without comments and the contents of literals."""
    rows = connection.execute(
        "SELECT pronamespace::regnamespace || '.' || proname AS name, prosrc FROM pg_proc"
        " WHERE pronamespace::regnamespace || '.' || proname = ANY (%s)",
        [QUALIFIED],
    ).fetchall()
    assert {name for name, _ in rows} == set(QUALIFIED)
    return re.sub(r"--[^\n]*|'[^']*'", "''", "\n".join(text for _, text in rows))


def functions_named(connection: Connection) -> list[tuple[str, str, str]]:
    """Name, arguments and result of the system's functions that are called there."""
    names = sorted(set(re.findall(r"pg_catalog\.(\w+)\(", sources(connection))))
    assert len(names) >= 3
    return connection.execute(
        """
        SELECT proname, replace(pg_get_function_identity_arguments(oid), '"any"', 'jsonb'), pg_get_function_result(oid)
          FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s)
        """,
        [names],
    ).fetchall()


def operators_named(connection: Connection) -> list[tuple[str, str, str]]:
    """Symbol, type of both operands and result of the operators that are used there on text and integers."""
    symbols = sorted(set(re.findall(r"OPERATOR\(pg_catalog\.([^)]+)\)", sources(connection))))
    assert len(symbols) >= 4
    return connection.execute(
        """
        SELECT oprname, oprleft::regtype::text, oprresult::regtype::text
          FROM pg_operator WHERE oprname = ANY (%s) AND oprleft = oprright AND oprleft IN ('text'::regtype, 'integer'::regtype)
           AND oprnamespace = 'pg_catalog'::regnamespace
        """,
        [symbols],
    ).fetchall()


def test_functions_pin_their_search_path_or_qualify_every_name(connection: Connection) -> None:
    loose = connection.execute(
        """
        SELECT DISTINCT p.pronamespace::regnamespace || '.' || p.proname FROM pg_proc p
         WHERE p.pronamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace)
           AND NOT coalesce(p.proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false)
         ORDER BY 1
        """
    ).fetchall()
    assert [name for (name,) in loose] == QUALIFIED
    text = re.sub(r"OPERATOR\(pg_catalog\.[^)]+\)", " ", sources(connection))
    assert re.findall(r"[-+*/<>=~!@#%^&|`?]+|::", text.replace(":=", "")) == []
    assert (
        re.findall(r"\b(?:BETWEEN|I?LIKE|SIMILAR|DISTINCT|NULLIF|IN|CASE(?! WHEN)|ORDER|GROUP|UNION|CAST)\b", text)
        == []
    )
    called = set(re.findall(r"([\w.]+)\s*\(", text))
    words = {"IF", "AND", "OR", "NOT", "ANY", "ALL", "VALUES", "s", "coalesce"}
    assert {name for name in called - words if not re.match(r"(pg_catalog|pgsig|pgsig_private)\.\w+$", name)} == set()
    assert set(re.findall(r"(?:INTO|FROM|JOIN|UPDATE)\s+([\w.]+)", text)) == {"pgsig_private.signal"}
    assert re.findall(r"\bv_\w+ (?!pg_catalog\.)\w+;", text) == []
