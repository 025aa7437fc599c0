"""A cgroup for each job, where the machine lets us: nothing escapes, everything is counted, nothing is left."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsig.runner import cgroup, mover, tree
from pgsig.runner.cgroup import Cell
from pgsig.runner.conformance import Job, Trial
from pgsig.runner.engine import Exit
from pgsig.runner.place import Spool
from pgsig.runner.process import ProcessEngine, with_figures
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import ROOT, Connection


def wait_until_gone(pid: int) -> None:
    """Of a killed process its cgroup lets go a moment before it is gone."""
    wait_for(lambda: not do.alive(pid), 5, about="the killed process to be gone")


@pytest.fixture
def cgroups() -> None:
    """Skips where there are none."""
    home = cgroup.Home.make(f"probe-{os.getpid()}")
    if home is None:
        pytest.skip("this process may not make cgroups of version 2")
    home.clear()


@pytest.fixture
def trial(cgroups: None, tmp_path: Path) -> Iterator[Trial]:
    with Trial(ProcessEngine, tmp_path) as found:
        pool = engine(found).pool
        wait_for(lambda: pool is None or pool.ready, 30, about="the fork server")
        yield found


def engine(trial: Trial) -> ProcessEngine:
    assert isinstance(trial.engine, ProcessEngine)
    return trial.engine


def cells(trial: Trial) -> list[str]:
    """The jobs' cgroups, without those of children that stand ready."""
    home, pool = engine(trial).home, engine(trial).pool
    assert home
    wait_for(lambda: pool is None or (pool.ready and not pool._asked), 30, about="the fork server")
    spares = {str(child.pid) for child in pool._spares} if pool else set()
    return sorted(entry.name for entry in home.path.iterdir() if entry.is_dir() and entry.name not in spares)


def start(trial: Trial, name: str, *, warm: bool) -> Job:
    return trial.start(python=f"tests.engine_jobs:{name}", env={"PYTHONPATH": str(ROOT)}, warm=warm)


@pytest.mark.parametrize("warm", [True, False])
def test_a_daemon_without_any_trace_of_its_job_is_ended(trial: Trial, warm: bool) -> None:
    """No parent, no group, no session, no environment by which it could be known."""
    job = start(trial, "leaves_a_stranger", warm=warm)
    assert job.handle.sealed == warm
    end = trial.end(job)
    assert end.code == 0, job.output
    size = len(job.output)
    assert size
    stranger = int(job.output.split()[0])
    wait_until_gone(stranger)
    assert len(job.output) == size


@pytest.mark.parametrize("warm", [True, False])
def test_killing_takes_everything_at_once(trial: Trial, warm: bool) -> None:
    job = start(trial, "leaves_a_stranger_and_stays", warm=warm)
    trial.says(job, "\n")
    stranger = int(job.output.split()[0])
    trial.engine.kill(job.handle)
    assert trial.end(job).signal == "SIGKILL"
    wait_until_gone(stranger)


def test_what_was_started_before_a_job_was_put_into_its_cgroup_is_put_there_too(cgroups: None) -> None:
    """A runner that is held up between the start of a command and that: what counts is all that the command has become meanwhile."""
    home = cgroup.Home.make(f"late-{os.getpid()}")
    assert home
    script = "sh -c 'sleep 600 & echo; wait' & echo; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout
            assert [process.stdout.readline(), process.stdout.readline()] == [b"\n", b"\n"]
            cell = home.cell(str(process.pid))
            assert cell.take(process.pid)
            assert len((cell.path / "cgroup.procs").read_text().split()) == 3
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            assert home.clear()


def test_nobody_waits_for_a_command_to_be_put_into_its_cgroup(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """But its own end, or its number could be another's by then. What has ended before its turn is not put there at all."""
    begun, go, take = threading.Event(), threading.Event(), Cell.take

    def slowly(cell: Cell, pid: int) -> bool:
        begun.set()
        return go.wait(30) and take(cell, pid)

    monkeypatch.setattr(Cell, "take", slowly)
    try:
        first, second = trial.sh("exit 3"), trial.sh("exit 4")
        assert trial.end(second).code == 4
        assert begun.wait(30)
        trial.until(first.handle.child.ended, "the first one to end")
        assert [trial.poll(first) for _ in range(3)] == [None] * 3
        assert tree.look(first.handle.root.pid)
    finally:
        go.set()
    assert trial.end(first).code == 3
    assert cells(trial) == []


def test_a_command_is_put_into_its_cgroup_when_nothing_begins_and_not_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: queue.SimpleQueue[int] = queue.SimpleQueue()

    def take(_: Cell, pid: int) -> bool:
        taken.put(pid)
        return True

    monkeypatch.setattr(Cell, "take", take)
    cell = Cell(tmp_path / "cell")
    with contextlib.closing(mover.Mover()) as line:
        monkeypatch.setattr(mover, "LONGEST", 600.0)
        move = line.begun(cell, 1)
        assert move
        assert taken.get(timeout=30) == 1
        wait_for(lambda: line.settle(move), 30, about="it to be there")
        monkeypatch.setattr(mover, "QUIET", 600.0)
        ended = line.begun(cell, 2)
        assert ended
        assert line.settle(ended) is False
        monkeypatch.setattr(mover, "LONGEST", 0.001)
        line.begun(cell, 3)
        assert taken.get(timeout=30) == 3
        monkeypatch.setattr(mover, "LONGEST", 600.0)
        line.begun(cell, 4)
    assert taken.empty()


def test_what_nobody_waited_for_is_counted(trial: Trial) -> None:
    """wait4 knows only of children that were waited for."""
    job = start(trial, "lets_another_burn", warm=True)
    end = trial.end(job)
    assert end.code == 0
    assert end.cpu_seconds is not None
    assert end.cpu_seconds >= 0.2


def test_nothing_is_left(trial: Trial) -> None:
    """Not of a job, also if it made cgroups of its own, and not of the runner."""
    home = engine(trial).home
    assert home
    jobs = [start(trial, "waits", warm=warm) for warm in (True, False)]
    for job in jobs:
        trial.says(job, "ready")
        wait_for((home.path / str(job.handle.root.pid)).exists, 30, about="its cgroup")
        (home.path / str(job.handle.root.pid) / "own").mkdir()
    assert cells(trial) == sorted(str(job.handle.root.pid) for job in jobs)
    for job in jobs:
        job.place.write("go", "")
        assert trial.end(job).code == 5
    assert cells(trial) == []
    trial.engine.close()
    assert not home.path.exists()


def test_figures_and_the_end_of_memory(tmp_path: Path) -> None:
    """As the kernel writes them: not every machine counts memory by cgroup."""
    cell = Cell(tmp_path)
    end = Exit(None, "SIGKILL", 0.5, 1000)
    assert with_figures(end, cell) == end
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (tmp_path / "memory.peak").write_text("123456789\n")
    (tmp_path / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n")
    assert with_figures(end, cell) == Exit(None, "SIGKILL", 2.5, 123456789)
    (tmp_path / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n")
    assert with_figures(end, cell) == Exit(None, "SIGKILL, out of memory", 2.5, 123456789)
    assert with_figures(Exit(1), cell) == Exit(1, "", 2.5, 123456789)


def test_the_next_runner_clears_what_a_dead_one_and_its_guard_left(
    cgroups: None, connection: Connection, database: str, tmp_path: Path
) -> None:
    """Even a process that nobody could know by anything but its cgroup."""
    operator = do.operator(connection, "stranger", "streaming", python="tests.engine_jobs:leaves_a_stranger_and_stays")
    spool = tmp_path / "spool"
    with do.runner_process(do.settings(database, spool, lease_seconds=30.0)) as runner:
        run = do.start(connection, operator)
        do.wait_state(connection, run, "running", timeout=30)
        wait_for(lambda: do.output(connection, run).strip(), 30, about="the stranger")
        stranger = int(do.output(connection, run).split()[0])
        for one in tree.census().values():
            if one.parent == runner.pid and b"pgsig.runner.guard" in Path(f"/proc/{one.pid}/cmdline").read_bytes():
                runner.send_signal(signal.SIGSTOP)  # or it would start another
                os.kill(one.pid, signal.SIGKILL)
        runner.kill()
        runner.wait()
        (folder,) = (spool / "runs").iterdir()
        home = cgroup.place(folder.name)
        assert home
        assert home.exists()
        assert do.alive(stranger)
        Spool(spool).close()
        assert not home.exists()
        wait_until_gone(stranger)
