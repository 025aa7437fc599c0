"""A worker that dies in the middle of a take while others sleep. Nobody rings for what it leaves: others have to see that it is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.flow.crew import AWAKE, BELL, LANES, Crew, frozen, holders, in_a_take
from tests.support import wait_for
from tests.support_core import Connection, WorkerProcess, one, operator

pytestmark = [pytest.mark.faults, pytest.mark.timed]

WITHIN = 2.0  # seconds from a death: to be noticed by the server, to be succeeded, and for what is left to be evaluated
SIGNALS, DIES_AT = 44, 40
BLOCKED = """
    SELECT 1 FROM pg_stat_activity a JOIN pgsig_private.process p ON a.application_name = 'pgsig worker ' || p.name
     WHERE p.pid = %s AND a.wait_event_type = 'Lock' AND a.datname = current_database()
"""


def evaluated(connection: Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT cause_id FROM pgsig_private.action ORDER BY cause_id")]


def emit(connection: Connection, count: int = SIGNALS) -> list[int]:
    """Signals of one transaction: whoever is rung for is rung for once."""
    statement = (
        "INSERT INTO pgsig.signals (key, subject) SELECT 'k', 's' || i FROM generate_series(1, %s) i RETURNING id"
    )
    return [row[0] for row in connection.execute(statement, [count])]


@pytest.fixture
def crew(database: str, connection: Connection) -> Iterator[Crew]:
    operator(connection, "o", ("START", {"signal": "k"}))
    with ExitStack() as stack:
        yield Crew(stack, database, connection)


def at_the_lock(connection: Connection, worker: WorkerProcess) -> None:
    """Return once it waits for one, in a take, with the bell let go."""
    wait_for(lambda: one(connection, BLOCKED, worker.process.pid), about="the worker to wait for the lock")
    assert holders(connection, *LANES) == holders(connection, AWAKE) == [worker.process.pid]


def is_free(connection: Connection, doomed: WorkerProcess) -> None:
    """Return once the server knows that it is gone."""
    wait_for(lambda: doomed.process.pid not in holders(connection, *LANES), WITHIN, about="its lane to be free")


def all_is_taken_over(connection: Connection, signals: list[int], died: float) -> None:
    """Each is evaluated, once, within the time. died: when the worker did."""
    left = max(0.0, died + WITHIN - time.monotonic())
    wait_for(lambda: len(evaluated(connection)) >= len(signals), left, about="what it left to be evaluated")
    assert evaluated(connection) == signals


@pytest.mark.parametrize("point", ["engine.taken", "engine.locked", "engine.recorded"])
def test_the_one_on_duty_dies_in_a_take(crew: Crew, connection: Connection, point: str) -> None:
    doomed = crew.on_duty(f"{point}=stop:{DIES_AT}")
    heirs = crew.in_line(2)
    signals = emit(connection)
    in_a_take(connection, doomed)
    assert holders(connection, BELL) == []
    assert evaluated(connection) == signals[: DIES_AT - 1]
    with frozen(*heirs):
        doomed.kill()
        died = time.monotonic()
        is_free(connection, doomed)
    all_is_taken_over(connection, signals, died)


def test_one_that_helps_dies_in_a_take(crew: Crew, connection: Connection) -> None:
    """The one on duty left the bell alone because of it, and sleeps."""
    with crew.sleeping():
        signals = emit(connection)
        doomed = crew.begins(f"engine.taken=stop:{DIES_AT}")
        in_a_take(connection, doomed)
    while holders(connection, BELL):  # the one on duty is rung for in vain, and lets the bell go
        signals += emit(connection, 1)
    doomed.kill()
    all_is_taken_over(connection, signals, time.monotonic())


@pytest.mark.parametrize("helps", [False, True], ids=["on duty", "helps"])
def test_its_server_process_outlives_it(crew: Crew, connection: Connection, database: str, helps: bool) -> None:
    """That waits for a lock, does not notice at once that the worker is gone, and keeps the lane from whoever took over and has looked."""
    with psycopg.connect(database) as other:
        o = one(connection, "SELECT id FROM pgsig_private.operator")
        other.execute("SELECT FROM pgsig_private.lock_instances(ARRAY[%s]::bigint[], ARRAY[%s])", [o, f"s{DIES_AT}"])
        if helps:
            with crew.sleeping():
                signals = emit(connection)
                doomed = crew.begins()
                at_the_lock(connection, doomed)
            while holders(connection, BELL):
                signals += emit(connection, 1)
        else:
            doomed = crew.on_duty()
            crew.in_line(1)
            signals = emit(connection)
            at_the_lock(connection, doomed)
        doomed.kill()
        died = time.monotonic()
        is_free(connection, doomed)
    all_is_taken_over(connection, signals, died)
