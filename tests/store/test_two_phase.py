"""Emitters that commit in two phases: a prepared signal is none until its second phase, and then it is one like any other."""

from __future__ import annotations

import psycopg
import pytest

from pgsig.doorbell import Doorbell
from tests.support_core import Connection, one


@pytest.fixture(autouse=True)
def allowed(connection: Connection) -> None:
    if one(connection, "SHOW max_prepared_transactions") == "0":
        pytest.skip("the server allows no prepared transactions")


def prepare(connection: Connection, name: str, *, bell: str) -> None:
    connection.execute("BEGIN")
    connection.execute(f"SET LOCAL pgsig.bell = '{bell}'".encode())
    connection.execute("SELECT pgsig.emit('k')")
    connection.execute(f"PREPARE TRANSACTION '{name}'".encode())


def test_prepared_signal_is_taken_after_its_commit(connection: Connection) -> None:
    name = f"test {connection.info.dbname}"
    prepare(connection, name, bell="off")
    take = "SELECT key FROM pgsig_private.take(10)"
    assert connection.execute(take.encode()).fetchall() == []
    connection.execute("SELECT pgsig.emit('later')")
    assert connection.execute(take.encode()).fetchall() == [("later",)]
    connection.execute(f"COMMIT PREPARED '{name}'".encode())
    assert connection.execute(take.encode()).fetchall() == [("k",)]


def test_bell_must_be_off_to_prepare(database: str, connection: Connection) -> None:
    line = psycopg.connect(database, autocommit=True)
    bell = Doorbell(database, name="worker", listen_on=lambda: line)
    try:
        assert bell.arm()
        name = f"test {connection.info.dbname}"
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            prepare(connection, name, bell="on")
        connection.execute("ROLLBACK")
        prepare(connection, name, bell="off")
        connection.execute(f"ROLLBACK PREPARED '{name}'".encode())
    finally:
        bell.close()
        line.close()
