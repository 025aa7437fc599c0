"""Many workers: one signal wakes one of them, and when that one dies another has taken its place before anybody polls. Many of all."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgsig.api.tail import follow
from pgsig.clock import Clock
from pgsig.live import Live
from pgsig.runner.loop import Runner
from pgsig.settings import Settings
from pgsig.store.database import Database
from pgsig.store.reading import Cursor, Filter, here, reading
from tests.support import wait_for
from tests.support_core import Background, Connection, one, operator, workers

ON_DUTY = """
    SELECT p.pid FROM pg_locks k
      JOIN pg_stat_activity a ON a.pid = k.pid
      JOIN pgsig_private.process p ON a.application_name LIKE 'pgsig worker ' || p.name || ' (bell)'
     WHERE k.locktype = 'advisory' AND k.objid = %s AND k.granted AND a.datname = current_database()
"""
SESSIONS = """
    SELECT CASE WHEN application_name LIKE '% (h%' THEN 'housekeeping' ELSE split_part(application_name, ' ', 2) END, count(*)::integer
      FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'pgsig %' GROUP BY 1
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


EMITTERS, EACH, TAILS, WORKERS, POOL = 64, 10, 16, 3, 4


def test_a_crowd_of_emitters_workers_and_tails(database: str, connection: Connection) -> None:
    """Nothing is lost or told twice, and nobody has a connection more than is said: two a worker, one for all tails beside the pool."""
    operator(connection, "o", ("START", {"signal": "crowd.*"}))
    begin, done = threading.Barrier(EMITTERS), threading.Event()

    def emitter(number: int) -> list[int]:
        with psycopg.connect(database, autocommit=True) as mine:
            begin.wait(30)
            statements = (
                "SELECT pgsig.emit('crowd.emit')",
                "INSERT INTO pgsig.signals (key) VALUES ('crowd.insert') RETURNING id",
            )
            return [one(mine, statements[(number + turn) % 2]) for turn in range(EACH)]

    def tail(store: Database, hub: Live, start: Cursor) -> list[int]:
        seen: list[int] = []
        with hub.watching():
            for text in follow(store, hub, Filter(key="crowd.*"), start):
                seen += [int(json.loads(line[6:])["id"]) for line in text.splitlines() if line.startswith("data: ")]
                if len(seen) >= EMITTERS * EACH:
                    return seen
        return seen

    def most_sessions() -> dict[str, int]:
        """The most sessions of each kind at any look, until all is done."""
        most: dict[str, int] = {}
        while not done.wait(0.05):
            for name, number in connection.execute(SESSIONS).fetchall():
                most[name] = max(most.get(name, 0), number)
        return most

    store = Database(database, name="tails", size=POOL)
    hub = Live(store, database)
    try:
        with workers(database, WORKERS), ThreadPoolExecutor(EMITTERS + TAILS) as crowd:
            with reading(store) as asked:
                start = here(asked)
            tails = [crowd.submit(tail, store, hub, start) for _ in range(TAILS)]
            watched = Background(most_sessions)
            emitted = {number for ids in crowd.map(emitter, range(EMITTERS)) for number in ids}
            with psycopg.connect(database, autocommit=True) as other:
                wait_for(lambda: one(other, "SELECT count(*) FROM pgsig.actions") >= EMITTERS * EACH, 30)
                assert one(other, "SELECT array_agg(cause_id ORDER BY cause_id) FROM pgsig.actions") == sorted(emitted)
            for found in tails:
                assert sorted(found.result(30)) == sorted(emitted)
            done.set()
            most = watched.result()
    finally:
        done.set()
        begin.abort()
        hub.close()
        store.close()
    assert len(emitted) == EMITTERS * EACH
    assert most["worker"] == 2 * WORKERS
    assert most.get("housekeeping", 0) <= WORKERS
    assert most["web"] == 1
    assert most["tails"] <= POOL


@pytest.mark.parametrize("behind_a_pooler", [False, True])
def test_a_runner_and_a_clock_have_the_connections_that_are_said(
    database: str, connection: Connection, tmp_path: Path, behind_a_pooler: bool
) -> None:
    """One each; a runner that is told of another address for LISTEN has one there and one to work."""
    listen = make_conninfo(database, connect_timeout=9) if behind_a_pooler else ""
    settings = Settings(database_url=database, listen_url=listen, spool=tmp_path, poll_seconds=POLL)
    runner, clock = Runner(settings), Clock(settings)
    threads = [threading.Thread(target=each.run) for each in (runner, clock)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: one(connection, "SELECT count(*) FROM pgsig_private.process") == 2, about="both to join")
        assert dict(connection.execute(SESSIONS).fetchall()) == {"runner": 1 + behind_a_pooler, "clock": 1}
    finally:
        runner.stop()
        clock.stop()
        for thread in threads:
            thread.join(30)
