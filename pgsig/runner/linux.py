"""What Python has no words for.

The arguments and the environment of this process as others see them: `ps` and /proc/PID/environ show the memory that exec filled. A
forked job shows its own there: by its environment a job is known, wherever its processes went. And whose child an orphan becomes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence

FIRST = ("PGSIG_RUN_FILE", "PGSIG_RUNNER")  # what must be there, should the room not do for all
_SET_CHILD_SUBREAPER = 36
ROOM = 4096  # bytes to reserve at exec for what a job has more of than its server


class Shown:
    """The arguments and the environment that this process shows, and its forks. No pointer of the C library may lead there any more."""

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - imported with every job
            fields = file.read().rpartition(b")")[2].split()
        arg_start, arg_end, env_start, env_end = map(int, fields[45:49])
        self._arguments, self._environment = _memory(arg_start, arg_end), _memory(env_start, env_end)

    def overwrite(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Show these, as far as there is room."""
        names = [*(name for name in FIRST if name in environment), *(name for name in environment if name not in FIRST)]
        _fill(self._arguments, arguments)
        _fill(self._environment, [f"{name}={environment[name]}" for name in names])


def take_orphans() -> bool:
    """Become the parent of what children of this process leave behind. False: that is not possible."""
    done: int = ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return done == 0


def _memory(start: int, end: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * (max(end - start, 0) if start else 0)).from_address(start)).cast("B")


def _fill(memory: memoryview, texts: Iterable[str]) -> None:
    room, whole = len(memory), b""
    for text in texts:
        more = text.encode("utf-8", "surrogateescape") + b"\0"
        if len(whole) + len(more) > room:
            break
        whole += more
    if room:
        memory[:] = whole.ljust(room, b"\0")
