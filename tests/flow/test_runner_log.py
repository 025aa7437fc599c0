"""Output of jobs: kept, bounded, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path

from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import Connection


def test_output_is_bounded_in_the_database_and_on_disk(connection: Connection, database: str, tmp_path: Path) -> None:
    with do.running(do.settings(database, tmp_path, log_kib=64)):
        run = do.start(connection, do.operator(connection, "flood", "streaming", command=["yes"]))
        wait_for(lambda: "dropped" in do.output(connection, run), about="the bound to be reached")
        (spool,) = tmp_path.glob("runs/*/*/output")
        wait_for(lambda: spool.stat().st_size > 400_000_000, 30, about="a few hundred megabytes of output")
        assert spool.stat().st_blocks * 512 < 300_000_000
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped")
    text = do.output(connection, run)
    assert text.startswith("[pgsig: ")
    assert len(text) < 64 * 1024 + 200
    (marks,) = connection.execute("SELECT count(*) FROM pgsig_private.log WHERE seq = 0").fetchone() or (0,)
    assert marks == 1


def test_the_end_of_a_long_output_is_what_is_kept(connection: Connection, database: str, tmp_path: Path) -> None:
    with do.running(do.settings(database, tmp_path, log_kib=64)):
        run = do.start(connection, do.operator(connection, "count", command=["seq", "1", "200000"]))
        do.wait_state(connection, run, "succeeded")
    assert do.output(connection, run).endswith("199999\n200000\n")


def test_bytes_that_are_no_text(connection: Connection, database: str, tmp_path: Path) -> None:
    script = r"printf 'a\000b\377c \303\244 \303'"
    with do.running(do.settings(database, tmp_path)):
        run = do.start(connection, do.operator(connection, "bytes", command=["sh", "-c", script]))
        do.wait_state(connection, run, "succeeded")
    assert do.output(connection, run) == "a\ufffdb\ufffdc ä \ufffd"


def test_nothing_is_left_in_the_spool(connection: Connection, database: str, tmp_path: Path) -> None:
    with do.running(do.settings(database, tmp_path)):
        run = do.start(connection, do.operator(connection, "short", command=["echo"]))
        do.wait_state(connection, run, "succeeded")
    assert list(tmp_path.glob("runs/*")) == []
