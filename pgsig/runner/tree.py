"""Trees of processes, by /proc: who belongs to a job, and killing all of it.

A job's processes are: its first one, the group and the session that this one leads, everything descended from them,
and whoever carries the job's mark in its environment (a daemon that called setsid and lost its parent). A process id is
believed only together with its start time. Zombies count as dead. Where there is no /proc, the group is all that is known.
"""

# ruff: noqa: PTH112, PTH123, PTH208
# A thousand files are read for one look: pathlib would cost as much again.
from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc. started: clock ticks since boot."""

    pid: int
    parent: int
    group: int
    session: int
    started: int
    zombie: bool


@dataclass(frozen=True, slots=True)
class Root:
    """The first process of a job. mark: a `NAME=value` of its environment that nobody else has."""

    pid: int
    started: int
    mark: bytes


def look(pid: int) -> Process | None:
    """A process as it is now, or None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), fields[0] in (b"Z", b"X"))


def children(pid: int) -> list[int]:
    """What a process has started, and has not been left by."""
    with contextlib.suppress(OSError):
        found = b""
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += file.read()
        return [int(child) for child in found.split()]
    return []


def census() -> dict[int, Process]:
    """Every process that can be seen."""
    with contextlib.suppress(OSError):
        found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return {process.pid: process for process in found if process}
    return {}


def members(root: Root, processes: dict[int, Process]) -> list[Process]:
    """The living processes of a job."""
    first = processes.get(root.pid)
    reused = first is not None and first.started != root.started
    alike = [
        process for process in processes.values() if process.started >= root.started and process.pid != os.getpid()
    ]
    found = {
        process.pid: process
        for process in alike
        if not reused and root.pid in (process.pid, process.group, process.session)
    }
    _descend(found, alike)
    for process in alike:
        if process.pid not in found and not process.zombie and marked(process.pid, root.mark):
            found[process.pid] = process
    _descend(found, alike)
    return [process for process in found.values() if not process.zombie]


def _descend(found: dict[int, Process], candidates: Iterable[Process]) -> None:
    grown = True
    while grown:
        grown = False
        for process in candidates:
            if process.pid not in found and process.parent in found:
                found[process.pid] = process
                grown = True


def marked(pid: int, mark: bytes) -> bool:
    """Whether a process shows `mark` in its environment, as it was when it was started, or as a forked job has made it."""
    return b"\0" + mark + b"\0" in b"\0" + _environment(pid) + b"\0"


def mentions(pid: int, parts: Collection[bytes]) -> bool:
    """Whether any of `parts` stands in a process's environment."""
    environment = _environment(pid)
    return any(part in environment for part in parts)


def variable(pid: int, name: bytes) -> bytes:
    """`NAME=value` in a process's environment; b"" where it has none, or may not be read."""
    found = (pair for pair in _environment(pid).split(b"\0") if pair.startswith(name + b"="))
    return next(found, b"")


def _environment(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def carriers(mark: bytes) -> list[Process]:
    """The living processes with `mark` in their environment."""
    return [
        found
        for found in census().values()
        if not found.zombie and found.pid != os.getpid() and marked(found.pid, mark)
    ]


def send(process: Process, number: signal.Signals) -> None:
    """Signal a process, and never one that has got its number since."""
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(process.pid, number)
            return
        handle = os.pidfd_open(process.pid)
        try:
            now = look(process.pid)
            if now is not None and now.started == process.started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def kill(root: Root, processes: dict[int, Process] | None = None) -> int:
    """Send SIGKILL to all that is alive of a job. Returns how many that were: repeat until it is none."""
    living = members(root, census() if processes is None else processes)
    for process in living:
        send(process, signal.SIGKILL)
    if not living and not os.path.isdir("/proc/self"):
        with contextlib.suppress(OSError):
            os.killpg(root.pid, signal.SIGKILL)
    return len(living)


def kill_until_gone(living: Callable[[], list[Process]], wait: Callable[[float], object], *, rounds: int = 200) -> bool:
    """Kill what `living` finds, until it finds nothing. False: something is left that cannot be killed (now)."""
    for _ in range(rounds):
        found = living()
        if not found:
            return True
        for process in found:
            send(process, signal.SIGKILL)
        wait(0.01)
    return not living()
