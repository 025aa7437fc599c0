"""`pgsig migrate`: tables by Alembic, then `sql/api` when its text changed. One transaction; safe to run from many places at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.types.json import Jsonb
from sqlalchemy import Connection as SqlalchemyConnection

from pgsig.errors import SchemaMismatch
from pgsig.paths import room
from pgsig.store.database import Connection, Database
from pgsig.store.origin import foreign_origin
from pgsig.store.revision import revision

OLDEST_SERVER = 150000
_LOCK = "SELECT pg_advisory_xact_lock(1885827945, 1003)"


@dataclass(frozen=True)
class Migration:
    """What `migrate` did. before, after: Alembic revisions ("" for an empty database). api: whether `sql/api` was re-applied. adopted: None
    unless the database was a restored one; then how many signals had been emitted in it before.
    """

    before: str
    after: str
    api: bool
    adopted: int | None = None


def migrate(url: str, *, restored: bool = False) -> Migration:
    """Bring a database up to this version of pgsig. Raises SchemaMismatch when it is newer than the code, or the server too old, or when it
    was restored from a dump and `restored` does not say that it shall go on here.
    """
    database = Database(url, name="migrate", size=1)
    try:
        with database.engine.connect() as outer, outer.begin():
            return _migrate(outer, restored=restored)
    finally:
        database.close()


def _migrate(outer: SqlalchemyConnection, *, restored: bool) -> Migration:
    connection: Connection = outer.connection.driver_connection  # type: ignore[assignment]
    if connection.info.server_version < OLDEST_SERVER:
        raise SchemaMismatch(
            f"Postgres {connection.info.server_version // 10000} is too old", code="PS020", fix="use Postgres 15 to 18"
        )
    outer.exec_driver_sql("BEGIN")
    try:
        outer.exec_driver_sql(_LOCK)
        config = alembic_config()
        before = revision(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if before and before not in known:
            raise SchemaMismatch(
                f"the database is at revision {before}, which this version of pgsig does not know", code="PS021",
                fix="install the pgsig that migrated it, or a newer one",
            )  # fmt: skip
        # Before anything is applied anew: it is read off the restore's own traces.
        border = _border(connection)
        config.attributes["connection"] = outer
        command.upgrade(config, "head")
        after = revision(connection)
        changed = apply_api(connection)
        moved = None
        if (foreign := foreign_origin(connection)) is not None:
            if not restored:
                raise foreign
            # Roles belong to a cluster: a dump has not brought them along, nor what was granted to them.
            changed = changed or apply_api(connection, anew=True)
            row = connection.execute("SELECT pgsig_private.adopt(%s)", [border]).fetchone()
            moved = int(row[0]) if row else 0
        connection.execute("SELECT pgsig_private.prepare_days()")
        outer.exec_driver_sql("COMMIT")
    except BaseException:
        outer.exec_driver_sql("ROLLBACK")
        raise
    return Migration(before, after, changed, moved)


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(room("migrations")).replace("%", "%%"))
    return config


def api_files() -> dict[str, str]:
    """The files of `sql/api` in the order in which they are applied."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((room("sql") / "api").glob("*.sql"))}


def api_digest() -> str:
    return hashlib.sha256("\n".join(api_files().values()).encode()).hexdigest()


def apply_api(connection: Connection, *, anew: bool = False) -> bool:
    """Apply `sql/api` where it differs from what was applied last, or `anew`. True if it was."""
    digest = api_digest()
    row = connection.execute("SELECT value FROM pgsig_private.setting WHERE name = 'sql_digest'").fetchone()
    if row and row[0] == digest and not anew:
        return False
    for text in api_files().values():
        connection.execute(text.encode())
    connection.execute("UPDATE pgsig_private.setting SET value = %s WHERE name = 'sql_digest'", [Jsonb(digest)])
    return True


def _border(connection: Connection) -> int:
    """The last transaction of a restore, if there was one."""
    if connection.execute("SELECT to_regprocedure('pgsig_private.restored_until()')").fetchone() == (None,):
        row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
    else:
        row = connection.execute("SELECT pgsig_private.restored_until()").fetchone()
    return int(row[0] or 0) if row else 0
