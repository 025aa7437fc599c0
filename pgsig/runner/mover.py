"""Commands on their way into their cgroups.

While the kernel puts a process into another cgroup, whoever begins or ends a process on this machine may have to wait, for ten milliseconds
and more. So it is done when nothing has begun for a moment, by a thread that nobody waits for; what has ended before is not put
there any more.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from time import monotonic

from pgsig.runner.cgroup import Cell

QUIET = 0.02  # seconds without a beginning
LONGEST = 0.2  # seconds that it is put off, at most


@dataclass(slots=True, eq=False)
class Move:
    """by: when at the latest, by `time.monotonic`. there: whether the process is in its cgroup; None while that is not known."""

    cell: Cell
    pid: int
    by: float
    waits: bool = True
    there: bool | None = None


class Mover:
    """The thread, and those that wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[Move] = deque()
        self._quiet_at = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pgsig cgroups", daemon=True)
        self._thread.start()

    def begun(self, cell: Cell | None, pid: int) -> Move | None:
        """A process has begun. cell: where to put it; None: it is where it should be."""
        with self._changed:
            now = monotonic()
            self._quiet_at = now + QUIET
            if cell is None:
                return None
            move = Move(cell, pid, now + LONGEST)
            self._line.append(move)
            self._changed.notify()
            return move

    def settle(self, move: Move) -> bool | None:
        """Whether the process is in its cgroup, now that it has ended: if it is not, it never will be. None: it is being put there, ask
        again."""
        with self._changed:
            if move.waits:
                self._line.remove(move)
                move.waits, move.there = False, False
            return move.there

    def close(self) -> None:
        """What waits stays where it is."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while move := self._next():
            there = False
            try:
                there = move.cell.take(move.pid)
            finally:  # or its job would never end
                with self._changed:
                    move.there = there

    def _next(self) -> Move | None:
        with self._changed:
            while not self._closed:
                if not self._line:
                    self._changed.wait()
                elif (left := min(self._quiet_at, self._line[0].by) - monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    move = self._line.popleft()
                    move.waits = False
                    return move
        return None
