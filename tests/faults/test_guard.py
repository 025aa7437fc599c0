"""A guard alone, with processes that only look like jobs: what it ends when the lease is over, and what not."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsig.runner import fence as fences
from pgsig.runner import tree
from pgsig.runner.fence import TRIES, Fence
from pgsig.runner.guard import boottime
from tests.support import wait_for

pytestmark = pytest.mark.faults
if not Path("/proc/self/environ").exists():
    pytest.skip("what a guard was not told of can be found by /proc only", allow_module_level=True)

MARK = "0123456789abcdef"


@contextlib.contextmanager
def process(folder: str, mark: str = MARK) -> Iterator[subprocess.Popen[bytes]]:
    """One with the environment of a job, and nobody was told of it."""
    env = {"PGSIG_RUNNER": mark, "PGSIG_RUN_FILE": f"/spool/runs/{mark}/{folder}/run.json" if folder else "." * 64}
    found = subprocess.Popen(["sleep", "600"], env=env | {"PATH": "/bin:/usr/bin"}, start_new_session=True)
    try:
        yield found
    finally:
        found.kill()
        found.wait()


@pytest.fixture
def fence() -> Iterator[Fence]:
    made = Fence(MARK)
    yield made
    made.close()


def heard(fence: Fence) -> set[int]:
    """What the guard says that it is ending."""
    return wait_for(fence.hear, 30, about="the guard to fence")


def test_what_it_was_not_told_of_ends_too_and_nothing_else(fence: Fence) -> None:
    with (
        process("1-1") as job,
        process("2-1-keep") as kept,
        process("") as idle,
        process("1-1", "fedcba9876543210") as neighbours,
    ):
        fence.renewed(boottime(), 0.0)
        assert heard(fence) == {job.pid}
        wait_for(lambda: job.poll() is not None, 30, about="the job to end")
        # One that shows its mark only when the lease has been over for a while, as a child that has just taken its order.
        with process("3-1") as late:
            assert heard(fence) == {late.pid}
            wait_for(lambda: late.poll() is not None, 30, about="the late one to end")
        assert [one.poll() for one in (kept, idle, neighbours)] == [None, None, None]


def test_nothing_is_ended_while_there_is_a_lease(fence: Fence) -> None:
    with process("1-1") as job, process("2-1") as told:
        found = tree.look(told.pid)
        assert found
        fence.renewed(boottime(), 600.0)
        fence.began(f"{told.pid} {found.started}", b"PGSIG_RUN_FILE=/elsewhere/2-1/run.json")
        fence.renewed(boottime(), 600.0)
        with process("3-1") as witness:
            fence.renewed(boottime(), 0.0)
            # All of this lease is over now, and was not before: all three end at once.
            assert heard(fence) == {job.pid, told.pid, witness.pid}


@pytest.mark.parametrize("killed", [TRIES - 1, TRIES])
def test_a_guard_that_is_killed_before_it_is_there_is_started_again(
    monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    def start(*line: Any, **given: Any) -> subprocess.Popen[bytes]:
        begun.append(popen(*line, **given))
        if len(begun) <= killed:
            begun[-1].kill()
        return begun[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    if killed < TRIES:
        Fence(MARK).close()
    else:
        with pytest.raises(RuntimeError, match="did not start"):
            Fence(MARK)
    assert len(begun) == TRIES
    assert all(one.poll() is not None for one in begun)


def hang_from(monkeypatch: pytest.MonkeyPatch, number: int) -> list[subprocess.Popen[bytes]]:
    """Guards that are frozen as they begin, from this one on. Returns all that are started."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(*line: Any, **given: Any) -> subprocess.Popen[bytes]:
        begun.append(popen(*line, **given))
        if len(begun) > number:
            begun[-1].send_signal(signal.SIGSTOP)
        return begun[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    return begun


def test_all_tries_have_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fences, "PATIENCE", 0.3)
    begun = hang_from(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="did not start"):
        Fence(MARK)
    assert [one.poll() is not None for one in begun] == [True]


def test_a_guard_is_not_awaited_for_longer_than_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = hang_from(monkeypatch, 1)
    monkeypatch.setattr(fences, "PATIENCE", 3600.0)
    fence = Fence(MARK)
    fence.renewed(boottime(), 0.3)
    begun[0].kill()
    begun[0].wait()
    with pytest.raises(RuntimeError, match="did not start"):
        wait_for(lambda: fence.hear() and False, 60, about="it to give up")
    assert all(one.poll() is not None for one in begun)
