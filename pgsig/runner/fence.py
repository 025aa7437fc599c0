"""The runner's end of its guard: starts it, keeps it alive, tells it what it has to know."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

from pgsig.runner.guard import boottime

log = logging.getLogger(__name__)
PATIENCE = 10.0  # seconds for a guard to begin, or to take what it is told
LEAST = 0.5  # seconds for one to begin where the lease is over: somebody has to end what still runs
TRIES = 3
PACKAGES = str(Path(__file__).resolve().parents[2])


class Fence:
    """A guard process and the line to it. Used by the supervising thread, and by the one that renews the lease.

    good_until: the end of the lease by `boottime()`, with the margin in which the guard does its work taken off.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.good_until = 0.0
        self._jobs: dict[int, str] = {}
        self._lock = threading.RLock()
        self._rest = b""
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._start(PATIENCE)

    def _start(self, within: float) -> None:
        until = monotonic() + within
        for _ in range(TRIES):  # it may be killed before it is there
            if (left := until - monotonic()) > 0 and self._begin(left):
                return
        raise RuntimeError("the guard process did not start: without it jobs could outlive their runner")

    def _begin(self, within: float) -> bool:
        ours, theirs = socket.socketpair()
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (PACKAGES, os.environ.get("PYTHONPATH")))),
        }
        # A session of its own: Ctrl-C and Ctrl-Z of a terminal are for the runner.
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pgsig.runner.guard", str(theirs.fileno()), self.mark],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True, env=env, cwd="/",
            )  # fmt: skip
        ours.settimeout(within)
        try:
            greeting = ours.recv(6)
        except OSError:
            greeting = b""
        if greeting != b"ready\n":
            ours.close()
            self._process.kill()
            self._process.wait()
            return False
        ours.settimeout(PATIENCE)
        self._line, self._rest = ours, b""
        return True

    def fileno(self) -> int:
        return self._line.fileno() if self._line else -1

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def began(self, identity: str, mark: bytes) -> None:
        """A job began. identity: its process and start time."""
        line = f"start {identity} {mark.decode()}"
        with self._lock:
            self._jobs[int(identity.partition(" ")[0])] = line
            self._say(line)

    def ended(self, identity: str) -> None:
        """Nothing is left of a job."""
        pid = int(identity.partition(" ")[0])
        with self._lock:
            if self._jobs.pop(pid, None):
                self._say(f"end {pid}")

    def renewed(self, asked_at: float, lease: float) -> None:
        """The lease is good for `lease` seconds from `asked_at` (`boottime()` before the database was asked: it cannot be earlier)."""
        with self._lock:
            # Time to find and kill: a tenth of the lease, between 0.2 s and 1 s.
            self.good_until = asked_at + lease - min(max(lease / 10, 0.2), 1.0)
            self._say(f"lease {self.good_until}")

    @property
    def good(self) -> bool:
        """Whether the lease still holds: what is started after it would be killed at once."""
        return boottime() < self.good_until

    def hear(self) -> set[int]:
        """The processes that the guard is killing because the lease ran out. A guard that died is replaced."""
        with self._lock:
            line = self._line
            try:
                data = line.recv(65536, socket.MSG_DONTWAIT) if line else b""
            except BlockingIOError:
                return set()
            except OSError:
                data = b""
            if not data:
                self._replace()
                return set()
            *lines, self._rest = (self._rest + data).split(b"\n")
        return {int(pid) for text in lines if text.startswith(b"fenced") for pid in text.split()[1:]}

    def _say(self, text: str) -> None:
        try:
            if self._line:
                self._line.sendall(text.encode() + b"\n")
        except OSError:
            # Closing wakes the supervisor, who replaces it: two threads should not both start one.
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR) if self._line else None

    def _replace(self) -> None:
        log.error("the guard process ended: starting another")
        self._drop()
        # Meanwhile nobody ends the jobs with the lease. Who gives up here ends them.
        self._start(min(PATIENCE, max(LEAST, self.good_until - boottime())))
        self._say("\n".join([*self._jobs.values(), f"lease {self.good_until}"]))

    def _drop(self) -> None:
        if self._line:
            self._line.close()
        if self._process:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Dismiss the guard. No jobs are left."""
        with self._lock:
            self._say("bye")
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self._process:
                    self._process.wait(1.0)
            self._drop()
            self._line = None
