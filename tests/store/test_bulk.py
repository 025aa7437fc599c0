"""Many signals at once: by COPY and by emit_many, all or none, one ring, and what is wrong by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgsig.client import PORTION, Client
from pgsig.doorbell import CHANNEL, Doorbell
from pgsig.errors import InvalidInput
from pgsig.store.database import translated
from tests.support_core import Connection, one

MANY = 30_000


@pytest.fixture
def client(database: str) -> Iterator[Client]:
    with Client(database) as client:
        yield client


@pytest.fixture
def asleep(database: str) -> Iterator[None]:
    """A worker without work: whoever commits rings."""
    with psycopg.connect(database, autocommit=True) as line:
        bell = Doorbell(database, name="asleep", listen_on=lambda: line)
        try:
            while bell.arm():
                pass
            assert bell.held
            yield
        finally:
            bell.close()


def rings(listener: Connection) -> int:
    listener.execute(f"NOTIFY {CHANNEL}, 'end'".encode())
    for heard, note in enumerate(listener.notifies(timeout=10)):
        if note.payload == "end":
            return heard
    pytest.fail("the listener's own notification did not arrive")


@pytest.mark.usefixtures("asleep")
def test_copy_rings_once_and_keeps_the_defaults(database: str, connection: Connection) -> None:
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}".encode())
        with connection.cursor().copy("COPY pgsig.signals (key, value, subject) FROM STDIN") as copy:
            for number in range(3000):
                copy.write_row(("bulk.row", str(number), f"s{number}"))
        assert rings(listener) == 1
    found = connection.execute(
        "SELECT count(*), count(DISTINCT id), count(DISTINCT xid), min(source), min(namespace), min(kind),"
        " count(DISTINCT lane), bool_and(emitted_at IS NOT NULL)"
        " FROM pgsig.signals"
    ).fetchone()
    assert found == (3000, 3000, 1, connection.info.user, "default", "user", 1, True)
    in_order = "SELECT bool_and(value::text::bigint = n - 1) FROM (SELECT value, row_number() OVER (ORDER BY id) AS n FROM pgsig.signals) s"
    assert one(connection, in_order)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (("Bad Key", "1"), "PS101"),
        (("run.w.o.failed", "1"), "PS102"),
        (("k", '"' + "x" * 300_000 + '"'), "PS103"),
        (("k", "{not json"), "PS112"),
    ],
)
def test_copy_refuses_a_bad_row_and_with_it_all(connection: Connection, row: tuple[str, str], code: str) -> None:
    def load() -> None:
        with translated(), connection.cursor().copy("COPY pgsig.signals (key, value) FROM STDIN") as copy:
            for _ in range(100):
                copy.write_row(("k", "1"))
            copy.write_row(row)

    with pytest.raises(InvalidInput) as refused:
        load()
    assert refused.value.code == code
    assert one(connection, "SELECT count(*) FROM pgsig.signals") == 0


def test_emit_many_takes_a_stream_of_any_length(client: Client, connection: Connection) -> None:
    """A generator is read while it is sent: no more than a portion of it is ever held."""
    taken = 0

    def stream() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for number in range(MANY):
            taken = number
            yield {"key": "bulk.row", "value": number}

    positions = client.emit_many(stream())
    assert taken == MANY - 1
    assert positions == sorted(positions)
    assert len(set(positions)) == MANY
    assert one(connection, "SELECT count(DISTINCT xid) FROM pgsig.signals") == 1
    last = one(connection, "SELECT value FROM pgsig.signals WHERE id = %s", positions[-1])
    assert last == MANY - 1


def test_emit_many_names_what_is_wrong_in_every_portion_and_keeps_nothing(
    client: Client, connection: Connection
) -> None:
    signals: list[dict[str, Any]] = [{"key": "k"} for _ in range(2 * PORTION + 10)]
    wrong = (7, PORTION + 3, 2 * PORTION + 9)
    for place in wrong:
        signals[place] = {"key": "Bad Key"}
    with pytest.raises(InvalidInput) as refused:
        client.emit_many(signals)
    assert [(problem.code, problem.where) for problem in refused.value.problems] == [
        ("PS101", f"/{place}/key") for place in wrong
    ]
    assert one(connection, "SELECT count(*) FROM pgsig.signals") == 0


def test_emit_many_in_the_callers_transaction(client: Client, connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        client.emit_many(({"key": "k"} for _ in range(PORTION + 1)), connection=connection)
    assert one(connection, "SELECT count(*) FROM pgsig.signals") == 0
    with pytest.raises(InvalidInput) as refused, connection.transaction():
        client.emit_many([{"key": "k"}] * PORTION + [{"key": "*"}], connection=connection)
    assert refused.value.problems[0].where == f"/{PORTION}/key"
