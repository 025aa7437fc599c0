"""What a machine does to a database: a host that vanishes, a backend that freezes, a disk and a queue that are full."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from pgsig.client import Client
from pgsig.embedded import EmbeddedPostgres
from pgsig.errors import PgsigError, Unavailable
from pgsig.store.migrate import migrate
from tests import support_jobs as do
from tests.faults.afar import THERE, afar
from tests.lives.clusters import SMALL, cluster, folder
from tests.support import needs, wait_for
from tests.support_core import Connection, one, operator, workers

pytestmark = pytest.mark.faults

# One session holds a lock and is silent, one is to be answered, one listens.
CLIENT = """
import sys, time, psycopg
from pgsig.store.database import connect
silent, asking, ears = (connect(sys.argv[1], name=name) for name in ("silent", "asking", "ears"))
silent.execute("SELECT pg_advisory_lock(1)")
asking.execute("SELECT pg_advisory_lock(2)")
ears.execute("LISTEN anything")
print("ready", flush=True)
sys.stdin.readline()
asking.pgconn.send_query(b"SELECT pg_sleep(0.5), repeat('x', 100000)")
asking.pgconn.flush()
print("asked", flush=True)
try:
    for _ in ears.notifies(timeout=60):
        pass
except psycopg.OperationalError:
    print("deaf", flush=True)
"""


def test_a_host_that_vanishes_holds_no_lock_and_hears_of_it() -> None:
    """Rows 5 and 6. Packets are dropped both ways: without an end to silence, a server believes in its client for two hours."""
    with cluster() as server, afar() as machine, psycopg.connect(server.dsn(), autocommit=True) as connection:
        hba = server.data_dir / "cluster" / "pg_hba.conf"
        hba.write_text(hba.read_text() + f"host all all {THERE}/32 scram-sha-256\n")
        connection.execute("SELECT pg_reload_conf()")
        with machine.start(CLIENT, server.dsn()) as client:
            try:
                assert client.stdout is not None
                assert client.stdin is not None
                assert client.stdout.readline() == "ready\n"
                client.stdin.write("\n")
                client.stdin.flush()
                assert client.stdout.readline() == "asked\n"
                machine.cut()
                began = monotonic()
                wait_for(lambda: one(connection, "SELECT pg_try_advisory_lock(1)"), 25, about="the silent one's lock")
                wait_for(lambda: one(connection, "SELECT pg_try_advisory_lock(2)"), 25, about="the asking one's lock")
                assert client.stdout.readline() == "deaf\n"
                assert monotonic() - began < 30
            finally:
                client.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server whose backends may be frozen, and whose queue of notifications is as small as it can be."""
    with cluster(max_notify_queue_pages="64") as found:
        migrate(found.dsn())
        with psycopg.connect(found.dsn(), autocommit=True) as connection:
            operator(connection, "o", ("START", {"signal": "load"}))
        yield found


@pytest.fixture
def loaded(server: EmbeddedPostgres) -> Iterator[Connection]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        yield connection


def emit(connection: Connection, value: str = "") -> int:
    return int(one(connection, "SELECT pgsig.emit('load', to_jsonb(%s::text))", value))


def acted(connection: Connection, numbers: Iterable[int]) -> list[int]:
    """How often there was an action for each of these signals."""
    rows = connection.execute(
        "SELECT count(a.id) FROM unnest(%s::bigint[]) n(id) LEFT JOIN pgsig_private.action a ON a.cause_id = n.id GROUP BY n.id",
        [list(numbers)],
    ).fetchall()
    return [row[0] for row in rows]


@contextmanager
def frozen(connection: Connection, pid: int, sessions: int) -> Iterator[None]:
    """The server's processes for one of ours, all of them, caught at rest: one that works may hold what the whole server waits for.

    sessions: how many it has at least.
    """
    statement = (
        "SELECT a.pid, a.state FROM pg_stat_activity a JOIN pgsig_private.process p ON a.application_name ~ ('\\m' || p.name || '\\M')"
        " WHERE p.pid = %s AND p.ended_at IS NULL ORDER BY a.pid"
    )
    caught: list[int] = []

    def stop() -> bool:
        found = connection.execute(statement, [pid]).fetchall()
        for each, _ in found:
            os.kill(each, signal.SIGSTOP)
        caught[:] = [each for each, _ in found]
        if len(found) >= sessions and connection.execute(statement, [pid]).fetchall() == [
            (each, "idle") for each in caught
        ]:
            return True
        thaw()
        return False

    def thaw() -> None:
        for each in caught:
            os.kill(each, signal.SIGCONT)

    wait_for(stop, about="its sessions to rest")
    try:
        yield
    finally:
        thaw()


def test_a_backend_that_stays_frozen_holds_up_nobody_else(server: EmbeddedPostgres, loaded: Connection) -> None:
    """Row 7, a worker's. Its kernel answers, so no timeout of TCP sees it: that worker waits, others go on by polling."""
    with workers(server.dsn(), poll_seconds=0.2) as (first,):
        before = emit(loaded)
        wait_for(lambda: acted(loaded, [before]) == [1])
        with frozen(loaded, first.process.pid, sessions=2), workers(server.dsn(), poll_seconds=0.2):
            numbers = [emit(loaded) for _ in range(20)]
            wait_for(lambda: acted(loaded, numbers) == [1] * 20, 20, about="the actions")
        later = emit(loaded)
        wait_for(lambda: acted(loaded, [later]) == [1], about="the first one to go on")
        assert first.alive
        assert acted(loaded, [before, *numbers, later]) == [1] * 22


def test_a_runner_whose_backend_stays_frozen_loses_its_jobs_with_its_lease(
    server: EmbeddedPostgres, loaded: Connection, tmp_path: Path
) -> None:
    """Row 7, a runner's: nothing that it says gets through, and its guard ends its jobs before another begins them."""
    file = tmp_path / "file"
    script = f'(flock -n 9 || {{ echo met >> {file}; exit 1; }}; echo "begin $$" >> {file}; exec sleep 600) 9>{tmp_path}/lock'
    with do.runner_process(do.settings(server.dsn(), tmp_path / "first", lease_seconds=2.0)) as first:
        number = do.start(loaded, do.operator(loaded, "streaming", "streaming", command=["sh", "-c", script]))
        do.wait_state(loaded, number, "running")
        wait_for(lambda: file.exists() and "begin" in file.read_text())
        second = do.settings(server.dsn(), tmp_path / "second", lease_seconds=2.0)
        with frozen(loaded, first.pid, sessions=1), do.running(second, "second"):
            do.wait_state(loaded, number, "running", attempt=2, timeout=20)
            wait_for(lambda: len(file.read_text().splitlines()) > 1, 20, about="the job to begin again")
            assert [line.split()[0] for line in file.read_text().splitlines()] == ["begin", "begin"]
            do.stop(loaded, number)
            do.wait_state(loaded, number, "stopped")
        # Thawed, it finds out, and joins anew.
        joined = "SELECT count(*) FROM pgsig_private.process WHERE pid = %s AND ended_at IS NULL AND lease_until > clock_timestamp()"
        wait_for(lambda: one(loaded, joined, first.pid) == 1, 20, about="it to join again")


def test_a_full_queue_of_notifications_refuses_no_signal(server: EmbeddedPostgres, loaded: Connection) -> None:
    """Row 20. A session that listens in a transaction keeps everybody's notifications: with a full queue, a commit that has one fails."""
    with workers(server.dsn(), poll_seconds=0.2), psycopg.connect(server.dsn()) as laggard:
        first = emit(loaded)
        wait_for(lambda: acted(loaded, [first]) == [1])
        laggard.execute("LISTEN anything")
        laggard.commit()
        laggard.execute("SELECT 1")  # and no end
        fill = "DO $$ BEGIN FOR n IN 1..1000 LOOP PERFORM pg_notify('anything', lpad(n::text, 7000)); COMMIT; END LOOP; END $$"
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many notifications"):
            loaded.execute(fill.encode())
        assert one(loaded, "SELECT pg_notification_queue_usage()") > 0.9
        numbers = [emit(loaded) for _ in range(20)]
        # Work for runners is announced with the decision.
        wait_for(lambda: one(loaded, "SELECT count(*) FROM pgsig.signals WHERE id = ANY (%s)", numbers) == 20)
        laggard.close()
        # Postgres moves the queue's tail when somebody asks how full it is. Who rings does.
        numbers.append(emit(loaded))
        wait_for(lambda: acted(loaded, numbers) == [1] * 21, 20, about="the actions")


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system that is soon full. Skips where none may be mounted."""
    needs("mount")
    with folder() as path:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=711", "none", str(path)], stderr=subprocess.DEVNULL, check=False
        ).returncode:  # fmt: skip
            pytest.skip("nothing may be mounted here")
        try:
            yield path
        finally:
            subprocess.run(["umount", str(path)], check=True)


@contextmanager
def filled(path: Path) -> Iterator[None]:
    """Not a byte is left, as long as the block lasts."""
    ballast = path / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)
            file.flush()
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)


@pytest.mark.parametrize("full", ["data", "log"])
def test_a_full_disk_loses_nothing(full: str) -> None:
    """Row 14. Where data has no room, statements fail; where the log has none, the server ends. What was committed is acted on once."""
    with small_disk("192M" if full == "data" else "64M") as small, folder() as roomy:
        data, log = (small, roomy) if full == "data" else (roomy, small)
        server = EmbeddedPostgres(data / "data", settings={**SMALL, "min_wal_size": "32MB", "max_wal_size": "32MB"})
        server.start()
        server.stop()
        shutil.move(data / "data/cluster/pg_wal", log / "wal")
        (data / "data/cluster/pg_wal").symlink_to(log / "wal")
        server.start()
        try:
            migrate(server.dsn())
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                operator(connection, "o", ("START", {"signal": "load"}))
            with workers(server.dsn(), poll_seconds=0.1) as (worker,):
                with filled(small):
                    committed, refused = until_refused(server.dsn(), full)
                assert set(refused) <= {"PS010", "PS012"}
                assert refused
                if full == "log":
                    server.stop("immediate")
                    server.start()
                with psycopg.connect(server.dsn(), autocommit=True) as connection:
                    committed.append(emit(connection))
                    wait_for(lambda: acted(connection, committed) == [1] * len(committed), 40, about="the actions")
                    assert (
                        one(connection, "SELECT count(*) FROM pgsig_private.outcome WHERE outcome = 'quarantined'") == 0
                    )
                assert worker.alive
        finally:
            server.stop("immediate")


def until_refused(dsn: str, full: str) -> tuple[list[int], list[str]]:
    """Emit what cannot be compressed, until nothing goes any more. Positions that were committed, and what the refusals said."""
    committed: list[int] = []
    refused: list[str] = []
    with contextlib.suppress(Unavailable), Client(dsn) as client:
        while len(refused) < 5 and len(committed) < 5000:
            try:
                committed.append(client.emit("load", secrets.token_hex(50_000)))
            except PgsigError as error:
                refused.append(error.code)
    return committed, refused
