"""Python callables without an interpreter of their own: they see what they would see in one, and nothing is lost with the fork server."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgsig.runner import tree, warm
from pgsig.runner.child import OwnChild
from pgsig.runner.conformance import Job, Trial
from pgsig.runner.engine import NotStarted
from pgsig.runner.process import ProcessEngine
from pgsig.runner.warm import WarmChild
from pgsig.settings import Settings
from tests.support import needs, wait_for
from tests.support_jobs import ROOT, alive

pytestmark = pytest.mark.skipif(not warm.possible(), reason="nothing is started warm here: it needs Linux")


class Uncaged(ProcessEngine):
    """Without cgroups, which would find what a fork server cannot."""

    uses_cgroups = False


HERE = {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    """Makes engines whose fork server is ready."""
    with contextlib.ExitStack() as stack:

        def make(**given: Any) -> Trial:
            trial = stack.enter_context(Trial(Uncaged, tmp_path, Settings(**given)))
            is_ready(trial)
            return trial

        yield make


@pytest.fixture
def trial(trials: Callable[..., Trial]) -> Trial:
    return trials()


def pool_of(trial: Trial) -> warm.Pool:
    engine = trial.engine
    assert isinstance(engine, ProcessEngine)
    assert engine.pool
    return engine.pool


def is_ready(trial: Trial) -> None:
    wait_for(lambda: pool_of(trial).ready, 30, about="the fork server")


def job(trial: Trial, name: str, *, warm: bool = True, **spec: Any) -> Job:
    """Start a callable of `tests.engine_jobs`, in the way it should be."""
    found = trial.start(python=f"tests.engine_jobs:{name}", **({"env": HERE, "warm": warm} | spec))
    assert isinstance(found.handle.child, WarmChild if warm else OwnChild)
    return found


def test_a_warm_job_sees_what_a_cold_one_sees(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, also as others see it, arguments, module path, folder, signals, files, time zone, encodings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside").mkdir()
    env = {"PYTHONPATH": f"{ROOT}:beside::{ROOT}", "OWN": "ä €", "TZ": "Asia/Tokyo", "EMPTY": ""}
    seen = []
    for warmly in (False, True):
        found = job(trial, "show", warm=warmly, env=env)
        assert trial.end(found).code == 0, found.output
        text = found.output.replace(str(found.place.folder), "FOLDER")
        about = json.loads(text)
        about["environ"]["PGSIG_RUN_ID"] = about["run"] = ""
        about["shown"] = sorted(line for line in about["shown"] if not line.startswith("PGSIG_RUN_ID="))
        seen.append(about)
    assert seen[0] == seen[1]
    assert seen[1]["environ"]["OWN"] == "ä €"
    assert seen[1]["zone"][0] == "JST"
    assert "PYTEST_CURRENT_TEST" not in seen[1]["environ"]


ENDS = {
    "returns": {}, "exits": {"CODE": "0"}, "exits 3": {"CODE": "3"}, "exits 256": {"CODE": "259"}, "exits -1": {"CODE": "-1"},
    "exits_with_text": {}, "raises": {}, "is_interrupted": {}, "vanishes": {}, "dies": {}, "segfaults": {},
    "leaves_things_open": {}, "has_a_daemon_thread": {}, "closes_its_output": {}, "forks": {}, "nowhere": {},
}  # fmt: skip


OUTER = {
    "main()",
    "main(sys.argv[1])",
    "child.call(target, server.known)",
    "call.main(target)",
}  # lines of the frames around a job


def test_it_ends_as_a_cold_one_ends(trial: Trial) -> None:
    """The same exit codes and signals, the same output but for the topmost frames, the same files."""
    for name, env in ENDS.items():
        seen = []
        for warmly in (False, True):
            found = job(trial, name.split()[0], warm=warmly, env={**HERE, **env})
            end = trial.end(found)
            lines = [line for line in found.output.splitlines() if "runner/" not in line and line.strip() not in OUTER]
            files = {file.name: file.read_text() for file in found.place.folder.iterdir() if file.name == "unflushed"}
            seen.append((replace(end, cpu_seconds=None, memory_peak=None), lines, files))
        assert seen[0] == seen[1], name
        if name == "leaves_things_open":
            assert seen[1][1] == ["thread", "at exit", "let go", "let go"]
            assert seen[1][2] == {"unflushed": "kept"}


def test_what_cannot_be_called_is_told_first(trial: Trial, tmp_path: Path) -> None:
    """Warm and cold. Where an import failed its traceback follows."""
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    (tmp_path / "whole.py").write_text("class Some:\n    value = 7\n")
    no_module = "cannot be imported: ModuleNotFoundError: No module named"
    for target, told, traced in (
        ("absent:main", f"absent {no_module} 'absent'", True),
        ("broken:main", f"broken {no_module} 'no_such_thing'", True),
        ("whole:main", "there is no function main in whole", False),
        ("whole:Some.main", "there is no function Some.main in whole", False),
        ("whole:Some.value", "Some.value of whole is not a function", False),
    ):
        for warmly in (False, True):
            found = trial.start(python=target, cwd=str(tmp_path), warm=warmly)
            assert isinstance(found.handle.child, WarmChild if warmly else OwnChild)
            assert trial.end(found).code == 1
            first, *rest = found.output.splitlines()
            assert first == f"pgsig: {target}: {told}"
            assert any(line.startswith("Traceback") for line in rest) == bool(rest) == traced, found.output


def test_code_that_changed_is_seen(trial: Trial, tmp_path: Path) -> None:
    """Also of a module whose name the server knows from elsewhere."""
    for name in ("changing", "queue"):
        for n in (1, 2):
            (tmp_path / f"{name}.py").write_text(f"def main():\n    print('version', {n} {'+ 0' * n})\n")
            found = trial.start(python=f"{name}:main", cwd=str(tmp_path))
            assert isinstance(found.handle.child, WarmChild)
            assert trial.end(found).code == 0
            assert found.output == f"version {n}\n"


def test_modules_are_imported_beforehand(
    trials: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the server, once. One that cannot be imported is told and missed by nobody else."""
    (tmp_path / "preloaded.py").write_text("import os\nBY = os.getpid()\n")
    monkeypatch.chdir(tmp_path)
    trial = trials(preload=("preloaded", "no_such_module"))
    found = job(trial, "imported_by")
    assert trial.end(found).code == 0, found.output
    assert found.output == "True False\n"
    assert "PGSIG_PRELOAD names no_such_module" in capfd.readouterr().err


def test_jobs_do_not_share_their_chance(trials: Callable[..., Trial]) -> None:
    """numpy's generator, too, is not the same in all of them because the server had imported it."""
    needs("python:numpy")
    trial = trials(preload=("numpy",))
    rolled = []
    for _ in range(3):
        found = job(trial, "rolls")
        assert trial.end(found).code == 0, found.output
        rolled += found.output.split()
    assert len(set(rolled)) == 6


def test_what_a_fork_cannot_honour_starts_cold(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('customised', flush=True)\n")
    target = "tests.engine_jobs:returns"
    for env in (
        {"PYTHONHASHSEED": "7"}, {"PYTHONUNBUFFERED": ""}, {"LC_ALL": "C"}, {"HOME": "/"}, {"OMP_NUM_THREADS": "1"},
        {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, {"LARGE": "x" * 100_000, "ALSO": "x" * 100_000, "AND": "x" * 100_000},
    ):  # fmt: skip
        found = trial.start(python=target, env={**HERE, **env})
        assert isinstance(found.handle.child, OwnChild), env
        assert trial.end(found).code == 0, found.output
        assert ("customised" in found.output) == ("PYTHONPATH" in env)
    assert isinstance(job(trial, "returns").handle.child, WarmChild)
    with pytest.raises(NotStarted, match=r"No such file or directory: /no/such/folder") as refused:
        trial.start(python=target, cwd="/no/such/folder")
    assert refused.value.hopeless


def test_a_daemon_that_a_warm_job_leaves_is_found(trial: Trial) -> None:
    """By nothing but the mark in the environment that the fork has overwritten: parent, group and session are others."""
    found = job(trial, "leaves_a_daemon")
    assert trial.end(found).code == 0
    assert "daemon" in found.output
    size = len(found.output)
    trial.until(lambda: True, "")
    with contextlib.suppress(pytest.fail.Exception):
        wait_for(lambda: len(found.output) > size, 0.2)
    assert len(found.output) == size


def test_jobs_outlive_their_fork_server(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on, can be stopped, leave nothing, and ends are told as far as they can be known. The next job gets another server."""
    monkeypatch.setattr("pgsig.runner.process.POOL_AGAIN", 0.0)
    ending, killed, asked = (job(trial, "waits") for _ in range(3))
    leaving = job(trial, "leaves_a_daemon")
    for one in (ending, killed, asked):
        trial.says(one, "ready")
    pool = pool_of(trial)
    os.kill(pool.pid, signal.SIGKILL)
    ending.place.write("go", "")
    assert trial.end(ending).code == 5
    os.kill(killed.handle.root.pid, signal.SIGKILL)
    end = trial.end(killed)
    assert (end.code, end.signal) == (None, "an unknown signal, its fork server was killed too")
    trial.engine.stop(asked.handle)
    assert trial.end(asked).code is None
    assert trial.end(leaving).code == 0
    size = len(leaving.output)
    assert pool.dead
    next_one = trial.start(python="tests.engine_jobs:returns", env=HERE)
    assert trial.end(next_one).code == 0
    is_ready(trial)
    assert pool_of(trial) is not pool
    assert trial.end(job(trial, "returns")).code == 0
    assert len(leaving.output) == size


def test_a_fork_server_that_hangs_holds_up_nobody(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands ready is used, the next start cold; ends are told when it is taken for dead."""
    monkeypatch.setattr(warm, "SILENT_FOR", 1.0)
    waiting = job(trial, "waits")
    trial.says(waiting, "ready")
    is_ready(trial)
    pool = pool_of(trial)
    os.kill(pool.pid, signal.SIGSTOP)
    kinds = []
    for _ in range(warm.SPARES + 2):
        found = trial.start(python="tests.engine_jobs:exits", env={**HERE, "CODE": "4"})
        kinds.append(type(found.handle.child))
        assert trial.end(found).code == 4
    assert OwnChild in kinds
    waiting.place.write("go", "")
    assert trial.end(waiting).code == 5
    assert not alive(pool.pid)


def test_a_fork_server_that_loses_its_children_gives_others(trial: Trial) -> None:
    is_ready(trial)
    for pid in [child.pid for child in pool_of(trial)._spares]:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not alive(pid))  # type: ignore[misc]
    assert trial.end(job(trial, "returns")).code == 0


def test_nothing_of_the_server_is_left(trials: Callable[..., Trial]) -> None:
    trial = trials()
    pool = pool_of(trial)
    children = [pool.pid, *(child.pid for child in pool._spares)]
    trial.engine.close()
    for pid in children:
        wait_for(lambda pid=pid: not alive(pid), about="a child to end")  # type: ignore[misc]


def test_figures(trial: Trial) -> None:
    """Processor time and memory of the job with its children, warm and cold."""
    # What a job's peak is told by has to be more than this very program's, which a cold child is for a moment.
    least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 100_000_000
    for warmly in (True, False):
        end = trial.end(job(trial, "burns", warm=warmly, env={**HERE, "BYTES": str(least)}))
        assert end.code == 0
        assert end.cpu_seconds is not None
        assert 0.4 <= end.cpu_seconds < 2.0
        assert end.memory_peak is not None
        assert least < end.memory_peak < least + 200e6
    small = trial.end(trial.sh("exit 0"))
    # A small one's peak is hidden behind that of the runner, which it was for a moment.
    assert small.memory_peak is None or small.memory_peak < 50e6
    assert small.cpu_seconds is not None
    assert small.cpu_seconds < 0.3


def test_what_another_job_has_left_behind_holds_up_no_end(trial: Trial) -> None:
    """The daemon of a job that still runs: it is nothing of this one's, and stays."""
    other = job(trial, "leaves_a_daemon_and_stays")
    trial.says(other, "daemon")
    trial.until(lambda: _orphans(trial), "the daemon to be the fork server's own")
    is_ready(trial)
    assert trial.end(job(trial, "returns")).code == 0
    assert _orphans(trial)
    trial.engine.kill(other.handle)
    trial.end(other)
    # Of what is killed its cgroup lets go a moment before it is gone.
    trial.until(lambda: not _orphans(trial), "the daemon to be gone")


def _orphans(trial: Trial) -> list[int]:
    """Living children of the fork server that lead neither a session nor a job."""
    pool = pool_of(trial)
    found = tree.census().values()
    return [one.pid for one in found if one.parent == pool.pid and not one.zombie and one.session != one.pid]


def test_a_server_that_cannot_fork_leaves_it_to_cold_starts(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    """Row 46, where there are too many processes already."""
    pids = Path("/sys/fs/cgroup/pids")
    if not os.access(pids, os.W_OK):
        pytest.skip("needs a pids controller of cgroup version 1 to write to")
    pool, limit = pool_of(trial), pids / f"pgsig-test-{os.getpid()}"
    wait_for(lambda: pool.ready and not pool._asked, 30, about="all children that are to stand ready")
    limit.mkdir()
    try:
        (limit / "cgroup.procs").write_text(str(pool.pid))
        (limit / "pids.max").write_text("1")
        kinds = []
        for _ in range(warm.SPARES + 1):
            found = trial.start(python="tests.engine_jobs:returns", env=HERE)
            kinds.append(type(found.handle.child))
            assert trial.end(found).code == 0
        assert kinds == [*[WarmChild] * warm.SPARES, OwnChild]
        assert "Resource temporarily unavailable" in caplog.text
    finally:
        (pids / "cgroup.procs").write_text(str(pool.pid))
        limit.rmdir()


def test_no_process_is_left_alone_for_want_of_file_descriptors(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was started, and could not be followed: it is ended, and that is told as a start that failed and may be tried again."""
    seen: list[int] = []

    def refuse(pid: int) -> int:
        seen.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        with pytest.raises(NotStarted, match="Too many open files") as refused:
            trial.start(command=["sleep", "600"])
    assert not refused.value.hopeless
    assert not alive(seen[0])
