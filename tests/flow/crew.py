"""Worker processes of which each is where a test wants it: asleep, in line, or standing still in the middle of a take."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support import wait_for
from tests.support_core import Connection, WorkerProcess, one

POLL = 30  # seconds: nothing that is waited for may come of polling
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


def holders(connection: Connection, *locks: int) -> list[int]:
    """The workers that have one of these locks, by process id."""
    found: list[int] = one(connection, HOLDERS, list(locks))
    return found


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
