"""The rows of living processes. A runner's say more and are in `pgsig.store.jobs`; renewing and leaving are the same for all."""

from __future__ import annotations

import os
import socket

from pgsig.store.database import Connection, query
from pgsig.store.jobs import leave, renew

__all__ = ["join", "leave", "renew"]


def join(connection: Connection, role: str, name: str, version: str, *, lease: float) -> int:
    """Announce a worker, a clock or a web process. lease: seconds for which it need not be heard of again. Returns its id."""
    given = {
        "role": role, "name": name, "host": socket.gethostname(), "pid": os.getpid(), "version": version, "lease": lease,
        "pools": [], "labels": [], "capacity": 0,
    }  # fmt: skip
    row = connection.execute(query("join"), given).fetchone()
    return int(row[0]) if row else 0
