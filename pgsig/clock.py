"""A clock: turns the due times of periodic triggers into tick signals. Any number may run, the database
keeps one tick for each.

APScheduler's thread says when something is due, with its memory job store: one job for each trigger in
force. The clock's own thread writes the ticks and does everything else that touches the database. While the
database is away it keeps the latest due time of each trigger and writes it once the database is back.

Missed times: a clock that starts, or was away, fires the latest time that was missed and no other. A time
is missed if it lies after the trigger's last due time, or after the apply that brought the trigger: an `at`
that was past when it was applied never comes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Any

import psycopg
from apscheduler.executors.base import BaseExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from pgsig import __version__
from pgsig.condition import schedule
from pgsig.errors import Unavailable
from pgsig.failpoints import reached
from pgsig.settings import Settings
from pgsig.store import processes, triggers
from pgsig.store.database import AWAY, Connection, connect
from pgsig.store.revision import check

log = logging.getLogger("pgsig.clock")

RELOAD_EVERY = 30.0  # seconds: a notice of an apply may get lost
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds between tries to reach the database


class Clock:
    """`run` works until `stop`.

    settings: see `pgsig.settings`. name: shown to people; defaults to host and process id.
    """

    def __init__(self, settings: Settings, *, name: str = "") -> None:
        self.settings = settings
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.fired = 0  # ticks written by this clock
        self._due: dict[int, datetime] = {}  # trigger: its latest due time that is not written yet
        self._guard = Lock()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_w.setblocking(False)
        self._stopping = False
        self._connection: Connection | None = None
        self._process = 0
        self._reload_at = self._renew_at = 0.0
        # The scheduler's own log speaks of jobs; what matters of them is said here.
        quiet = logging.getLogger("pgsig.clock.apscheduler")
        quiet.setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone=UTC, logger=quiet, executors={"default": _Hand(self.due)})

    def stop(self) -> None:
        """Ask `run` to return. May be called from any thread or signal handler, also before `run`."""
        self._stopping = True
        self._wake()

    def run(self) -> None:
        """Fire what is due until `stop`.

        A database that is away is waited for; a schema that does not fit raises SchemaMismatch.
        """
        self._scheduler.start()
        pause = FIRST_PAUSE
        try:
            while not self._stopping:
                try:
                    self._turn(self._open())
                    pause = FIRST_PAUSE
                except AWAY as error:
                    reason = str(error).strip().partition("\n")[0]
                    log.warning("clock %s: the database is away, trying again: %s", self.name, reason)
                    self._close()
                    self._rest(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
                    pause = min(LONGEST_PAUSE, pause * 2)
        finally:
            self._scheduler.shutdown()
            self._leave()
            self._wake_r.close()
            self._wake_w.close()

    def due(self, trigger: int, moment: datetime) -> None:
        """Note that a trigger fell due. Called by the scheduler's thread."""
        with self._guard:
            self._due[trigger] = max(moment, self._due.get(trigger, moment))
        self._wake()

    # ── one turn ──

    def _open(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = connect(self.settings.direct_url, name=f"clock {self.name}")
        self._connection = connection
        check(connection)
        # A notice that comes in while another statement runs on this connection is handed to handlers.
        connection.add_notify_handler(self._heard)
        connection.execute(f"LISTEN {triggers.CHANNEL}".encode())
        self._join(connection)
        reached("clock.joined")
        self._renew_at = monotonic() + self.settings.lease_seconds / 3
        self._reload_at = 0.0
        return connection

    def _join(self, connection: Connection) -> None:
        lease = self.settings.lease_seconds
        self._process = processes.join(connection, "clock", self.name, __version__, lease=lease)

    def _turn(self, connection: Connection) -> None:
        """Do what is to be done, then wait for the next thing."""
        if monotonic() >= self._reload_at:
            self._reload_at = monotonic() + RELOAD_EVERY
            self._load(connection)
            reached("clock.loaded")
        self._fire(connection)
        if monotonic() >= self._renew_at:
            self._renew_at = monotonic() + self.settings.lease_seconds / 3
            if not processes.renew(connection, self._process, lease=self.settings.lease_seconds):
                # Declared dead while it was not heard of. A clock holds nothing that others could have
                # taken over.
                self._join(connection)
        self._rest(max(0.0, min(self._reload_at, self._renew_at) - monotonic()), connection)

    def _load(self, connection: Connection) -> None:
        """Bring the jobs to the triggers in force.

        A trigger's spec never changes: a changed one is another trigger.
        """
        now, wanted = datetime.now(UTC), {item.id: item for item in triggers.live(connection)}
        known = {int(job.id) for job in self._scheduler.get_jobs()}
        for gone in known - set(wanted):
            self._scheduler.remove_job(str(gone))
            with self._guard:
                self._due.pop(gone, None)
        for item in (wanted[new] for new in sorted(set(wanted) - known)):
            try:
                trigger = schedule.build(item.spec)
            except ValueError as error:
                log.error("clock %s: trigger %s cannot be read: %s", self.name, item.id, error)
                continue
            if (missed := latest_due(trigger, item.since, now)) is not None:
                self.due(item.id, missed)
            if schedule.next_due(trigger, now) is not None:
                self._scheduler.add_job(_nothing, Due(trigger, now), id=str(item.id))
        # A step of the system's clock moves due times that the scheduler already sleeps towards.
        self._scheduler.wakeup()

    def _fire(self, connection: Connection) -> None:
        with self._guard:
            batch = dict(self._due)
        if not batch:
            return
        reached("clock.firing")
        self.fired += triggers.fire(connection, batch.items())
        reached("clock.fired")
        with self._guard:
            for trigger, moment in batch.items():
                if self._due.get(trigger) == moment:
                    del self._due[trigger]

    def _rest(self, seconds: float, connection: Connection | None = None) -> None:
        """Wait until something fell due, a definition changed, `stop` was called, or the time is over."""
        files = [self._wake_r.fileno()] + ([connection.fileno()] if connection is not None else [])
        ready, _, _ = select.select(files, [], [], seconds)
        if self._wake_r.fileno() in ready:
            self._wake_r.recv(4096)
        if connection is not None and connection.fileno() in ready:
            connection.pgconn.consume_input()
            while connection.pgconn.notifies() is not None:
                self._reload_at = 0.0

    def _heard(self, _: object) -> None:
        self._reload_at = 0.0

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full of wake-ups already, or closed: `run` has ended
            self._wake_w.send(b".")

    # ── the end ──

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _leave(self) -> None:
        if self._connection is not None:
            try:
                processes.leave(self._connection, self._process)
            except (psycopg.Error, Unavailable):
                log.info("clock %s: could not say goodbye, its lease will run out", self.name)
        self._close()


class Due(BaseTrigger):  # type: ignore[misc]
    """A trigger in UTC instants, asked through `schedule`, which knows what a change of clocks does to due
    times.

    After a long sleep it answers with the latest time that passed, not with each one.
    """

    def __init__(self, trigger: BaseTrigger, after: datetime) -> None:
        self.trigger = trigger
        self.after = after

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The next due time after the previous one, in UTC."""
        after = previous_fire_time or self.after
        return latest_due(self.trigger, after, now) or schedule.next_due(self.trigger, after)


class _Hand(BaseExecutor):  # type: ignore[misc]
    """Runs no job: hands its due time to the clock."""

    def __init__(self, due: Callable[[int, datetime], None]) -> None:
        super().__init__()
        self._give = due

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self._give(int(job.id), run_times[-1])

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        raise NotImplementedError


def _nothing() -> None:
    """What a job of the scheduler would call, if it were called."""


def latest_due(trigger: BaseTrigger, after: datetime, until: datetime) -> datetime | None:
    """The last due time in (after, until], None if there is none.

    Looks back in growing steps, so that a second's trigger that was silent for a month does not cost a
    month's due times.
    """
    after, until = after.astimezone(UTC), until.astimezone(UTC)
    span = timedelta(seconds=1)
    while after < until:
        start = max(after, until - span)
        found = schedule.next_due(trigger, start)
        if found is not None and found <= until:
            while (later := schedule.next_due(trigger, found)) is not None and later <= until:
                found = later
            return found
        if start == after:
            return None
        span *= 2
    return None
