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
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pgsig.condition.duration import seconds
from pgsig.model import Kind
from pgsig.runner import cgroup, tree
from pgsig.store.jobs import Grant

# All that a job gets of its runner's environment, beside what `pass_env` names: a secret must not reach every job.
INHERITED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "SHELL", "TMPDIR", "TZ", "USER")
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Place:
    """The folder of one grant. env: the whole environment of the job. mark: the variable by which its processes are known."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env
        self.output = folder / "output"
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

    def begin(self, name: str, text: str) -> None:
        """Write a file before there is a job that could read it."""
        with open(os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(text.encode())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """The folder of one runner, locked for as long as it lives. What dead runners left is removed with the processes they left.

    mark: the name of the runner's folder, random, and in the environment of all its jobs as PGSIG_RUNNER.
    """

    def __init__(self, root: Path) -> None:
        runs = root.resolve() / "runs"
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.mark = secrets.token_hex(8)
        self.folder = runs / self.mark
        self.folder.mkdir(mode=0o700)
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
        folder = self.folder / f"{grant.id}-{grant.epoch}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
        env = environment(grant, folder, self.mark)
        if grant.kind == Kind.STREAMING:
            env["PGSIG_PORT"] = str(free_port())
        place = Place(folder, env)
        place.begin("run.json", document(grant, env, url=url, token=token))
        place.begin("url", url)
        place.begin(
            "curl",
            f'silent\nshow-error\nheader = "Authorization: Bearer {token}"\nheader = "Content-Type: application/json"\n',
        )
        return place

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


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
    encoded = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in parts.items()]
    encoded += [f'"cause": {grant.cause}', f'"checkpoint": {grant.checkpoint or "null"}']
    return "{" + ",\n ".join(encoded) + "}\n"


def environment(grant: Grant, folder: Path, mark: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a job: little of the runner's own, then what the operator declares, then PGSIG_*."""
    env = surroundings(map(str, grant.spec.get("pass_env") or ()), own)
    env |= {str(name): str(value) for name, value in (grant.spec.get("env") or {}).items()}
    if wanted_every := heartbeat(grant.spec):
        env["PGSIG_HEARTBEAT"] = f"{wanted_every:g}"
    return env | {
        "PGSIG_RUN_FILE": str(folder / "run.json"),
        "PGSIG_RUN_DIR": str(folder),
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
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH') or USUAL_PATH}"
    env["PYTHONUNBUFFERED"] = "1"  # output is wanted when it is written, not when 8 KiB have come together
    return env
