"""What Python has no words for.

The arguments and the environment of this process as others see them: `ps` and /proc/PID/environ show the memory that exec filled. A
forked job shows its own there: by its environment a job is known, wherever its processes went. And whose child an orphan becomes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence

FIRST = (b"PGSIG_RUN_FILE", b"PGSIG_RUNNER")  # what must be there, should the room not do for all
_SET_CHILD_SUBREAPER = 36
ROOM = 4096  # bytes to reserve at exec for what a job has more of than its server


class Shown:
    """The arguments and the environment that this process shows, and its forks. No pointer of the C library may lead there any more."""

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - imported with every job
            fields = file.read().rpartition(b")")[2].split()
        arg_start, arg_end, env_start, env_end = map(int, fields[45:49])
        self._arguments, self._environment = _memory(arg_start, arg_end), _memory(env_start, env_end)

    def overwrite(self, arguments: Sequence[str], environment: Mapping[bytes, bytes]) -> None:
        """Show these, as far as there is room."""
        first = {name: environment[name] for name in FIRST if name in environment}
        _fill(self._arguments, [os.fsencode(argument) for argument in arguments])
        _fill(self._environment, [b"%b=%b" % pair for pair in {**first, **environment}.items()])


def take_orphans() -> bool:
    """Become the parent of what children of this process leave behind. False: that is not possible."""
    done: int = ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return done == 0


def _memory(start: int, end: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * (max(end - start, 0) if start else 0)).from_address(start)).cast("B")


def _fill(memory: memoryview, texts: Iterable[bytes]) -> None:
    room, whole = len(memory), b"".join([text + b"\0" for text in texts])
    if len(whole) > room:
        whole = whole[: whole.rfind(b"\0", 0, room) + 1]
    if room:
        memory[:] = whole.ljust(room, b"\0")
