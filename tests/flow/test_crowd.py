"""Many workers: one signal wakes one of them, and when that one dies another has taken its place before anybody polls."""

from __future__ import annotations

import time

from tests.support import wait_for
from tests.support_core import Connection, one, operator, workers

ON_DUTY = """
    SELECT p.pid FROM pg_locks k
      JOIN pg_stat_activity a ON a.pid = k.pid
      JOIN pgsig_private.process p ON a.application_name LIKE 'pgsig worker ' || p.name || ' (bell)'
     WHERE k.locktype = 'advisory' AND k.objid = %s AND k.granted AND a.datname = current_database()
"""
DUTY, BELL = 1005, 1000
POLL = 30  # seconds: nothing here may come of polling


def test_the_one_on_duty_is_replaced_when_it_dies(database: str, connection: Connection) -> None:
    operator(connection, "o", ("START", {"signal": "k"}))
    with workers(database, 3, poll_seconds=POLL) as started:
        by_pid = {worker.process.pid: worker for worker in started}
        for left in (2, 1):
            holder = wait_for(lambda: one(connection, ON_DUTY, BELL), about="a worker to hold the bell")
            assert one(connection, ON_DUTY, DUTY) == holder
            by_pid[holder].kill()
            begun = time.monotonic()
            # At once, while nobody may have noticed yet: whoever takes over looks.
            connection.execute("SELECT pgsig.emit('k')")
            wanted = 3 - left
            wait_for(lambda: one(connection, "SELECT count(*) FROM pgsig.actions") == wanted, 10)  # noqa: B023
            assert time.monotonic() - begun < POLL / 2
