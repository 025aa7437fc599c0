"""The engine of local processes: any command line, or a Python callable.

A job leads a session of its own. It is over when its first process has ended and nothing else of its tree is alive: what a job leaves
behind is killed, so that the next attempt never meets it. The first process is reaped last: until then its number is not
given to another, and the group that it leads is surely its own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from pgsig.runner import tree
from pgsig.runner.cgroup import Cell, Home
from pgsig.runner.child import Child, OwnChild
from pgsig.runner.engine import Exit, NotStarted
from pgsig.runner.mover import Move, Mover
from pgsig.runner.place import Place, surroundings
from pgsig.runner.warm import SPARES, Pool, WarmChild, possible
from pgsig.settings import Settings
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
POOL_AGAIN = 2.0  # seconds from one fork server to the next, at least

log = logging.getLogger(__name__)


class ProcessHandle:
    """A process that was started, and what is known of its end. sealed: it began in its cgroup; all that it starts is there. move: its
    way there, until its end."""

    def __init__(self, child: Child, mark: bytes, cell: Cell | None = None, *, sealed: bool = False) -> None:
        self.child = child
        self.cell = cell
        self.sealed = sealed
        self.move: Move | None = None
        found = tree.look(child.pid)
        self.root = tree.Root(child.pid, found.started if found else 0, mark)
        self.ended_at: float | None = None
        self.searched = False
        self.reaped = False
        self.look_at = 0.0
        self.pause = 0.005

    @property
    def identity(self) -> str:
        return f"{self.root.pid} {self.root.started}"

    @property
    def wake(self) -> int | None:
        return self.child.pidfd if self.ended_at is None else None


class ProcessEngine:
    """Starts, stops and reloads processes of this machine, as the user that the runner runs as.

    mark: the runner's; without one nothing is started warm. pool: the fork server, where there can be one.
    home: the cgroup for those of the jobs, likewise.
    """

    name = "process"
    uses_cgroups = True
    lasting = False

    def __init__(self, settings: Settings | None = None, mark: str = "") -> None:
        self.preload = settings.preload if settings else ()
        self.home = Home.make(mark) if mark and self.uses_cgroups else None
        self._mover = Mover() if self.home else None
        self._own = {**surroundings(), "PGSIG_RUNNER": mark}
        self.pool: Pool | None = self._new_pool() if mark and possible() else None
        self._pool_since = monotonic()
        self._census: dict[int, tree.Process] = {}
        self._census_at = 0.0

    def expect(self, starts: int) -> None:
        if self.pool and starts > SPARES:
            self.pool.expect(starts)

    def start(self, grant: Grant, place: Place) -> ProcessHandle:
        line = command_line(grant)
        cwd = str(grant.spec.get("cwd") or Path.cwd())
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            output = os.open(place.output, flags, 0o600)
        except OSError as error:
            raise NotStarted(f"{error.strerror}: {place.output}", hopeless=False) from error
        try:
            child = self._warm(grant, place, cwd, output) or _cold(line, place, cwd, output)
        finally:
            os.close(output)
        sealed = isinstance(child, WarmChild) and child.in_cell
        cell = self.home.cell(str(child.pid)) if self.home else None
        job = ProcessHandle(child, place.mark, cell, sealed=sealed)
        if self._mover:
            job.move = self._mover.begun(None if sealed else cell, child.pid)
        return job

    def _warm(self, grant: Grant, place: Place, cwd: str, output: int) -> Child | None:
        """A start without an interpreter, where the job and the machine allow it."""
        target = grant.spec.get("python")
        if not target or grant.spec.get("warm") is False or not self.pool:
            return None
        if self.pool.dead and monotonic() > self._pool_since + POOL_AGAIN:
            log.warning("the fork server ended: starting another")
            self.pool, self._pool_since = self._new_pool(), monotonic()
        # Where the folder cannot be entered, a cold start says why.
        if self.pool.dead or not self.pool.honours(place.env) or not os.access(cwd, os.X_OK) or not Path(cwd).is_dir():
            return None
        return self.pool.start(target, place.env, cwd, output)

    def poll(self, job: ProcessHandle) -> Exit | None:
        now = monotonic()
        if job.ended_at is None:
            if job.child.ended():
                # What it has left is looked for at the next poll: one look then serves all that ended together.
                job.ended_at = now
            return None
        if now < job.look_at or not self._settled(job):
            return None
        if not job.cell and not job.searched:
            job.searched = True
            if end := job.child.alone():
                return self._ended(job, end)
        if self._left(job, now):
            job.look_at, job.pause = now + job.pause, min(job.pause * 2, LONGEST_LOOK)
            return None
        end = job.child.reap()
        return self._ended(job, end) if end else None

    def _settled(self, job: ProcessHandle) -> bool:
        """Whether an ended job is in its cgroup, or never will be. Until then its number must not be given to another."""
        if self._mover and job.move and job.cell:
            there = self._mover.settle(job.move)
            if there is None:
                return False
            if not there:
                job.cell = None
        job.move = None
        return True

    def _left(self, job: ProcessHandle, now: float) -> bool:
        """Whether something of an ended job was alive. It is killed."""
        if job.cell and job.cell.populated:
            job.cell.kill()
            return True
        if job.cell and job.sealed:
            return False
        # Before it was put into its cgroup it may have started something.
        if self._census_at <= max(job.ended_at or 0.0, job.look_at):
            self._census, self._census_at = tree.census(), now
        return tree.kill(job.root, self._census) > 0

    def _ended(self, job: ProcessHandle, end: Exit) -> Exit:
        job.reaped = True
        if job.cell:
            end = with_figures(end, job.cell)
            job.cell.remove()
        return end

    def _new_pool(self) -> Pool:
        return Pool(self._own, self.preload, self.home.path if self.home else None)

    def stop(self, job: ProcessHandle) -> None:
        self._signal_group(job, signal.SIGTERM)

    def kill(self, job: ProcessHandle) -> None:
        if not job.reaped:
            if job.cell:
                job.cell.kill()
            # The group first, which is quick; then whoever left it.
            self._signal_group(job, signal.SIGKILL)
            tree.kill(job.root)

    def _signal_group(self, job: ProcessHandle, number: signal.Signals) -> None:
        """The group's number is its own until the first process is reaped: by us, or by anybody where its fork server is dead."""
        if not job.reaped and not (job.child.orphan and job.child.ended()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(job.root.pid, number)

    def reload(self, job: ProcessHandle, by: str) -> bool:
        """Only the first process gets it: others of the group may have no handler, and would die of it."""
        if job.ended_at is not None or by not in RELOAD_SIGNALS or (job.child.orphan and job.child.ended()):
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
        if self._mover:
            self._mover.close()
        if self.pool:
            self.pool.close()
        if self.home:
            self.home.clear()


def _cold(line: Sequence[str], place: Place, cwd: str, output: int) -> Child:
    try:
        process = subprocess.Popen(
            line, cwd=cwd, env=place.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, close_fds=True,
        )  # fmt: skip
    except OSError as error:
        # Popen names the folder where that is what is missing, and the program otherwise.
        raise NotStarted(f"{error.strerror}: {error.filename or line[0]}", hopeless=error.errno in HOPELESS) from error
    except (ValueError, UnicodeError, subprocess.SubprocessError) as error:
        raise NotStarted(str(error), hopeless=True) from error
    try:
        return OwnChild(process)
    except OSError as error:  # no file descriptor is left to follow it by
        process.kill()
        process.wait()
        raise NotStarted(f"{error.strerror}: pidfd", hopeless=False) from error


def with_figures(end: Exit, cell: Cell) -> Exit:
    """An end with what a cgroup knows better: of all that was in it, also of what nobody has waited for."""
    why = f"{end.signal}, out of memory" if end.signal and cell.out_of_memory else end.signal
    # What a command did before it was put there, its cgroup does not know.
    cpu_seconds = max((known for known in (cell.cpu_seconds, end.cpu_seconds) if known is not None), default=None)
    return Exit(end.code, why, cpu_seconds, cell.memory_peak or end.memory_peak)


def command_line(grant: Grant) -> Sequence[str]:
    """The arguments to start a grant's job with, the program first; no shell reads them. Raises NotStarted."""
    command, target = grant.spec.get("command"), grant.spec.get("python")
    if isinstance(command, list) and command and all(isinstance(part, str) for part in command):
        return command
    if isinstance(target, str) and target:
        return [sys.executable, CALL, target]
    raise NotStarted("the operator names neither a command (a list of texts) nor a python callable", hopeless=True)
