"""Runners that died: who they are, what becomes of their runs."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

from pgsig.decide.retry import How, Outcome, after
from pgsig.runner import tree
from pgsig.runner.place import kill_orphans
from pgsig.store import jobs
from pgsig.store.database import Connection


def bury_neighbours(work: Connection, process: int) -> None:
    """Declare dead the runners of this very machine whose process is gone, once nothing of their jobs is left. Nobody has
    to wait for a lease where it can be seen how it is."""
    for other in jobs.neighbours(work, process, machine()):
        found = tree.look(other.pid)
        dead = found is None or found.zombie or found.started != other.detail.get("started")
        if dead and kill_orphans(str(other.detail.get("mark"))):
            jobs.leave(work, other.id)


def reap(work: Connection, *, quiet: float, rng: random.Random) -> bool:
    """Decide what becomes of the runs of runners whose lease ran out, or that ended. True if there were any.

    quiet: seconds after the server's start in which no lease is judged.
    """
    found = jobs.reap(work, quiet=quiet)
    for one in found:
        outcome = Outcome(How.ASKED if one.desired == "stop" else How.LOST, detail="its runner was lost")
        fate = after(one.kind, one.spec, outcome=outcome, attempt=one.attempt, ran_for=0, failures_in_a_row=0, rng=rng)
        jobs.report(
            work,
            one.run_id,
            one.epoch,
            fate.state,
            delay=fate.delay,
            reason=fate.reason,
            charged=fate.charged,
        )
    return bool(found)


def machine() -> str:
    """This machine since its last boot, this container of it, this user: who shares them sees each other's processes."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}:{os.getuid()}"
    return f"{socket.gethostname()}:{os.getuid()}"
