"""Output of jobs, bounded. Statements: `sql/queries/jobs.sql`."""

from __future__ import annotations

from pgsig.store.database import Connection, query
from pgsig.store.jobs import one_value


def log_size(connection: Connection, run: int) -> int:
    return int(one_value(connection, "log_size", run=run))


def log_add(connection: Connection, run: int, epoch: int, text: str) -> None:
    """Append output. Does nothing once the grant is over: the run's log belongs to its next attempt."""
    connection.execute(query("log_add").encode(), {"run": run, "epoch": epoch, "text": text})


def log_trim(connection: Connection, run: int, limit: int) -> None:
    """Drop the oldest output of a run until at most `limit` bytes are left; row 0 says how much went."""
    connection.execute(query("log_trim").encode(), {"run": run, "limit": limit})
