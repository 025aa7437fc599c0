"""A run between its start and its end, as the threads of a runner share it; and what they tell each other about it."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic

from pgsig.model import FINAL, State
from pgsig.runner.logs import Tail
from pgsig.runner.place import Place
from pgsig.store.jobs import Grant, Report


class Session:
    """One grant being executed. over: its end is being recorded, or it is another's now; what its job says is refused."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.token = secrets.token_urlsafe(24)
        self.place: Place | None = None
        self.tail: Tail | None = None
        self.logged: int | None = None  # bytes of its log in the database, once somebody has asked
        self.over = False
        self.began = False  # that it runs is in the line to the database: what is said from here on is told after that
        self.heard_at = 0.0  # its job's last sign of life, by `time.monotonic`
        self.said_ready = False
        self.changed = threading.Condition()
        self._waiting: deque[Reload] = deque()
        self._known: dict[int, Reload] = {}

    def offer(self, reload: Reload) -> bool:
        """Put a reload where the job gets it. False: it was offered before."""
        with self.changed:
            if reload.id in self._known:
                return False
            self._known[reload.id] = reload
            self._waiting.append(reload)
            self.changed.notify_all()
            return True

    def next_reload(self, wait: float) -> Reload | None:
        """The next reload for the job, within `wait` seconds."""
        with self.changed:
            self.changed.wait_for(lambda: self._waiting or self.over, wait)
            return self._waiting.popleft() if self._waiting and not self.over else None

    def settled(self, reload: int) -> bool:
        """A reload was acknowledged or has failed. False: it is not open here."""
        with self.changed:
            found = self._known.get(reload)
            if found is None or found.done:
                return False
            found.done = True
            return True

    def overdue(self, now: float) -> list[Reload]:
        """Reloads that nobody acknowledged in time, each told once."""
        with self.changed:
            late = [reload for reload in self._known.values() if not reload.done and reload.deadline <= now]
            for reload in late:
                reload.done = True
            self._waiting = deque(reload for reload in self._waiting if not reload.done)
            return late

    def begin(self) -> None:
        with self.changed:
            self.began = True
            self.changed.notify_all()

    def wait_begun(self, wait: float) -> None:
        """Wait until it began, or is over: a job may be quicker than the runner that has just started it."""
        with self.changed:
            self.changed.wait_for(lambda: self.began or self.over, wait)

    def end(self) -> None:
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def release(self) -> None:
        """Nothing is left to be done for it: give back its files."""
        self.end()
        if self.tail:
            self.tail.close()
        if self.place:
            self.place.remove()


@dataclass(slots=True)
class Reload:
    """Signals to reload with: JSON text. deadline: by `time.monotonic`."""

    id: int
    cause: str
    deadline: float = field(default_factory=monotonic)
    done: bool = False


# ── for the database; each is repeated until it got through, in order ──


@dataclass(slots=True)
class Say:
    """Something to tell the database about a session. by: when at the latest, by `time.monotonic`; until then it waits for company.
    told: whether it still held when it got there."""

    session: Session
    by: float = field(default=0.0, kw_only=True)
    told: Future[bool] = field(default_factory=Future, kw_only=True)


@dataclass(slots=True)
class SayState(Say):
    """What became of the run."""

    report: Report

    @property
    def last(self) -> bool:
        """Whether the grant ends with it."""
        return self.report.state is State.RETRYING or self.report.state in FINAL


@dataclass(slots=True)
class SayReady(Say):
    """The run serves."""


@dataclass(slots=True)
class SayReload(Say):
    """A reload was delivered, acknowledged or has failed."""

    id: int
    state: str
    reason: str = ""
