"""The end of the log is lost, and nothing that it had given away is given again: a replica that lagged behind is promoted, or a backup is
recovered to a point in time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgsig.embedded import EmbeddedPostgres
from pgsig.engine import Engine
from pgsig.errors import InvalidInput
from pgsig.store import in_job, reading
from pgsig.store.database import connect
from pgsig.store.jobs import renew
from pgsig.store.migrate import migrate
from tests import support_jobs as do
from tests.lives.clusters import base_backup, beside, burn, cluster, folder, recovered, standby
from tests.lives.story import drain, emit, go_on
from tests.support import wait_for
from tests.support_core import Connection, one, operator

CLAIM = "SELECT id, epoch FROM pgsig_private.claim(%s, '{default}', 1)"
JOIN = "SELECT pgsig_private.join_processes('runner', 'r', 'h', 1, '0', '{default}', 9, '1 hour')"
QUIET = "SELECT quiet_until - clock_timestamp() FROM pgsig_private.timeline ORDER BY id DESC LIMIT 1"


@dataclass
class Pair:
    """A primary and its replica. lag: from now on, the replica gets nothing. fail_over: the primary dies, the replica takes its place."""

    server: EmbeddedPostgres
    primary: str
    replica: str
    promote: Any

    def lag(self) -> None:
        with psycopg.connect(self.primary, autocommit=True) as connection:
            there = one(connection, "SELECT pg_current_wal_insert_lsn()::text")
        with psycopg.connect(self.replica, autocommit=True) as connection:
            wait_for(lambda: one(connection, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", there), 20)
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            wait_for(lambda: one(connection, "SELECT count(*) FROM pg_stat_wal_receiver") == 0, 20)

    def fail_over(self) -> None:
        self.server.kill()
        self.promote()


@dataclass
class Recovery(Pair):
    """A primary and a backup of it. lag: the point in time, to which `fail_over` recovers the backup from the archive."""

    def lag(self) -> None:
        with psycopg.connect(self.primary, autocommit=True) as connection:
            connection.execute("SELECT pg_create_restore_point('noon')")

    def fail_over(self) -> None:
        with psycopg.connect(self.primary, autocommit=True) as connection:
            last = one(connection, "SELECT pg_walfile_name(pg_switch_wal())")
            archived = "SELECT last_archived_wal >= %s FROM pg_stat_archiver"
            wait_for(lambda: one(connection, archived, last), 20, about="the archive")
        super().fail_over()


@contextmanager
def promotion() -> Iterator[Pair]:
    with cluster(wal_level="replica", max_wal_senders="4") as primary, folder() as path:
        dsn = primary.dsn()
        migrate(dsn)
        replica = beside(path / "replica", primary)
        base_backup(replica, dsn, "-R")
        with standby(replica.parent) as (promoted, promote):
            yield Pair(primary, dsn, promoted, promote)


@contextmanager
def recovery() -> Iterator[Pair]:
    with folder() as path:
        archive = path / "archive"
        archive.mkdir()
        archive.chmod(0o777)  # Postgres may be somebody else
        given = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
        with cluster(wal_level="replica", max_wal_senders="4", **given) as primary:
            dsn = primary.dsn()
            migrate(dsn)
            backup = beside(path / "backup", primary)
            base_backup(backup, dsn)
            target = {"recovery_target_name": "noon", "recovery_target_action": "promote"}
            with recovered(backup, restore_command=f"cp {archive}/%f %p", **target) as (there, recover):
                yield Recovery(primary, dsn, there, recover)


@pytest.fixture(params=[promotion, recovery])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as pair:
        yield pair


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    with connect(dsn, name="engine") as connection:
        yield connection


def listened(connection: Connection, cursor: str) -> tuple[list[str], str]:
    """Keys of the signals behind a job's cursor."""
    found, cursor = in_job.signals_after(connection, "default", "^[a-z]+$", cursor)
    return [one.key for one in found], cursor


def test_what_the_lost_end_gave_away_is_not_given_again(pair: Pair) -> None:
    with connected(pair.primary) as connection:
        burn(pair.primary, 50)
        for name in ("first", "second"):
            operator(connection, name, ("START", {"signal": "a"}))
        operator(connection, "third", ("START", {"signal": "b"}))
        kept = one(connection, JOIN)  # a runner that the replica knows, with a run in its hands
        emit(connection, "a")
        drain(Engine(connection))
        held = connection.execute(CLAIM, [kept]).fetchone()
        assert held is not None
    pair.lag()
    with connected(pair.primary) as connection:  # the lost end, more of everything than a sequence logs ahead
        beginning = one(connection, "SELECT pgsig_private.cursor_here()")
        granted = connection.execute(CLAIM, [kept]).fetchone()
        assert granted is not None
        unknown = [one(connection, JOIN) for _ in range(40)]
        emit(connection, *"b" * 40)
        drain(Engine(connection))
        lost = connection.execute(CLAIM, [unknown[-1]]).fetchone()
        runs = {row[0] for row in connection.execute("SELECT id FROM pgsig_private.run").fetchall()}
        assert lost is not None
        burn(pair.primary, 300)
        emit(connection, "lost")
        heard, cursor = listened(connection, beginning)
        assert heard[-1] == "lost"
        tail = reading.here(connection)
        positions = {row[0] for row in connection.execute("SELECT id FROM pgsig.signals").fetchall()}
        common = {held[0], granted[0]}
    pair.fail_over()

    with connected(pair.replica) as connection:
        emit(connection, "early")  # before anybody has noticed
        unnoticed = listened(connection, cursor)[1]
        assert not renew(connection, unknown[-1], lease=3600.0)
        assert renew(connection, kept, lease=3600.0)
        assert connection.execute(CLAIM, [kept]).fetchone() is None, "granted while it may be executed elsewhere"
        assert one(connection, QUIET).total_seconds() > 3500
        later = "UPDATE pgsig_private.timeline SET since = since - interval '1 hour', quiet_until = quiet_until - interval '1 hour'"
        connection.execute(later.encode())
        emit(connection, *"bbb", "new")
        drain(Engine(connection))
        other = one(connection, JOIN)
        assert other not in unknown
        again = connection.execute(CLAIM, [other]).fetchone()
        assert again is not None
        assert again[0] == granted[0]
        assert again[1] > granted[1], "two grants of one epoch"
        assert one(connection, "SELECT pgsig_private.report(%s, %s, 'succeeded')", *granted) == "stale"
        assert one(connection, "SELECT pgsig_private.report(%s, %s, 'running')", *again) == "ok"
        assert one(connection, "SELECT pgsig_private.report(%s, %s, 'succeeded')", *lost) == "stale"
        assert one(connection, "SELECT pgsig_private.report(%s, %s, 'running')", *held) == "ok", (
            "what both know goes on"
        )
        there = {row[0] for row in connection.execute("SELECT id FROM pgsig_private.run").fetchall()}
        assert there & runs == common
        new = {
            row[0] for row in connection.execute("SELECT id FROM pgsig.signals WHERE key IN ('b', 'new')").fetchall()
        }
        assert len(new) == 4
        assert not new & positions

        # Each signal here is evaluated once, although its transaction id was in use before.
        fates = (
            "SELECT o.outcome FROM pgsig_private.fate o JOIN pgsig.signals s ON s.id = o.signal_id WHERE s.key = 'b'"
        )
        assert len(connection.execute(fates).fetchall()) == 3
        # Who holds a cursor of the lost end is handed all of this one.
        heard, after = listened(connection, cursor)
        assert [key for key in heard if key != "a"] == ["early", "b", "b", "b", "new"]
        assert listened(connection, unnoticed)[0] == heard, "who came before anybody had noticed has missed nothing"
        found = reading.arrivals(connection, tail)
        assert {"early", "b", "new"} <= {item["key"] for item, _ in found.signals}
        emit(connection, "next")
        assert listened(connection, after)[0] == ["next"]
        assert [item["key"] for item, _ in reading.arrivals(connection, found.cursor).signals][-1] == "next"
        with pytest.raises(InvalidInput, match="PS405"):
            listened(connection, after + "7")
    go_on(pair.replica)


def test_a_job_of_the_lost_end_is_over_before_its_run_begins_again(pair: Pair, tmp_path: Path) -> None:
    """Its runner is known to nobody and frozen besides: what the new primary waits for is its guard."""
    file = tmp_path / "file"
    script = f'flock -n 9 || {{ echo met >> {file}; exit 1; }}; echo "begin $$" >> {file}; exec sleep 600'
    with connected(pair.primary) as connection:
        job = do.operator(connection, "o", "streaming", command=["sh", "-c", f"({script}) 9>{tmp_path}/lock"])
        number = do.start(connection, job)
    pair.lag()
    with do.runner_process(do.settings(pair.primary, tmp_path / "lost", lease_seconds=2.0)) as frozen:
        with connected(pair.primary) as connection:
            do.wait_state(connection, number, "running", timeout=30)  # its guard knows of the job by now
        wait_for(lambda: file.exists() and "begin" in file.read_text(), 30, about="the job to begin")
        frozen.send_signal(signal.SIGSTOP)
        pair.fail_over()
        with (
            do.running(do.settings(pair.replica, tmp_path / "new", lease_seconds=2.0), "new"),
            connected(pair.replica) as connection,
        ):
            do.wait_state(connection, number, "running", timeout=30)
            wait_for(lambda: len(file.read_text().splitlines()) > 1, 20, about="the job to begin again")
            said = [line.split()[0] for line in file.read_text().splitlines()]
            assert said == ["begin", "begin"]
            do.stop(connection, number)
            do.wait_state(connection, number, "stopped")
        frozen.kill()
