"""Ending jobs: politely, by force, and with everything that they started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsig.errors import InvalidInput
from pgsig.runner.loop import Runner
from pgsig.settings import Settings
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import Connection


@pytest.fixture
def runner(database: str, tmp_path: Path) -> Iterator[Runner]:
    with do.running(do.settings(database, tmp_path)) as found:
        yield found


def pids(folder: Path, *names: str) -> list[int]:
    """Process ids that a job wrote into files, once they are all there."""
    for name in names:
        wait_for(lambda name=name: (folder / name).exists() and (folder / name).read_text().strip(), about=name)  # type: ignore[misc]
    return [int((folder / name).read_text()) for name in names]


def test_a_polite_job_ends_by_itself(connection: Connection, runner: Runner, tmp_path: Path) -> None:
    operator = do.operator(connection, "serve", "streaming", python="tests.runner_jobs:serve", ready="api")
    run = do.start(connection, operator)
    wait_for(lambda: do.run_row(connection, run)["ready_at"], about="ready")
    do.stop(connection, run)
    row = do.wait_state(connection, run, "stopped", timeout=5)
    assert (row["exit_code"], row["reason"]) == (0, None)
    assert "ended in good order" in do.output(connection, run)


def test_a_whole_tree_that_ignores_the_signal_is_killed(connection: Connection, runner: Runner, tmp_path: Path) -> None:
    script = f"""
        trap '' TERM
        echo $$ > {tmp_path}/first
        sh -c 'trap "" TERM; echo $$ > {tmp_path}/child; while :; do sleep 1; done' &
        setsid sh -c 'trap "" TERM; echo $$ > {tmp_path}/apart; while :; do sleep 1; done' &
        (setsid sh -c 'trap "" TERM; echo $$ > {tmp_path}/orphan; while :; do sleep 1; done' &) &
        while :; do sleep 1; done
    """
    operator = do.operator(connection, "stubborn", "streaming", command=["sh", "-c", script], grace="300ms")
    run = do.start(connection, operator)
    found = pids(tmp_path, "first", "child", "apart", "orphan")
    do.stop(connection, run)
    row = do.wait_state(connection, run, "stopped", timeout=5)
    assert row["reason"] == "did not end within 300ms and was killed"
    assert [do.alive(pid) for pid in found] == [False] * 4


def test_what_a_job_leaves_behind_ends_with_it(connection: Connection, runner: Runner, tmp_path: Path) -> None:
    """A daemon that holds the output neither keeps the run alive nor survives it."""
    script = f"(setsid sh -c 'echo $$ > {tmp_path}/daemon; exec sleep 600' &); while [ ! -s {tmp_path}/daemon ]; do sleep 0.01; done"
    run = do.start(connection, do.operator(connection, "daemon", command=["sh", "-c", script]))
    do.wait_state(connection, run, "succeeded", timeout=5)
    assert not do.alive(pids(tmp_path, "daemon")[0])


def test_a_stopped_streaming_run_does_not_restart(connection: Connection, runner: Runner) -> None:
    operator = do.operator(connection, "sleep", "streaming", command=["sleep", "600"])
    run = do.start(connection, operator)
    do.wait_state(connection, run, "running")
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped", timeout=5)
    (seen, wanted) = connection.execute("SELECT observed, desired FROM pgsig_private.instance").fetchone() or ("", "")
    assert (seen, wanted) == ("stopped", "stopped")


def test_a_batch_that_is_stopped_is_not_tried_again(connection: Connection, runner: Runner) -> None:
    run = do.start(connection, do.operator(connection, "sleep", command=["sleep", "600"], retries=5))
    do.wait_state(connection, run, "running")
    do.stop(connection, run)
    assert do.wait_state(connection, run, "stopped", timeout=5)["attempt"] == 1


def test_a_runner_that_is_shut_down_gives_its_runs_back(connection: Connection, database: str, tmp_path: Path) -> None:
    streaming = do.operator(connection, "forever", "streaming", command=["sleep", "600"])
    batch = do.operator(connection, "long", command=["sh", "-c", f"test -e {tmp_path}/second || exec sleep 600"])
    with do.running(do.settings(database, tmp_path), "one"):
        runs = do.start(connection, streaming), do.start(connection, batch)
        for run in runs:
            do.wait_state(connection, run, "running")
        (tmp_path / "second").touch()
    for run in runs:
        assert do.run_row(connection, run)["state"] == "retrying"
    with do.running(do.settings(database, tmp_path), "two"):
        assert do.wait_state(connection, runs[0], "running", timeout=3)["epoch"] == 3
        # An attempt that was not the job's fault is not charged, though the operator has no retries.
        assert do.wait_state(connection, runs[1], "succeeded", timeout=3)["attempt"] == 1
        do.stop(connection, runs[0])
        do.wait_state(connection, runs[0], "stopped")
    ended = connection.execute("SELECT count(*) FROM pgsig_private.process WHERE ended_at IS NOT NULL").fetchone()
    assert ended == (2,)


def test_a_runner_that_drains_lets_batch_runs_end(connection: Connection, database: str, tmp_path: Path) -> None:
    service = do.operator(connection, "forever", "streaming", command=["sleep", "600"])
    script = f"until test -e {tmp_path}/go; do sleep 0.02; done; echo whole"
    work = do.operator(connection, "work", command=["sh", "-c", script])
    with do.running(do.settings(database, tmp_path / "spool", drain_seconds=600.0)) as runner:
        runs = do.start(connection, service), do.start(connection, work)
        for run in runs:
            do.wait_state(connection, run, "running")
        runner.stop()
        # What never ends by itself goes to others at once, and nothing new is taken.
        do.wait_state(connection, runs[0], "retrying")
        (tmp_path / "go").touch()
        do.wait_state(connection, runs[1], "succeeded", attempt=1)
    assert do.output(connection, runs[1]) == "whole\n"


def test_a_runner_that_drains_can_be_hurried(connection: Connection, database: str, tmp_path: Path) -> None:
    work = do.operator(connection, "work", command=["sleep", "600"])
    with do.running(do.settings(database, tmp_path, drain_seconds=600.0)) as runner:
        run = do.start(connection, work)
        do.wait_state(connection, run, "running")
        runner.stop()
        assert runner.link is not None
        wait_for(lambda: runner.supervisor and runner.supervisor.stopping)
        runner.stop()
        do.wait_state(connection, run, "retrying")


def test_an_engine_that_nobody_offers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        Runner(Settings(spool=tmp_path, engine="mainframe"))
    assert [(problem.code, problem.where) for problem in refused.value.problems] == [("PS003", "PGSIG_ENGINE")]
    assert "process" in refused.value.problems[0].fix
