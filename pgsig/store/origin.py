"""Is this database where its transaction ids are from? `sql/api/15_origin.sql` tells how that is known."""

from __future__ import annotations

from pgsig.errors import SchemaMismatch
from pgsig.store.database import Connection, query


def foreign_origin(connection: Connection) -> SchemaMismatch | None:
    """What to raise where the database was restored from a dump, and nobody said yet that it shall go on here."""
    row = connection.execute(query("foreign_origin")).fetchone()
    if row is None or row[0] is None:
        return None
    return SchemaMismatch(
        f"this database cannot simply go on: {row[0]}",
        code="PS024",
        fix="make sure that nothing works on the old one any more, then run: pgsig migrate --restored",
    )
