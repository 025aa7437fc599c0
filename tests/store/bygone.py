"""A partition of the log of long ago, that every lane has passed and retention is to drop."""

from __future__ import annotations

from tests.support_core import Connection, one

OLD = "signals_20200102"  # Thursday: partitions of 7 days begin on Thursdays, as the epoch did
LONG_AGO = "2020-01-03 12:00+00"


def old_partition(connection: Connection, *keys: str) -> list[int]:
    """A partition of long ago with signals that every lane has passed. Returns their positions."""
    connection.execute(
        f"CREATE TABLE pgsig_private.{OLD} PARTITION OF pgsig_private.signal"
        " FOR VALUES FROM ('2020-01-02 00:00+00') TO ('2020-01-09 00:00+00')".encode()
    )
    positions = [long_ago(connection, key) for key in keys]
    pass_all(connection)
    return positions


def long_ago(connection: Connection, key: str, namespace: str = "default") -> int:
    """A signal of that time. Returns its position."""
    statement = "INSERT INTO pgsig.signals (namespace, key, emitted_at) VALUES (%s, %s, %s) RETURNING id"
    return int(one(connection, statement, namespace, key, LONG_AGO))


def pass_all(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO pgsig_private.cursor (lane, seq, s1)"
        " SELECT l.lane, (SELECT max(seq) + 1 FROM pgsig_private.cursor c WHERE c.lane = l.lane), pgsig_private.here()"
        " FROM pgsig_private.lane l"
    )


def unheard(connection: Connection, key: str) -> str:
    """A job's cursor from before a signal that retention has dropped since."""
    cursor = one(connection, "SELECT pgsig_private.cursor_here()")
    old_partition(connection, key)
    assert one(connection, "SELECT pgsig_private.close_partition(%s)", OLD) is True
    connection.execute(f"ALTER TABLE pgsig_private.signal DETACH PARTITION pgsig_private.{OLD}".encode())
    assert one(connection, "SELECT pgsig_private.drop_detached(%s)", OLD) is True
    return str(cursor)
