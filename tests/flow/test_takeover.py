"""A worker that dies in the middle of a take while others sleep. Nobody rings for what it leaves: others have to see that it is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from tests.support import wait_for
from tests.support_core import Connection, WorkerProcess, one, operator

pytestmark = pytest.mark.faults

# To go with its cause: whoever has the duty relies on a worker that is at work, or on the look with which it took over, until it polls.
LOOKS_AT_ITS_POLL = pytest.mark.xfail(
    strict=True, reason="what a worker leaves that was relied on waits for the next poll"
)
POLL = 30  # seconds: nothing here may come of polling
WITHIN = 2.0  # seconds from a death: to be noticed by the server, to be succeeded, and for what is left to be evaluated
SIGNALS, DIES_AT = 44, 40
LANES, BELL, AWAKE, DUTY = (0, 1, 2, 3), 1000, 1002, 1005
HOLDERS = """
    SELECT coalesce(array_agg(DISTINCT p.pid), '{}') FROM pg_locks k
      JOIN pg_stat_activity a ON a.pid = k.pid
      JOIN pgsig_private.process p ON a.application_name IN ('pgsig worker ' || p.name, 'pgsig worker ' || p.name || ' (bell)')
     WHERE k.locktype = 'advisory' AND k.granted AND a.datname = current_database() AND k.objid::integer = ANY (%s)
"""
IN_LINE = """
    SELECT count(*) FROM pg_locks k JOIN pg_database d ON d.oid = k.database
     WHERE d.datname = current_database() AND k.locktype = 'advisory' AND k.objid = %s AND NOT k.granted
"""
BLOCKED = """
    SELECT 1 FROM pg_stat_activity a JOIN pgsig_private.process p ON a.application_name = 'pgsig worker ' || p.name
     WHERE p.pid = %s AND a.wait_event_type = 'Lock' AND a.datname = current_database()
"""


def holders(connection: Connection, *locks: int) -> list[int]:
    """The workers that have one of these locks, by process id."""
    found: list[int] = one(connection, HOLDERS, list(locks))
    return found


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


class Crew:
    """Worker processes that take signals one by one. Those that come first are on duty first."""

    def __init__(self, stack: ExitStack, database: str, connection: Connection) -> None:
        self._stack, self._database, self._connection = stack, database, connection

    def begins(self, failpoints: str = "") -> WorkerProcess:
        """A worker that joins and will be killed."""
        worker = WorkerProcess(self._database, failpoints=failpoints, poll_seconds=POLL, batch=1)
        self._stack.callback(worker.kill)
        worker.wait_until_ready(self._connection)
        return worker

    def on_duty(self, failpoints: str = "") -> WorkerProcess:
        """One that listens and has the bell."""
        worker = self.begins(failpoints)
        wait_for(lambda: holders(self._connection, BELL) == [worker.process.pid], about="a worker to hold the bell")
        return worker

    @contextmanager
    def sleeping(self) -> Iterator[None]:
        """One on duty, frozen inside the block; afterwards it sleeps. Nobody is in line: that one might look, as it does each 15 s."""
        with frozen(self.on_duty()):
            yield

    def in_line(self, count: int) -> list[WorkerProcess]:
        """Those that stand in line for its duty, and sleep."""
        heirs = [self.begins() for _ in range(count)]
        wait_for(lambda: one(self._connection, IN_LINE, DUTY) == count, about="workers to stand in line")
        return heirs


@contextmanager
def frozen(*workers: WorkerProcess) -> Iterator[None]:
    for worker in workers:
        worker.process.send_signal(signal.SIGSTOP)
    yield
    for worker in workers:
        worker.process.send_signal(signal.SIGCONT)


def stands_still(worker: WorkerProcess) -> bool:
    options = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, worker.process.pid, options) is not None


def in_a_take(connection: Connection, worker: WorkerProcess) -> None:
    """Return once it stands still in one, with its lane, and with the bell let go."""
    wait_for(lambda: stands_still(worker), about="the worker to reach its failpoint")
    assert holders(connection, *LANES) == holders(connection, AWAKE) == [worker.process.pid]


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


@LOOKS_AT_ITS_POLL
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


@LOOKS_AT_ITS_POLL
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
