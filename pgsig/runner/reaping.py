"""Runners that died on this machine: nobody has to wait for a lease where it can be seen how it is."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from pgsig.failpoints import reached
from pgsig.runner import tree
from pgsig.runner.place import kill_orphans
from pgsig.store import jobs
from pgsig.store.database import Connection


def bury_neighbours(work: Connection, process: int) -> None:
    """Declare dead the runners of this very machine whose process is gone, once nothing of their jobs is left. Nobody has
    to wait for a lease where it can be seen how it is."""
    reached("link.burying")
    for other in jobs.neighbours(work, process, machine()):
        found = tree.look(other.pid)
        dead = found is None or found.zombie or found.started != other.detail.get("started")
        if dead and kill_orphans(str(other.detail.get("mark"))):
            jobs.leave(work, other.id)


def machine() -> str:
    """This machine since its last boot, this container of it, this user: who shares them sees each other's processes."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}:{os.getuid()}"
    return f"{socket.gethostname()}:{os.getuid()}"
