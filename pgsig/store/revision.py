"""At which version of the schema a database is, and which one this code needs. Without Alembic, which only `migrate` has to carry."""

from __future__ import annotations

from functools import cache

import psycopg

from pgsig.errors import SchemaMismatch
from pgsig.paths import room
from pgsig.store.database import Connection
from pgsig.store.origin import foreign_origin


@cache
def head() -> str:
    """The newest revision: migrations are one chain, and the name of each begins with its number."""
    return max(path.name.partition("_")[0] for path in (room("migrations") / "versions").glob("[0-9]*_*.py"))


def revision(connection: Connection) -> str:
    """The revision of a database, "" for one that was never migrated."""
    if connection.execute("SELECT to_regclass('pgsig_private.schema_version')").fetchone() == (None,):
        return ""
    row = connection.execute("SELECT version_num FROM pgsig_private.schema_version").fetchone()
    return str(row[0]) if row else ""


def check(connection: Connection) -> None:
    """Refuse to work on a database that is not at this version's schema. Raises SchemaMismatch."""
    try:
        found = revision(connection)
    except psycopg.errors.InsufficientPrivilege:
        found = ""
    if found != head():
        raise SchemaMismatch(
            f"the database's schema is at {found or 'nothing'}, this version of pgsig needs {head()}",
            code="PS022",
            fix="run: pgsig migrate",
        )
    if (foreign := foreign_origin(connection)) is not None:
        raise foreign
