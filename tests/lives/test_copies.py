"""Physical copies keep transaction ids: a promoted replica, a base backup, pg_upgrade. Nothing is to be done, nothing is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from pgsig.embedded import EmbeddedPostgres, find_binaries
from pgsig.store import in_job, processes
from pgsig.store.database import connect
from pgsig.store.migrate import migrate
from tests.lives.clusters import SMALL, base_backup, beside, burn, cluster, folder, recovered, run, standby
from tests.lives.story import actions, emit, fates, go_on, leave_in_the_middle
from tests.support import needs, wait_for
from tests.support_core import one


def test_a_base_backup_goes_on_and_so_does_a_promoted_replica() -> None:
    with cluster(wal_level="replica", max_wal_senders="4") as primary, folder() as path:
        dsn = primary.dsn()
        migrate(dsn)
        burn(dsn, 500)
        middle = leave_in_the_middle(dsn)
        backup = beside(path / "backup", primary)
        base_backup(backup, dsn, "-R")
        replica = beside(path / "replica", primary)
        shutil.copytree(backup, replica)
        (backup / "standby.signal").unlink()
        # What the replica gets and the backup has not.
        with psycopg.connect(dsn, autocommit=True) as connection:
            emit(connection, *"aa")
        with standby(replica.parent) as (promoted, promote):
            with psycopg.connect(dsn) as connection:
                last = one(connection, "SELECT max(id) FROM pgsig.signals")
                there = one(connection, "SELECT pg_current_wal_insert_lsn()::text")
            with psycopg.connect(promoted, autocommit=True) as other:
                wait_for(lambda: one(other, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", there), 20)
            primary.kill()
            promote()
            go_on(promoted)
            restored = EmbeddedPostgres(backup.parent, fsync=False, settings=SMALL)
            restored.start()
            try:
                go_on(restored.dsn())
                primary.start()
                go_on(primary.dsn())
                for copy, until in ((promoted, last), (restored.dsn(), middle.last)):
                    assert fates(copy, until) == fates(primary.dsn(), until)
                    assert actions(copy, until) == actions(primary.dsn(), until)
                assert len(fates(promoted, last)) > len(fates(restored.dsn(), middle.last))
            finally:
                restored.stop("immediate")


@pytest.mark.parametrize("told", [True, False])
def test_a_base_backup_of_a_life_that_went_on_begins_a_timeline_where_it_is_told_to_recover(told: bool) -> None:
    """Else nothing says that the end was lost: a listener's cursor passes over what comes under numbers that it has seen."""
    with cluster(wal_level="replica", max_wal_senders="4") as primary, folder() as path:
        dsn = primary.dsn()
        migrate(dsn)
        backup = beside(path / "backup", primary)
        base_backup(backup, dsn)
        burn(dsn, 500)
        with psycopg.connect(dsn, autocommit=True) as connection:
            emit(connection, "a")
            cursor = one(connection, "SELECT pgsig_private.cursor_here()")
        primary.kill()
        with recovered(backup, restore_command="false") as (there, recover):
            recover(told)
            with connect(there, name="engine") as connection:
                process = processes.join(connection, "worker", "w", "0", lease=10.0)
                assert processes.renew(connection, process, lease=10.0)
                assert one(connection, "SELECT count(*) FROM pgsig_private.timeline") == 1 + told
                emit(connection, "b")
                found, _ = in_job.signals_after(connection, "default", "^[a-z]$", cursor)
                assert [signal.key for signal in found] == ["b"] * told


@pytest.mark.slow
def test_pg_upgrade_keeps_transaction_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """From an older major to the embedded server's. The new cluster has another system identifier, and the same transaction ids."""
    programs = needs("older-postgres")
    with folder() as path:
        monkeypatch.setenv("PGSIG_PG_BIN", programs)
        old = EmbeddedPostgres(path / "old", fsync=False, settings=SMALL)
        old.start()
        migrate(old.dsn())
        burn(old.dsn(), 500)
        middle = leave_in_the_middle(old.dsn())
        before = identifier(old.dsn())
        old.stop()
        run("pg_checksums", "--enable", "-D", str(path / "old/cluster"))  # as the newer version has them by default
        monkeypatch.delenv("PGSIG_PG_BIN")
        beside(path / "new", old)
        new = EmbeddedPostgres(path / "new", fsync=False, settings=SMALL)
        new.start()
        new.stop()
        upgrade(path, old, programs)
        new.start()
        try:
            assert identifier(new.dsn()) != before
            go_on(new.dsn())
            known = fates(new.dsn(), middle.last)
            acted = actions(new.dsn(), middle.last)
        finally:
            new.stop("immediate")
        monkeypatch.setenv("PGSIG_PG_BIN", programs)
        old.start()
        try:
            go_on(old.dsn())
            assert known == fates(old.dsn(), middle.last)
            assert acted == actions(old.dsn(), middle.last)
        finally:
            old.stop("immediate")


def upgrade(path: Path, old: EmbeddedPostgres, programs: str) -> None:
    work = path / "work"
    work.mkdir(mode=0o700)
    run(
        "pg_upgrade", "-b", programs, "-B", str(find_binaries().directory), "-d", str(path / "old/cluster"),
        "-D", str(path / "new/cluster"), "-U", "pgsig", dsn=old.dsn(), cwd=work,
    )  # fmt: skip


def identifier(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return int(one(connection, "SELECT system_identifier FROM pg_control_system()"))
