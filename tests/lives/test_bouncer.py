"""Behind PgBouncer in transaction mode: everybody may go through it but those who LISTEN, and who does so all the same is told."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pgsig import doorbell
from pgsig.client import Client
from pgsig.doorbell import Doorbell
from pgsig.runner.loop import Runner
from pgsig.settings import Settings
from pgsig.store.checkup import examine
from pgsig.store.database import Database, behind_a_pooler, connect
from tests.lives.bouncer import bouncer
from tests.support import wait_for
from tests.support_core import Connection, Rings, WorkerProcess, one, operator
from tests.webapp import serving


@contextmanager
def worker(url: str, connection: Connection, **settings: object) -> Iterator[None]:
    """A worker whose address is a pooler's."""
    process = WorkerProcess(url, **settings)  # type: ignore[arg-type]
    try:
        process.wait_until_ready(connection)
        yield
    finally:
        process.stop()


@pytest.fixture
def pooled(database: str) -> Iterator[str]:
    with bouncer(database) as address:
        yield address


def test_emit_act_api_and_jobs_through_it(database: str, pooled: str, connection: Connection, tmp_path: Path) -> None:
    """Workers listen directly; the client, the API, the runner's work and what its jobs emit go through the pooler."""
    command = [sys.executable, "-c", "from pgsig import run; run.emit('job.said', 7)"]
    operator(connection, "o", ("START", {"signal": "k"}), command=command)
    settings = Settings(database_url=pooled, listen_url=database, spool=tmp_path, poll_seconds=5)
    runner = Runner(settings)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        with worker(pooled, connection, listen_url=database, poll_seconds=30), Client(pooled) as client:
            for number in range(12):  # more than it takes to prepare a statement
                client.emit("k", number, subject=f"s{number}")
            client.emit_many([{"key": "k", "subject": "many"}])
            client.act("w.o", "START", "by-hand")
            with serving(pooled, listen_url=database) as web:
                assert web.post("/api/v1/signals", json={"key": "k", "subject": "http"}).status_code in (200, 201)
                assert web.get("/readyz").status_code == 200
            said = "SELECT count(*) FROM pgsig.signals WHERE key = 'job.said'"
            wait_for(lambda: one(connection, said) == 15, 60, about="every job to emit")
            wait_for(lambda: one(connection, "SELECT count(*) FROM pgsig.runs WHERE state = 'succeeded'") == 15, 30)
    finally:
        runner.stop()
        thread.join(30)


EMITTERS, WORKERS = 64, 3
ROUNDS = 7  # more than it takes to prepare a statement
POLL = 30  # seconds: nothing that is waited for may come of polling
BELL = """
    SELECT array_agg(k.mode) FROM pg_locks k JOIN pg_database d ON d.oid = k.database
     WHERE d.datname = current_database() AND k.locktype = 'advisory' AND k.objid = 1000
"""
EVALUATED = "SELECT coalesce(array_agg(subject), '{}') FROM pgsig.actions"


def test_a_crowd_of_emitters_through_it(database: str, pooled: str, connection: Connection) -> None:
    """Four server sessions for all of them. Each signal is evaluated once, by workers that nobody but a NOTIFY wakes, and no lock stays."""
    operator(connection, "o", ("START", {"signal": "crowd"}))
    begin = threading.Barrier(EMITTERS)

    def emitter(number: int) -> list[str]:
        """In each way that there is. Returns the subjects of what it committed."""
        said: list[str] = []

        def new() -> str:
            said.append(f"{number}-{len(said)}")
            return said[-1]

        with connect(pooled, name="emitter") as mine, Client(pooled) as client:
            begin.wait(60)
            for _ in range(ROUNDS):
                mine.execute("INSERT INTO pgsig.signals (key, subject) VALUES ('crowd', %s)", [new()])
                mine.execute("SELECT pgsig.emit('crowd', subject => %s)", [new()])
                many = json.dumps([{"key": "crowd", "subject": new()} for _ in range(2)])
                mine.execute("SELECT pgsig.emit_many(%s::jsonb)", [many])
                with mine.cursor().copy("COPY pgsig.signals (key, subject) FROM STDIN") as rows:
                    for _ in range(2):
                        rows.write_row(("crowd", new()))
                with mine.transaction():
                    mine.execute("SELECT pgsig.emit('crowd', subject => %s)", [new()])
                    mine.execute("INSERT INTO pgsig.signals (key, subject) VALUES ('crowd', %s)", [new()])
                with mine.transaction(force_rollback=True):
                    mine.execute("SELECT pgsig.emit('crowd', subject => 'undone')")
                client.emit("crowd", subject=new())
                client.emit_many([{"key": "crowd", "subject": new()} for _ in range(2)])
        return said

    try:
        with (
            ExitStack() as stack,
            ThreadPoolExecutor(EMITTERS) as crowd,
            Rings(database) as rings,
            connect(pooled, name="late") as late,
        ):
            for _ in range(WORKERS):
                stack.enter_context(worker(pooled, connection, listen_url=database, poll_seconds=POLL))
            emitted = sorted(subject for said in crowd.map(emitter, range(EMITTERS)) for subject in said)
            wait_for(lambda: len(one(connection, EVALUATED)) >= len(emitted), about="all to be evaluated")
            assert sorted(one(connection, EVALUATED)) == emitted
            for number in range(5):
                wait_for(
                    lambda: one(connection, BELL) == ["ExclusiveLock"],
                    about="everybody to sleep, and no emitter's lock",
                )
                rings.since()
                late.execute("SELECT pgsig.emit('crowd', subject => %s)", [f"late-{number}"])
                wait_for(lambda: f"late-{number}" in one(connection, EVALUATED), POLL / 6)  # noqa: B023
                assert rings.since() >= 1
    finally:
        begin.abort()


def test_a_pooler_is_noticed(database: str, pooled: str) -> None:
    with connect(pooled, name="test") as through, connect(database, name="test") as direct:
        assert behind_a_pooler(through)
        assert not behind_a_pooler(direct)
        assert through.prepare_threshold is None
    pool = Database(pooled, size=1)
    try:
        with pool.transaction() as borrowed:
            assert borrowed.prepare_threshold is None
    finally:
        pool.close()


def test_who_listens_through_it_is_told_and_takes_no_lock(
    pooled: str, connection: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock taken through it would stay with the server's connection, and have everybody ring for nobody."""
    monkeypatch.setattr(doorbell, "HEARD_WITHIN", 0.3)
    line = connect(pooled, name="deaf")
    bell = Doorbell(pooled, name="deaf", listen_on=lambda: line)
    try:
        with caplog.at_level(logging.WARNING):
            assert not bell.arm()
        assert bell.deaf
        assert "PS013" in caplog.text
        assert "PGSIG_LISTEN_URL" in caplog.text
        bell.disarm()
        assert not bell.wait(0.01)  # it only lets time pass
        locks = "SELECT count(*) FROM pg_locks k JOIN pg_database d ON d.oid = k.database WHERE d.datname = current_database()"
        assert one(connection, f"{locks} AND k.locktype = 'advisory' AND k.objid IN (1000, 1002, 1005)") == 0
    finally:
        bell.close()
        line.close()
    found = {finding.check: finding for finding in examine(Settings(database_url=pooled))}
    assert found["notifications"].state == "problem"
    assert "PGSIG_LISTEN_URL" in found["notifications"].fix


def test_a_worker_that_cannot_listen_works_by_polling(pooled: str, connection: Connection) -> None:
    operator(connection, "o", ("START", {"signal": "k"}))
    with worker(pooled, connection, poll_seconds=0.2):
        connection.execute("SELECT pgsig.emit('k')")
        wait_for(lambda: one(connection, "SELECT count(*) FROM pgsig.actions") == 1, 20)
