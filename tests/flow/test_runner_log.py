"""Output of jobs: kept, bounded, and never a reason to fail."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pgsig import cli
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import Connection
from tests.test_cli import program


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


def test_a_log_outlives_its_runner(connection: Connection, database: str, tmp_path: Path) -> None:
    script = "echo attempt $PGSIG_ATTEMPT; test -e $GATE || exec sleep 600"
    operator = do.operator(
        connection, "long", command=["sh", "-c", script], retries=1, env={"GATE": str(tmp_path / "go")}
    )
    with do.runner_process(do.settings(database, tmp_path)) as process:
        run = do.start(connection, operator)
        wait_for(lambda: do.output(connection, run) == "attempt 1\n", 30, about="the first line")
        process.kill()
        process.wait()
    (tmp_path / "go").touch()
    with do.running(do.settings(database, tmp_path)):
        do.wait_state(connection, run, "succeeded", timeout=30)
    assert do.output(connection, run) == "attempt 1\nattempt 2\n"


def test_lines_of_a_log_are_those_of_the_job_however_they_were_stored(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    run = do.start(connection, do.operator(connection, "op"))
    pieces = [("one\ntw", 1), ("o\nthree\n\nfo", 1), ("ur", 1), ("fi", 2), ("ve", 2)]
    for seq, (text, attempt) in enumerate(pieces, 1):
        row = [run, seq, attempt, text]
        connection.execute("INSERT INTO pgsig_private.log (run_id, seq, attempt, text) VALUES (%s, %s, %s, %s)", row)

    def shown(*options: str) -> str:
        assert cli.run(["logs", str(run), *options]) == 0
        return capsys.readouterr().out

    whole = "one\ntwo\nthree\n\nfour\nfive\n"
    assert shown() == shown("-n", "6") == shown("-n", "600") == whole
    assert [shown("-n", str(lines)) for lines in (1, 2, 3, 5)] == [
        "five\n", "four\nfive\n", "\nfour\nfive\n", whole.removeprefix("one\n")
    ]  # fmt: skip


def test_a_log_is_followed_into_the_next_attempt_and_the_next_run(
    connection: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    script = "echo run $PGSIG_RUN_ID attempt $PGSIG_ATTEMPT; exit $((2 - PGSIG_ATTEMPT))"
    operator = do.operator(connection, "op", command=["sh", "-c", script], retries=1, retry_delay="10ms")
    with do.running(do.settings(database, tmp_path)):
        first = do.start(connection, operator)
        do.wait_state(connection, first, "succeeded", timeout=30)
        with program("logs", "-f", "w.op") as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            second = do.start(connection, operator)
            lines += [process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert lines == [f"run {run} attempt {attempt}\n" for run in (first, second) for attempt in (1, 2)]
    assert (process.returncode, err.splitlines()) == (130, [
        f"run {first}", f"run {first}, attempt 2", f"run {second}", f"run {second}, attempt 2",
    ])  # fmt: skip
