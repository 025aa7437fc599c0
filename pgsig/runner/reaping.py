"""Runners that died on this machine: nobody has to wait for a lease where it can be seen how it is."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pgsig.failpoints import reached
from pgsig.runner import tree
from pgsig.runner.place import kill_orphans
from pgsig.store import jobs
from pgsig.store.database import Connection

log = logging.getLogger(__name__)


def bury_neighbours(work: Connection, process: int) -> None:
    """Declare dead the runners of this very machine whose process is gone, once nothing of their jobs is left. Nobody has
    to wait for a lease where it can be seen how it is."""
    reached("link.burying")
    for other in jobs.neighbours(work, process, machine()):
        found = tree.look(other.pid)
        dead = found is None or found.zombie or found.started != other.detail.get("started")
        if dead and kill_orphans(str(other.detail.get("mark"))):
            jobs.leave(work, other.id)


def end_leftovers(work: Connection, seen: Sequence[int], cleared: set[int]) -> bool:
    """Make sure that no runner that was declared dead still executes anything on this machine: it may be frozen, and its guard killed.

    seen: ids of those, as of now. cleared: ids of the runners of which nothing is left; grows. False: something of a job cannot
    be ended (now).
    """
    if cleared.issuperset(seen):
        return True
    # Who is there is looked at before who is gone: a runner that thaws meanwhile and joins anew is not gone any more.
    there = tree.census().values()
    gone = {gone.id: f"/{gone.detail.get('mark')}/".encode() for gone in jobs.gone_neighbours(work, machine())}
    left = [process for process in there if not process.zombie and tree.mentions(process.pid, gone.values())]

    def living() -> list[tree.Process]:
        now = ((process, tree.look(process.pid)) for process in left)
        return [was for was, found in now if found and found.started == was.started and not found.zombie]

    if left:
        log.warning("processes %s belong to runners that were declared dead: ended", [process.pid for process in left])
    clear = tree.kill_until_gone(living, threading.Event().wait)
    cleared |= set(gone) if clear else set()
    return clear


@cache
def machine() -> str:
    """This machine since its last boot, this container of it, this user: who shares them sees each other's processes."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}:{os.getuid()}"
    return f"{socket.gethostname()}:{os.getuid()}"
