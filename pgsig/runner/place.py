"""A run's folder in the spool, and the environment it is started with. Everything here is readable by the runner's user alone.

run.json   what the run is and why, and how to reach its runner: PGSIG_RUN_FILE names it
url, curl  the same for shells:  curl -sK "$PGSIG_RUN_DIR/curl" "$(cat "$PGSIG_RUN_DIR/url")/emit" -d '{"key": "a.b"}'
output     stdout and stderr: a file and not a pipe, so that a runner that is busy or frozen never holds up a job
reload     the signals of the last reload by a Unix signal
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pgsig.condition.duration import seconds
from pgsig.model import Kind
from pgsig.runner import cgroup, tree
from pgsig.runner.guard import KEEP
from pgsig.store.jobs import Grant

# All that a job gets of its runner's environment, beside what `pass_env` names: a secret must not reach every job.
INHERITED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "SHELL", "TMPDIR", "TZ", "USER")
BESIDE = str(Path(sys.executable).parent)
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

FILES = {"run.json", "url", "curl", "output"}
MOST_FREE = 64  # folders that are kept
LARGEST_FREE = 65536  # bytes of a file in one


class Place:
    """The folder of one grant. env: the whole environment of the job. mark: the variable by which its processes are known. give_back:
    where it goes when nobody needs it any more, instead of being removed."""

    def __init__(self, folder: str, env: dict[str, str], give_back: Callable[[str], bool] | None = None) -> None:
        self.folder = Path(folder)
        self.env = env
        self.output = self.folder / "output"
        self._give_back = give_back
        self.mark = f"PGSIG_RUN_FILE={env['PGSIG_RUN_FILE']}".encode()

    def write(self, name: str, text: str) -> None:
        """Write a file under its final name at once: a job never reads half of it."""
        draft = self.folder / f".{name}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(self.folder / name)

    def note(self, text: str) -> None:
        """Say something in the job's output, on a line of its own."""
        with contextlib.suppress(OSError):
            file = os.open(self.output, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                size = os.fstat(file).st_size
                in_a_line = size > 0 and os.pread(file, 1, size - 1) != b"\n"
                os.write(file, (b"\n" if in_a_line else b"") + f"[pgsig: {text}]\n".encode())
            finally:
                os.close(file)

    def remove(self) -> None:
        if not (self._give_back and self._give_back(str(self.folder))):
            shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """The folder of one runner, locked for as long as it lives. What dead runners left is removed with the processes they left.

    mark: the name of the runner's folder, random, and in the environment of all its jobs as PGSIG_RUNNER. reuses: whether the folder of
    a job that has ended may become that of another: to make and remove one takes a file system longer than a short job runs.
    """

    def __init__(self, root: Path) -> None:
        runs = root.resolve() / "runs"
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.mark = secrets.token_hex(8)
        self.folder = runs / self.mark
        self.folder.mkdir(mode=0o700)
        self.reuses = False
        self._root = str(self.folder)
        self._free: deque[str] = deque()
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for other in runs.iterdir():
            if other != self.folder:
                self._clear(other)

    def _clear(self, folder: Path) -> None:
        try:
            lock = os.open(folder / "lock", os.O_RDWR)
        except OSError:
            return  # being made, or being removed
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kill_orphans(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)

    def place(self, grant: Grant, *, url: str, token: str) -> Place:
        """Make the folder of a grant. url, token: where the job reaches its runner."""
        # By its name the guard knows what to end with the lease, also when it was told nothing.
        folder = f"{self._root}/{grant.id}-{grant.epoch}{KEEP if grant.spec.get('on_lease_loss') == 'keep' else ''}"
        self._make(folder)
        env = environment(grant, folder, self.mark)
        if grant.kind == Kind.STREAMING:
            env["PGSIG_PORT"] = str(free_port())
        _write(f"{folder}/run.json", document(grant, env, url=url, token=token))
        _write(f"{folder}/url", url)
        header = f'header = "Authorization: Bearer {token}"\nheader = "Content-Type: application/json"\n'
        _write(f"{folder}/curl", f"silent\nshow-error\n{header}")
        return Place(folder, env, self._take_back)

    def _make(self, folder: str) -> None:
        if os.path.exists(folder):  # noqa: PTH110 - in every start
            shutil.rmtree(folder)
        with contextlib.suppress(IndexError, OSError):
            os.rename(self._free.pop(), folder)  # noqa: PTH104
            return
        os.mkdir(folder, 0o700)  # noqa: PTH102

    def _take_back(self, folder: str) -> bool:
        """Keep the folder of a job that has ended for another. False: it is not as it was made, or there are enough."""
        if not self.reuses or len(self._free) >= MOST_FREE:
            return False
        try:
            with os.scandir(folder) as entries:
                found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
            if found.keys() != FILES or not all(_untouched(about) for about in found.values()):
                return False
            if found["output"].st_size:
                os.truncate(f"{folder}/output", 0)
            _write(f"{folder}/run.json", "")  # nothing of one run is left to the next
            _write(f"{folder}/curl", "")
        except OSError:
            return False
        self._free.append(folder)
        return True

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _write(path: str, text: str) -> None:
    """Write a file before there is a job that could read it. One that is there keeps its size, filled up with spaces: to give blocks back
    and take them again is what takes time."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        data = text.encode()
        os.write(file, data.ljust(os.fstat(file).st_size))
    finally:
        os.close(file)


def _untouched(about: os.stat_result) -> bool:
    """Whether a file is a small one of ours alone: no link leads to it, nobody else may read it."""
    return about.st_mode == stat.S_IFREG | 0o600 and about.st_nlink == 1 and about.st_size <= LARGEST_FREE


def kill_orphans(mark: str) -> bool:
    """Kill what is left of the jobs of the runner with this mark. False: something cannot be killed."""
    wait = threading.Event().wait
    left = cgroup.place(mark)
    if left and left.exists():
        cgroup.Home(left).clear()
    return tree.kill_until_gone(lambda: tree.carriers(f"PGSIG_RUNNER={mark}".encode()), wait)


def free_port() -> int:
    """A port of the loopback interface that nobody uses. Where somebody takes it before the job does, the next attempt gets another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def heartbeat(spec: Mapping[str, Any]) -> float | None:
    """Seconds between two signs of life that a definition asks for, or None. Raises ValueError where it cannot be used."""
    asked = (spec.get("live") or {}).get("heartbeat")
    return seconds(asked) if asked else None


def document(grant: Grant, env: Mapping[str, str], *, url: str, token: str) -> str:
    """The content of run.json. Cause and checkpoint go in as the text that they are: nobody here needs to be able to read them."""
    parts = {
        "id": grant.id, "epoch": grant.epoch, "attempt": grant.attempt, "generation": grant.generation,
        "namespace": grant.namespace, "workflow": grant.workflow, "operator": grant.operator, "subject": grant.subject,
        "kind": grant.kind, "action": grant.action, "params": grant.params, "since": grant.since, "url": url, "token": token,
        "heartbeat": heartbeat(grant.spec), "port": int(env["PGSIG_PORT"]) if "PGSIG_PORT" in env else None,
    }  # fmt: skip
    return f'{json.dumps(parts)[:-1]}, "cause": {grant.cause}, "checkpoint": {grant.checkpoint or "null"}}}\n'


def environment(grant: Grant, folder: str, mark: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a job: little of the runner's own, then what the operator declares, then PGSIG_*."""
    env = surroundings(map(str, grant.spec.get("pass_env") or ()), own)
    env |= {str(name): str(value) for name, value in (grant.spec.get("env") or {}).items()}
    if wanted_every := heartbeat(grant.spec):
        env["PGSIG_HEARTBEAT"] = f"{wanted_every:g}"
    return env | {
        "PGSIG_RUN_FILE": f"{folder}/run.json",
        "PGSIG_RUN_DIR": folder,
        "PGSIG_RUN_ID": str(grant.id),
        "PGSIG_ATTEMPT": str(grant.attempt),
        "PGSIG_NAMESPACE": grant.namespace,
        "PGSIG_WORKFLOW": grant.workflow,
        "PGSIG_OPERATOR": grant.operator,
        "PGSIG_SUBJECT": grant.subject,
        "PGSIG_PARAMS": json.dumps(grant.params),
        "PGSIG_RUNNER": mark,
    }


def surroundings(more: Iterable[str] = (), own: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every job gets of its runner's environment, and the variables named in `more`."""
    own = os.environ if own is None else own
    env = {name: own[name] for name in (*INHERITED, *more) if name in own}
    # The runner's own Python first: `python train.py` is then the one that pgsig is installed for.
    env["PATH"] = f"{BESIDE}{os.pathsep}{own.get('PATH') or USUAL_PATH}"
    env["PYTHONUNBUFFERED"] = "1"  # output is wanted when it is written, not when 8 KiB have come together
    return env
