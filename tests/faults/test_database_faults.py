"""A database that refuses, hesitates and loses answers: what was committed is acted on once, and processes wait and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsig.client import Client
from pgsig.clock import Clock
from pgsig.errors import PgsigError
from pgsig.runner import tree
from pgsig.settings import Settings
from pgsig.store import housekeeping
from pgsig.store.database import connect
from tests import support_jobs as do
from tests.soak.proxy import Proxy
from tests.support import wait_for
from tests.support_core import ROOT, Background, Connection, WorkerProcess, one, operator, workers

pytestmark = pytest.mark.faults

# What the server may answer to any statement, and what may not be taken for a fault of the signal: rows 13 to 17.
REFUSALS = {
    "25006": "read-only", "53100": "disk full", "53200": "out of memory", "57014": "statement timeout", "55P03": "lock timeout",
    "40P01": "deadlock", "40001": "serialization failure",
}  # fmt: skip


@pytest.fixture
def loaded(connection: Connection) -> Connection:
    """A connection to a database whose one operator starts at each signal."""
    operator(connection, "o", ("START", {"signal": "load"}))
    return connection


def emit(connection: Connection) -> int:
    return int(one(connection, "SELECT pgsig.emit('load')"))


def acted(connection: Connection, number: int) -> int:
    return int(one(connection, "SELECT count(*) FROM pgsig_private.action WHERE cause_id = %s", number))


def test_what_the_server_refuses_is_tried_again(database: str, loaded: Connection) -> None:
    """Rows 14 to 17, one after the other for the same signal. It is not at fault: it is neither put aside, as it would be after five tries,
    nor acted on twice, and the worker lives on."""
    loaded.execute("CREATE TABLE public.refusal (n bigint, code text); CREATE SEQUENCE public.tries")
    for number, code in enumerate(REFUSALS, 1):
        loaded.execute("INSERT INTO public.refusal VALUES (%s, %s)", [number, code])
    loaded.execute(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE c text; BEGIN"
        " SELECT code INTO c FROM public.refusal WHERE n = (SELECT nextval('public.tries'));"  # which does not roll back
        " IF FOUND THEN RAISE EXCEPTION 'refused' USING ERRCODE = c; END IF; RETURN NEW; END $$"
    )
    loaded.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON pgsig_private.action FOR EACH ROW EXECUTE FUNCTION public.refuse()"
    )
    with workers(database, poll_seconds=0.05) as (worker,):
        number = emit(loaded)
        wait_for(lambda: acted(loaded, number), 40, about="the action after all refusals")
        assert one(loaded, "SELECT last_value FROM public.tries") == len(REFUSALS) + 1
        assert worker.alive
        assert acted(loaded, number) == 1
        assert one(loaded, "SELECT count(*) FROM pgsig_private.outcome WHERE outcome = 'quarantined'") == 0


def test_a_database_that_becomes_read_only_is_waited_for(database: str, loaded: Connection) -> None:
    """Row 13: as a server that was demoted, or that an operator has locked. Workers, runners and clocks live through it."""
    (name,) = loaded.execute("SELECT current_database()").fetchone() or ("",)
    clock = Clock(Settings(database_url=database, lease_seconds=1.0))
    ticking = Background(clock.run)
    try:
        with workers(database, poll_seconds=0.05) as (worker,):
            wait_for(lambda: one(loaded, "SELECT count(*) FROM pgsig_private.process WHERE role = 'clock'") == 1)
            number = emit(loaded)
            wait_for(lambda: acted(loaded, number) == 1)
            loaded.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            cut(loaded)
            wait_for(
                lambda: (
                    one(
                        loaded,
                        "SELECT count(*) FROM pgsig_private.process WHERE ended_at IS NULL AND lease_until < clock_timestamp()",
                    )
                    >= 1
                ),
                20,
                about="a lease that could not be renewed",
            )
            with Client(database) as client, pytest.raises(PgsigError, match="read-only"):
                client.emit("load")
            number = emit(loaded)  # this session is older than the change
            loaded.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            cut(loaded)
            wait_for(lambda: acted(loaded, number) == 1, 20, about="the action once it may be written")
            assert worker.alive
            assert one(loaded, "SELECT count(*) FROM pgsig_private.outcome WHERE outcome = 'quarantined'") == 0
    finally:
        clock.stop()
        ticking.result(20)


def cut(connection: Connection) -> None:
    """End every other session of the database."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


@pytest.fixture
def wire(database: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy, and the database's address through it."""
    address = conninfo_to_dict(database)
    proxy = Proxy(lambda: int(str(address["port"])))
    try:
        yield proxy, make_conninfo(database, host="127.0.0.1", port=proxy.open("wire"))
    finally:
        proxy.close()


def test_an_answer_to_commit_that_is_lost(loaded: Connection, wire: tuple[Proxy, str]) -> None:
    """Row 2, as emitters see it: whether it is committed is not known, and the same event id again is no second signal."""
    proxy, address = wire
    with psycopg.connect(address, autocommit=True) as emitter:
        emitter.execute("BEGIN")
        emitter.execute("SELECT pgsig.emit('load', event_id => 'e')")
        proxy.set("wire", "mute")
        commit = Background(lambda: emitter.execute("COMMIT"))
        wait_for(lambda: one(loaded, "SELECT count(*) FROM pgsig.signals") == 1, about="the commit")
        proxy.set("wire", "flow")
        with pytest.raises(psycopg.OperationalError):
            commit.result()
    first = one(loaded, "SELECT id FROM pgsig.signals")
    with Client(address) as client:
        assert client.emit("load", event_id="e", source=one(loaded, "SELECT source FROM pgsig.signals")) == first
    assert one(loaded, "SELECT count(*) FROM pgsig.signals") == 1


def test_a_worker_whose_answer_to_commit_is_lost(loaded: Connection, wire: tuple[Proxy, str], tmp_path: Path) -> None:
    """Row 2, as workers see it: a step that was committed is not done again."""
    proxy, address = wire
    log = tmp_path / "log"
    worker = WorkerProcess(address, poll_seconds=0.05, failpoints="engine.recorded=sleep=0.5", failpoints_log=log)
    try:
        worker.wait_until_ready(loaded)
        number = emit(loaded)
        wait_for(log.exists, about="the worker to be about to commit")
        proxy.set("wire", "mute")
        wait_for(lambda: acted(loaded, number), about="the commit")
        proxy.set("wire", "flow")
        later = emit(loaded)
        wait_for(lambda: acted(loaded, later), 20, about="the worker to go on")
        assert (acted(loaded, number), acted(loaded, later)) == (1, 1)
        assert worker.alive
    finally:
        worker.kill()


def test_a_client_that_is_killed_in_a_statement_holds_no_lock(database: str, connection: Connection) -> None:
    """Row 4. Without asking, a server finds out when the statement ends: never, here."""
    code = (
        "import sys; from pgsig.store.database import connect; connect(sys.argv[1], name='doomed').execute(sys.argv[2])"
    )
    statement = "SELECT pg_advisory_lock(77), pg_sleep(600)"
    doomed = subprocess.Popen(
        [sys.executable, "-c", code, database, statement], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        wait_for(
            lambda: one(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77") == 1, 20
        )
    finally:
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
    wait_for(lambda: one(connection, "SELECT pg_try_advisory_lock(77)"), 10, about="the lock to be free")


def test_every_connection_asks_for_an_end_to_silence(database: str) -> None:
    """Rows 3, 5 and 6: what a network that drops everything would take minutes to show."""
    with connect(database, name="x") as connection:
        asked = connection.info.get_parameters()
        assert (asked["keepalives_idle"], asked["tcp_user_timeout"], asked["connect_timeout"]) == ("5", "10000", "10")
        assert one(connection, "SELECT current_setting('idle_in_transaction_session_timeout')") == "15s"
        assert one(connection, "SELECT current_setting('client_connection_check_interval')") == "1s"


def test_a_bulk_load_that_rings_nobody(database: str, loaded: Connection) -> None:
    """Row 23: triggers are off, and a poll finds the signals all the same."""
    with workers(database, poll_seconds=0.3):
        first = emit(loaded)
        wait_for(lambda: acted(loaded, first) == 1)
        loaded.execute("SET session_replication_role = replica; SET pgsig.bell = 'off'")
        number = one(
            loaded,
            "INSERT INTO pgsig_private.signal (key, lane) VALUES ('load', hashtextextended('default', 0) & 3) RETURNING id",
        )
        wait_for(lambda: acted(loaded, number) == 1)


def test_two_runners_of_one_name_are_two(connection: Connection) -> None:
    """Row 31: identity is a row of its own for each start. What one leaves behind is not the other's."""
    join = "SELECT pgsig_private.join_processes('runner', 'same', 'same', 1, '0', '{default}', 9, '1 hour')"
    ids = [one(connection, join) for _ in range(2)]
    assert ids[0] != ids[1]
    run = do.start(connection, do.operator(connection, "o", command=["true"]))
    assert one(connection, "SELECT count(*) FROM pgsig_private.claim(%s, '{default}', 1)", ids[0]) == 1
    connection.execute("UPDATE pgsig_private.process SET ended_at = clock_timestamp() WHERE id = %s", [ids[1]])
    assert housekeeping.reap(connection, quiet=0) == 0
    assert do.run_row(connection, run)["runner_id"] == ids[0]


def test_a_process_id_that_was_given_away_is_not_killed() -> None:
    """Row 45: a number is believed only together with its start time."""
    with subprocess.Popen(["sleep", "60"]) as innocent:
        found = tree.look(innocent.pid)
        assert found
        older = tree.Root(innocent.pid, found.started - 100, b"NOBODY=1")
        assert tree.kill(older) == 0
        tree.send(tree.Process(found.pid, 0, 0, 0, found.started - 100, False), signal.SIGKILL)
        assert innocent.poll() is None
        assert tree.kill(tree.Root(innocent.pid, found.started, b"NOBODY=1")) == 1
        assert innocent.wait(10) == -signal.SIGKILL
