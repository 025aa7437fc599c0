"""What the database wants of a runner, and what probes found, on its way to the thread that supervises."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pgsig.store.jobs import Grant, Held


@dataclass(frozen=True, slots=True)
class Granted:
    """A run to execute. left: what the database knows of it by now, where an earlier runner has left its job."""

    grant: Grant
    left: Held | None = None


@dataclass(frozen=True, slots=True)
class StopWanted:
    run: int
    epoch: int


@dataclass(frozen=True, slots=True)
class ReloadWanted:
    run: int
    epoch: int
    reload: int
    cause: str


@dataclass(frozen=True, slots=True)
class GrantOver:
    """The database knows this grant no more: end its job, say nothing."""

    run: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe came back. problem: what was wrong, or ""."""

    run: int
    epoch: int
    problem: str


@dataclass(frozen=True, slots=True)
class Dispossessed:
    """The runner was declared dead: end all jobs, then set `done`."""

    done: threading.Event


Event = Granted | StopWanted | ReloadWanted | GrantOver | Probed | Dispossessed
