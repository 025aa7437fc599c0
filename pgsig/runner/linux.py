"""What Python has no words for.

The arguments and the environment of this process as others see them: `ps` and /proc/PID/environ show the memory that exec filled. A
forked job shows its own there: by its environment a job is known, wherever its processes went. And whose child an orphan becomes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence

FIRST = ("PGSIG_RUN_FILE", "PGSIG_RUNNER")  # what must be there, should the room not do for all
_SET_CHILD_SUBREAPER = 36
ROOM = 4096  # bytes to reserve at exec for what a job has more of than its server


def overwrite(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Show these, as far as there is room. No pointer of the C library may lead into the old environment any more."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - in every start
        fields = file.read().rpartition(b")")[2].split()
    arg_start, arg_end, env_start, env_end = map(int, fields[45:49])
    names = [*(name for name in FIRST if name in environment), *(name for name in environment if name not in FIRST)]
    _fill(arg_start, arg_end, arguments)
    _fill(env_start, env_end, (f"{name}={environment[name]}" for name in names))


def take_orphans() -> bool:
    """Become the parent of what children of this process leave behind. False: that is not possible."""
    done: int = ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return done == 0


def _fill(start: int, end: int, texts: Iterable[str]) -> None:
    room, whole = end - start, b""
    for text in texts:
        more = os.fsencode(text) + b"\0"
        if len(whole) + len(more) > room:
            break
        whole += more
    if start and room > 0:
        ctypes.memmove(start, whole.ljust(room, b"\0"), room)
