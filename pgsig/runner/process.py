"""The engine of local processes: any command line, or a Python callable.

A job leads a session of its own. It is over when its first process has ended and nothing else of its tree is alive: what a job leaves
behind is killed, so that the next attempt never meets it. The first process is reaped last: until then its number is not
given to another, and the group that it leads is surely its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from pgsig.runner import tree
from pgsig.runner.engine import Exit, NotStarted
from pgsig.runner.place import Place
from pgsig.store.jobs import Grant

CALL = str(Path(__file__).with_name("call.py"))
HOPELESS = {
    errno.ENOENT,
    errno.EACCES,
    errno.ENOEXEC,
    errno.ENOTDIR,
    errno.E2BIG,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
RELOAD_SIGNALS = {"HUP": signal.SIGHUP, "USR1": signal.SIGUSR1, "USR2": signal.SIGUSR2}
LONGEST_LOOK = 0.5  # seconds between two looks at a tree that does not die


class ProcessHandle:
    """A process that was started, and what is known of its end."""

    def __init__(self, process: subprocess.Popen[bytes], mark: bytes) -> None:
        self.process = process
        found = tree.look(process.pid)
        self.root = tree.Root(process.pid, found.started if found else 0, mark)
        # Before the process is reaped its number cannot go to another: this handle is surely its own.
        self.pidfd: int | None = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        self.ended_at: float | None = None
        self.look_at = 0.0
        self.pause = 0.005

    @property
    def identity(self) -> str:
        return f"{self.root.pid} {self.root.started}"

    @property
    def wake(self) -> int | None:
        return self.pidfd if self.ended_at is None else None


class ProcessEngine:
    """Starts, stops and reloads processes of this machine, as the user that the runner runs as."""

    name = "process"

    def __init__(self) -> None:
        self._census: dict[int, tree.Process] = {}
        self._census_at = 0.0

    def start(self, grant: Grant, place: Place) -> ProcessHandle:
        line = command_line(grant)
        cwd = str(grant.spec.get("cwd") or Path.cwd())
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            output = os.open(place.output, flags, 0o600)
        except OSError as error:
            raise NotStarted(f"{error.strerror}: {place.output}", hopeless=False) from error
        try:
            process = subprocess.Popen(
                line, cwd=cwd, env=place.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, close_fds=True,
            )  # fmt: skip
        except OSError as error:
            # Popen names the folder where that is what is missing, and the program otherwise.
            raise NotStarted(
                f"{error.strerror}: {error.filename or line[0]}", hopeless=error.errno in HOPELESS
            ) from error
        except (ValueError, UnicodeError, subprocess.SubprocessError) as error:
            raise NotStarted(str(error), hopeless=True) from error
        finally:
            os.close(output)
        return ProcessHandle(process, place.mark)

    def poll(self, job: ProcessHandle) -> Exit | None:
        now = monotonic()
        if job.ended_at is None:
            if os.waitid(os.P_PID, job.root.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            # What it has left is looked for at the next poll: one look then serves all that ended together.
            job.ended_at = now
            return None
        if now < job.look_at:
            return None
        if self._census_at <= max(job.ended_at, job.look_at):
            self._census, self._census_at = tree.census(), now
        if tree.kill(job.root, self._census):
            job.look_at, job.pause = now + job.pause, min(job.pause * 2, LONGEST_LOOK)
            return None
        code = job.process.wait()
        if job.pidfd is not None:
            os.close(job.pidfd)
            job.pidfd = None
        if code >= 0:
            return Exit(code)
        try:
            return Exit(None, signal.Signals(-code).name)
        except ValueError:  # a real-time signal has no name
            return Exit(None, f"signal {-code}")

    def stop(self, job: ProcessHandle) -> None:
        if job.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(job.root.pid, signal.SIGTERM)

    def kill(self, job: ProcessHandle) -> None:
        if job.process.returncode is None:
            # The group first, which is quick; then whoever left it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(job.root.pid, signal.SIGKILL)
            tree.kill(job.root)

    def reload(self, job: ProcessHandle, by: str) -> bool:
        """Only the first process gets it: others of the group may have no handler, and would die of it."""
        if job.ended_at is not None or by not in RELOAD_SIGNALS:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(job.root.pid, RELOAD_SIGNALS[by])
            return True
        return False

    def adopt(self, identity: str, place: Place) -> ProcessHandle | None:  # noqa: ARG002 - the protocol's
        """Nothing is adopted: the guard kills what a dead runner had started."""
        return None

    def close(self) -> None:
        self._census.clear()


def command_line(grant: Grant) -> Sequence[str]:
    """The arguments to start a grant's job with, the program first; no shell reads them. Raises NotStarted."""
    command, target = grant.spec.get("command"), grant.spec.get("python")
    if isinstance(command, list) and command and all(isinstance(part, str) for part in command):
        return command
    if isinstance(target, str) and target:
        return [sys.executable, CALL, target]
    raise NotStarted("the operator names neither a command (a list of texts) nor a python callable", hopeless=True)
