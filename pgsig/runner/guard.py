"""The guard: a small process beside a runner that kills the runner's jobs when the runner cannot.

It is told which jobs there are and until when the runner's lease is good, over a socket. Two things make it kill:
the socket closes without a word (the runner was killed), and the lease ends without a new one (the runner is frozen, or
cut off from the database, and its runs may now be granted to another). Jobs whose mark says `keep` outlive the lease, never the runner.

    start PID STARTED MARK     a job: its first process, the ticks at which that started, its mark
    end PID                    nothing of it is left
    lease SECONDS              good until then, by CLOCK_BOOTTIME, which also runs while a machine sleeps
    bye                        the runner ends in good order
The guard answers `ready` once, and `fenced PID…` before it kills for the lease. It has no state that matters: a runner whose
guard was killed starts another and tells it everything again. A job that the runner had no time to tell of is found by its mark.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
import time

from pgsig.failpoints import reached
from pgsig.runner import cgroup, tree

LONGEST_SLEEP = 1.0  # seconds: select() does not count the time that a machine sleeps
FIRST_PAUSE = 0.02  # seconds to the second look after the lease, and twice that to the next: what is being started shows its mark late
KEEP = "-keep"  # the end of the name of a folder whose job outlives the lease


def boottime() -> float:
    """Seconds by a clock that nobody sets and that suspend does not stop."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def outlives(mark: bytes) -> bool:
    """Whether the job with this mark, PGSIG_RUN_FILE in its environment, is to go on without a lease."""
    return mark.endswith(f"{KEEP}/run.json".encode())


class Guard:
    """See the module. mark: what the runner's jobs carry in their environment as PGSIG_RUNNER, and the name of the folder above theirs."""

    def __init__(self, line: socket.socket, mark: str) -> None:
        self.line = line
        self.mark = f"PGSIG_RUNNER={mark}".encode()
        self.folder = f"/{mark}/".encode()
        self.home = cgroup.place(mark)
        self.jobs: dict[int, tree.Root] = {}
        self.lease = float("inf")
        self.pause = FIRST_PAUSE
        self.rest = b""

    def watch(self) -> None:
        """Until the runner ends, in whatever way."""
        reached("guard.watching")
        with contextlib.suppress(OSError):  # gone already: listen() finds out
            self.line.sendall(b"ready\n")
        while True:
            left = self.lease - boottime()
            if left <= 0:
                self.fence()
                left, self.pause = self.pause, min(self.pause * 2, LONGEST_SLEEP)
            readable, _, _ = select.select([self.line], [], [], min(max(left, 0.01), LONGEST_SLEEP))
            if readable and not self.listen():
                return

    def listen(self) -> bool:
        """Take what the runner says. False: it has ended, and nothing is left to do."""
        try:
            data = self.line.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.bury()
            return False
        reached("guard.heard")
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            word, _, rest = line.partition(b" ")
            if word == b"start":
                pid, started, mark = rest.split(b" ", 2)
                self.jobs[int(pid)] = tree.Root(int(pid), int(started), mark)
            elif word == b"end":
                self.jobs.pop(int(rest), None)
            elif word == b"lease":
                self.lease, self.pause = float(rest), FIRST_PAUSE
            elif word == b"bye":
                return False
        return True

    def fence(self) -> None:
        """The lease is over: kill before anybody else may start the same runs."""
        self.find()
        doomed = {pid: root for pid, root in self.jobs.items() if not outlives(root.mark)}
        if not doomed:
            return
        reached("guard.fencing")
        with contextlib.suppress(OSError):  # a frozen runner does not read; it must not hold this up
            self.line.send(b"fenced " + b" ".join(str(pid).encode() for pid in doomed) + b"\n", socket.MSG_DONTWAIT)
        self.kill(list(doomed.values()))
        reached("guard.fenced")
        for pid in doomed:
            self.jobs.pop(pid)

    def find(self) -> None:
        """Learn of the jobs that the runner has started and not told of: it may have frozen in between. The fork server and its children
        without an order carry the runner's mark, but that of no job."""
        known = {root.mark for root in self.jobs.values()}
        for process in sorted(tree.census().values(), key=lambda one: one.started):  # a job's first process first
            mark = tree.variable(process.pid, b"PGSIG_RUN_FILE")
            if self.folder in mark and mark not in known:
                known.add(mark)
                self.jobs[process.pid] = tree.Root(process.pid, process.started, mark)

    def bury(self) -> None:
        """The runner is dead: so are its jobs, also one that it started without getting to say so."""
        reached("guard.burying")
        if self.home and self.home.exists():  # all at once, also who has nothing of ours any more
            cgroup.Cell(self.home).kill()
        self.kill(list(self.jobs.values()))
        reached("guard.killing")
        tree.kill_until_gone(lambda: tree.carriers(self.mark), self.wait, rounds=1000)
        # One more look for what was between fork and exec, where a child still has the runner's environment.
        self.wait(0.2)
        tree.kill_until_gone(lambda: tree.carriers(self.mark), self.wait)
        if self.home and self.home.exists():
            cgroup.Home(self.home).clear()

    def kill(self, roots: list[tree.Root]) -> None:
        def living() -> list[tree.Process]:
            processes = tree.census()
            return [process for root in roots for process in tree.members(root, processes)]

        tree.kill_until_gone(living, self.wait, rounds=1000)

    def wait(self, length: float) -> None:
        select.select([], [], [], length)


def main() -> None:
    # Whoever stops the runner by signalling everything around it must not take the guard first.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as line:
        Guard(line, sys.argv[2]).watch()


if __name__ == "__main__":
    main()
