"""Jobs that outlive their runner: the next one takes them over, and nothing is started twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pgsig.settings import Settings
from pgsig.store import housekeeping, jobs
from tests import support_jobs as do
from tests.lasting_engine import LastingEngine
from tests.support import wait_for
from tests.support_jobs import Connection

JOB = 'echo "begun $$" >> {file}; echo before; while [ ! -e {file}.go ]; do sleep 0.02; done; echo after; exit 3'


@contextmanager
def runner_apart(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A runner with a lasting engine, in a process of its own."""
    env = {
        **os.environ, "PYTHONPATH": str(do.ROOT), "DATABASE_URL": settings.database_url, "PGSIG_SPOOL": str(settings.spool),
        "PGSIG_POLL_SECONDS": "0.3", "PGSIG_LEASE_SECONDS": str(settings.lease_seconds),
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "tests.lasting_engine"], env=env, cwd=do.ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return do.settings(database, tmp_path / "spool", lease_seconds=2.0)


def pids(file: Path) -> list[int]:
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def begin(connection: Connection, file: Path, **spec: Any) -> int:
    """A run whose job has begun."""
    run = do.start(connection, do.operator(connection, "lasting", command=["sh", "-c", JOB.format(file=file)], **spec))
    do.wait_state(connection, run, "running", timeout=30)
    wait_for(lambda: pids(file), 30, about="the job")
    wait_for(lambda: "before" in do.output(connection, run), about="its output")
    return run


def test_a_job_of_a_dead_runner_is_taken_over(connection: Connection, settings: Settings, tmp_path: Path) -> None:
    """The same process, the same attempt, all of its output, its own end; told when it was first begun."""
    file = tmp_path / "file"
    with runner_apart(settings) as first:
        run = begin(connection, file)
        before = do.run_row(connection, run)
        first.kill()
    with do.running(settings, engine=LastingEngine(settings)):
        row = do.wait_state(connection, run, "running", epoch=before["epoch"] + 2, timeout=30)
        assert (row["attempt"], row["handle"], row["started_at"]) == (1, before["handle"], before["started_at"])
        Path(f"{file}.go").touch()
        row = do.wait_state(connection, run, "failed", timeout=30)
        assert (row["exit_code"], row["handle"]) == (3, None)
    assert len(pids(file)) == 1
    assert do.output(connection, run).split() == ["before", "after"]


def test_its_time_counts_from_its_begin(connection: Connection, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with runner_apart(settings) as first:
        run = begin(connection, file, timeout="30m", grace="100ms")
        first.kill()
    connection.execute("UPDATE pgsig_private.run SET started_at = started_at - interval '31 min'")
    with do.running(settings, engine=LastingEngine(settings)):
        assert do.wait_state(connection, run, "failed", timeout=30)["reason"] == "timed out after 30m"
    assert not do.alive(*pids(file))


def test_what_ended_while_nobody_looked_is_told(connection: Connection, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with runner_apart(settings) as first:
        run = begin(connection, file)
        first.kill()
    Path(f"{file}.go").touch()
    wait_for(lambda: not do.alive(*pids(file)), about="the job to end")
    with do.running(settings, engine=LastingEngine(settings)):
        assert do.wait_state(connection, run, "failed", timeout=30)["exit_code"] == 3
    assert len(pids(file)) == 1
    assert do.output(connection, run).split() == ["before", "after"]


def test_a_stop_between_two_runners_is_not_forgotten(
    connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    """Both before the run was found lost and after it; the job is stopped by the next runner, and not left alone."""
    found = []
    for name in ("early", "late"):
        file = tmp_path / name
        with runner_apart(settings) as first:
            operator = do.operator(connection, name, command=["sh", "-c", JOB.format(file=file)])
            run = do.start(connection, operator)
            wait_for(lambda file=file: pids(file), 30, about="the job")  # type: ignore[misc]
            do.wait_state(connection, run, "running", timeout=30)
            first.kill()
        if name == "early":
            do.stop(connection, run)
        (process,) = connection.execute("SELECT max(id) FROM pgsig_private.process").fetchone() or (0,)
        jobs.leave(connection, process)
        housekeeping.reap(connection, quiet=0.0)
        if name == "late":
            do.stop(connection, run)
        assert do.run_row(connection, run)["state"] == "retrying"
        found.append((run, *pids(file)))
        assert do.alive(found[-1][1])
    with do.running(settings, engine=LastingEngine(settings)):
        for run, pid in found:
            do.wait_state(connection, run, "stopped", timeout=30)
            assert not do.alive(pid)


@pytest.mark.parametrize("left", ["ended", "gone"])
def test_what_was_stopped_and_not_reported_is_stopped(
    connection: Connection, settings: Settings, tmp_path: Path, left: str
) -> None:
    """The runner that had to stop it has done so, and died: that is no failure, and nothing is begun again."""
    file = tmp_path / "file"
    with runner_apart(settings) as first:
        run = begin(connection, file)
        first.kill()
    do.stop(connection, run)
    (job,) = pids(file)
    os.kill(job, signal.SIGTERM)
    wait_for(lambda: not do.alive(job), 30, about="the job to end")
    (folder,) = (settings.spool / "lasting").iterdir()
    wait_for((folder / "end").exists, 30, about="its keeper's word")
    if left == "gone":
        shutil.rmtree(folder)
    with do.running(settings, engine=LastingEngine(settings)):
        row = do.wait_state(connection, run, "stopped", "failed", timeout=30)
    assert (row["state"], row["attempt"]) == ("stopped", 1)
    assert pids(file) == [job]


def test_what_served_serves_on(connection: Connection, settings: Settings) -> None:
    """A job says once that it is ready: the next runner does not wait for its word, and its signal comes once."""
    operator = do.operator(
        connection, "lasting", "streaming", python="tests.runner_jobs:serve", ready="api", ready_timeout="5s"
    )
    with runner_apart(settings) as first:
        run = do.start(connection, operator)
        wait_for(lambda: do.run_row(connection, run)["ready_at"], 30, about="ready")
        before = do.run_row(connection, run)
        first.kill()
    with do.running(settings, engine=LastingEngine(settings)) as heir:
        row = do.wait_state(connection, run, "running", epoch=before["epoch"] + 2, timeout=30)
        assert row["ready_at"] == before["ready_at"]
        wait_for(
            lambda: (job := heir.jobs.get(run)) and job.health and job.health.ready, 30, about="it to count as ready"
        )
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped", timeout=30)
    assert do.states(connection, run).count("ready") == 1


def test_a_runner_that_is_shut_down_leaves_them(connection: Connection, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with runner_apart(settings) as first:
        run = begin(connection, file)
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
    row = do.run_row(connection, run)
    assert (row["state"], row["attempt"]) == ("retrying", 1)
    with do.running(settings, engine=LastingEngine(settings)):
        do.wait_state(connection, run, "running", timeout=30)
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped", timeout=30)
    assert not do.alive(*pids(file))


def test_a_runner_that_lost_its_lease_lets_them_go(connection: Connection, settings: Settings, tmp_path: Path) -> None:
    """It thaws and finds its grants over: the jobs are another's, and it must not end them."""
    file = tmp_path / "file"
    with runner_apart(settings) as first:
        run = begin(connection, file)
        first.send_signal(signal.SIGSTOP)
        with do.running(settings, engine=LastingEngine(settings)):
            row = do.wait_state(connection, run, "running", epoch=3, timeout=30)
            first.send_signal(signal.SIGCONT)
            alive = "SELECT count(*) FROM pgsig_private.process WHERE ended_at IS NULL"
            wait_for(lambda: connection.execute(alive).fetchone() == (2,), 30, about="the frozen runner to join again")
            assert do.alive(*pids(file))
            Path(f"{file}.go").touch()
            assert do.wait_state(connection, run, "failed", timeout=30)["epoch"] == row["epoch"]
    assert len(pids(file)) == 1
