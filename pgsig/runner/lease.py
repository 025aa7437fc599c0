"""A runner's lease: until when its runs are its own, for the database, and for the guard beside it."""

from __future__ import annotations

import os
import socket

from pgsig import __version__
from pgsig.failpoints import reached
from pgsig.runner import tree
from pgsig.runner.fence import Fence
from pgsig.runner.guard import boottime
from pgsig.runner.reaping import machine
from pgsig.settings import Settings
from pgsig.store import jobs
from pgsig.store.database import Connection


class Lease:
    """process: the runner's id in the database, None before it has joined and after it was declared dead."""

    def __init__(self, settings: Settings, name: str, fence: Fence) -> None:
        self.settings = settings
        self.name = name
        self.fence = fence
        self.process: int | None = None

    def renew(self, work: Connection) -> bool:
        """Prolong it. False: there is none, or the runner was declared dead."""
        asked_at = boottime()
        reached("link.renewing")
        if self.process is not None and jobs.renew(work, self.process, lease=self.settings.lease_seconds):
            reached("link.renewed")
            self.fence.renewed(asked_at, self.settings.lease_seconds)
            return True
        self.process = None
        return False

    def join(self, work: Connection) -> None:
        """Begin as a runner that holds nothing."""
        settings, asked_at = self.settings, boottime()
        me = tree.look(os.getpid())
        process = jobs.join(
            work,
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            pools=settings.pools,
            labels=settings.labels,
            capacity=settings.capacity,
            lease=settings.lease_seconds,
        )
        # By this, others on this machine can see whether the runner is still there, and what is left of its jobs.
        detail = {"machine": machine(), "mark": self.fence.mark, "started": me.started if me else 0}
        jobs.renew(work, process, lease=settings.lease_seconds, detail=detail)
        self.process = process
        reached("link.joined")
        self.fence.renewed(asked_at, settings.lease_seconds)
