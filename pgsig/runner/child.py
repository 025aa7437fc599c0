"""The first process of a job, as its engine holds it: one of the runner's own children here, one of the fork server's in `warm`."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from typing import Protocol

from pgsig.runner.engine import Exit


class Child(Protocol):
    """pidfd: readable when the process has ended, None where there is none. Closed by `reap`."""

    pid: int
    pidfd: int | None

    @property
    def orphan(self) -> bool:
        """Whether somebody else may reap it at any time."""

    def ended(self) -> bool:
        """Whether the process has ended. Its number is not given to another before it is reaped."""

    def alone(self) -> Exit | None:
        """Its end, once it has ended and where it can be told without a search that it has left nothing. It is reaped by that."""

    def reap(self) -> Exit | None:
        """Its end, once it has ended. None: it cannot be told yet."""


class OwnChild:
    """A child of this process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.pidfd: int | None = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None

    @property
    def orphan(self) -> bool:
        return False

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def alone(self) -> Exit | None:
        return None

    def reap(self) -> Exit | None:
        _, status, usage = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        # Between fork and exec it was this very program, and the kernel counts that: what is not above it says nothing.
        peak, floor = usage.ru_maxrss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return exit_of(status, usage.ru_utime + usage.ru_stime, peak if peak > floor else None)


def exit_of(status: int, cpu_seconds: float, kibibytes: int | None) -> Exit:
    """What a wait status means."""
    memory = kibibytes * 1024 if kibibytes else None
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Exit(code, cpu_seconds=cpu_seconds, memory_peak=memory)
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-code}"
    return Exit(None, name, cpu_seconds, memory)
