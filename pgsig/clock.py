"""A clock: turns the due times of periodic triggers into tick signals. Any number may run, the database keeps one tick for each.

A clock knows every trigger with its place, up to which due times are settled, and sleeps until the next one is due. Then it settles: it
says where it saw the trigger and what becomes of the due times since, and the database takes that if the trigger still stands there. If
not, somebody else was faster, and the clock goes on from where the trigger stands now. So a clock that was killed, slept through its turn,
or woke up with an old idea of the world does no harm.

Time is the database's: each answer brings it along, and between two answers the clock counts on by its host's monotonic clock. A step of
the host's own clock changes nothing. What becomes of missed times: see `pgsig.condition.missed`; what a change of clocks does: see
`pgsig.condition.wall`.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import os
import random
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from weakref import WeakValueDictionary

import psycopg

from pgsig import __version__
from pgsig.condition import missed, schedule
from pgsig.condition.times import Remembered, Times
from pgsig.definition.apscheduler import imported
from pgsig.errors import Unavailable
from pgsig.failpoints import reached
from pgsig.settings import Settings
from pgsig.store import backfills, processes, triggers
from pgsig.store.database import AWAY, Connection, connect
from pgsig.store.revision import check
from pgsig.store.triggers import Trigger

log = logging.getLogger("pgsig.clock")

RELOAD_EVERY = 30.0  # seconds: a notice of an apply may get lost
FEED_EVERY = 0.25  # seconds between looks at backfills, while there are any
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds between tries to reach the database
MOST_AT_ONCE = 5000  # triggers settled in one statement


class Agenda:
    """What is due when: triggers with their places, and a heap of when each has to be looked at next."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[Trigger, Times]] = {}
        self._next: dict[int, datetime] = {}
        self._heap: list[tuple[datetime, int]] = []

    def put(self, item: Trigger, times: Times) -> None:
        """Have a trigger at its place."""
        self.items[item.id] = item, times
        due = schedule.next_due(times, item.since)
        if due is None:
            self._next.pop(item.id, None)
            return
        at = due + missed.jitter(item.seed, due, item.jitter)
        self._next[item.id] = at
        heapq.heappush(self._heap, (at, item.id))

    def drop(self, trigger: int) -> None:
        self.items.pop(trigger, None)
        self._next.pop(trigger, None)

    def first(self) -> datetime | None:
        """When something has to be looked at next; None for never."""
        while self._heap and self._next.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: datetime, most: int) -> list[tuple[Trigger, Times]]:
        """The triggers that have to be looked at by now. Each is to be put back, or dropped."""
        found: list[tuple[Trigger, Times]] = []
        while len(found) < most and (at := self.first()) is not None and at <= now:
            _, trigger = heapq.heappop(self._heap)
            del self._next[trigger]
            found.append(self.items[trigger])
        return found


class Clock:
    """`run` works until `stop`.

    settings: see `pgsig.settings`. name: shown to people; defaults to host and process id. elapsed: seconds that only ever grow; tests let
    years pass with it, and with `turn` instead of `run`.
    """

    def __init__(self, settings: Settings, *, name: str = "", elapsed: Callable[[], float] = monotonic) -> None:
        self.settings = settings
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.fired = 0  # ticks written by this clock
        self.agenda = Agenda()
        self._elapsed = elapsed
        self._told: tuple[datetime, float] | None = None  # the database's time, and when it was heard
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_w.setblocking(False)
        self._stopping = False
        self._connection: Connection | None = None
        self._process = 0
        self._reload_at = self._renew_at = self._feed_at = 0.0
        self._times: WeakValueDictionary[str, Remembered] = WeakValueDictionary()  # by what they say
        self._broken: set[int] = set()  # triggers that cannot be read, and were told of

    def stop(self) -> None:
        """Ask `run` to return. May be called from any thread or signal handler, also before `run`."""
        self._stopping = True
        with contextlib.suppress(OSError):  # full of wake-ups already, or closed: `run` has ended
            self._wake_w.send(b".")

    def run(self) -> None:
        """Fire what is due until `stop`.

        A database that is away is waited for; a schema that does not fit raises SchemaMismatch.
        """
        pause = FIRST_PAUSE
        try:
            while not self._stopping:
                try:
                    connection = self._open()
                    self._rest(self.turn(connection), connection)
                    pause = FIRST_PAUSE
                except AWAY as error:
                    reason = str(error).strip().partition("\n")[0]
                    log.warning("clock %s: the database is away, trying again: %s", self.name, reason)
                    self._close()
                    self._rest(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
                    pause = min(LONGEST_PAUSE, pause * 2)
        finally:
            self._leave()
            self._wake_r.close()
            self._wake_w.close()

    # ── one turn ──

    def turn(self, connection: Connection) -> float:
        """Do what is to be done now. Returns the seconds after which there is something to do again, if nothing happens before."""
        if self._elapsed() >= self._reload_at:
            self._reload_at = self._elapsed() + RELOAD_EVERY
            self._load(connection)
            reached("clock.loaded")
        while self._fire(connection):
            # One that cannot keep up still hears that it shall stop, and does what else is due.
            if self._stopping or self._elapsed() >= min(self._reload_at, self._renew_at):
                break
        if self._elapsed() >= self._feed_at:
            going = backfills.feed(connection)
            self._feed_at = self._elapsed() + FEED_EVERY if going else self._reload_at
        if self._process and self._elapsed() >= self._renew_at:
            self._renew_at = self._elapsed() + self.settings.lease_seconds / 3
            if not processes.renew(connection, self._process, lease=self.settings.lease_seconds):
                # Declared dead while it was not heard of. A clock holds nothing that others could have taken over.
                self._join(connection)
        wait = min(self._reload_at, self._feed_at) - self._elapsed()
        if self._process:
            wait = min(wait, self._renew_at - self._elapsed())
        if (first := self.agenda.first()) is not None:
            wait = min(wait, (first - self.now()).total_seconds())
        return max(0.0, wait)

    def now(self) -> datetime:
        """The database's time, as far as it is known: never ahead of it, and behind by no more than an answer took."""
        assert self._told is not None
        moment, heard = self._told
        return moment + timedelta(seconds=self._elapsed() - heard)

    def _hear(self, moment: datetime | None) -> None:
        if moment is not None:
            self._told = moment, self._elapsed()

    def _load(self, connection: Connection) -> None:
        """Bring the agenda to the triggers in force, and the time to the database's.

        A trigger's spec never changes: a changed one is another trigger.
        """
        self._hear(triggers.now(connection))
        wanted = {item.id: item for item in triggers.live(connection)}
        for gone in set(self.agenda.items) - set(wanted):
            self.agenda.drop(gone)
        for item in wanted.values():
            known = self.agenda.items.get(item.id)
            if known is None or known[0].since != item.since:
                times = known[1] if known is not None else self._read(item)
                if times is not None:
                    self._put(item, times)
        self._feed_at = 0.0

    def _read(self, item: Trigger) -> Times | None:
        said = json.dumps(
            {key: value for key, value in item.spec.items() if key not in ("params", "missed", "jitter")},
            sort_keys=True,
        )
        if said in self._times:
            return self._times[said]
        try:
            return self._times.setdefault(said, Remembered(schedule.build(item.spec, imported)))
        except ValueError as error:
            if item.id not in self._broken:
                log.error("clock %s: trigger %s cannot be read: %s", self.name, item.id, error)
                self._broken.add(item.id)
            return None

    def _put(self, item: Trigger, times: Times) -> None:
        with self._unless_broken(item):
            self.agenda.put(item, times)

    @contextlib.contextmanager
    def _unless_broken(self, item: Trigger) -> Iterator[None]:
        """A trigger of the user's own may raise whatever it likes: it is left out, the others go on."""
        try:
            yield
        except Exception:
            log.exception("clock %s: trigger %s does not say when it is due", self.name, item.id)
            self.agenda.drop(item.id)

    def _fire(self, connection: Connection) -> bool:
        """Settle what is due. Whether there may be more of it."""
        now = self.now()
        batch = self.agenda.take(now, MOST_AT_ONCE)
        if not batch:
            return False
        asked = []
        for item, times in batch:
            with self._unless_broken(item):
                settled = missed.settle(times, item.since, now, item.policy, seed=item.seed, jitter_most=item.jitter)
                if settled is None:
                    self._put(item, times)
                else:
                    asked.append((item, settled))
        if asked:
            reached("clock.firing")
            try:
                answer = triggers.settle(connection, asked)
            except BaseException:
                for item, times in batch:  # nobody knows what became of them: they are looked at again
                    self._put(item, times)
                raise
            reached("clock.fired")
            self._hear(answer.now)
            for item, _ in asked:
                place = answer.places.get(item.id)
                if place is None:
                    self.agenda.drop(item.id)
                    continue
                self.fired += place.fired
                self._put(replace(item, since=place.since), self.agenda.items[item.id][1])
        return len(batch) == MOST_AT_ONCE

    def _rest(self, seconds: float, connection: Connection | None = None) -> None:
        """Wait until a definition changed, `stop` was called, or the time is over."""
        files = [self._wake_r.fileno()] + ([connection.fileno()] if connection is not None else [])
        ready, _, _ = select.select(files, [], [], seconds)
        if self._wake_r.fileno() in ready:
            self._wake_r.recv(4096)
        if connection is not None and connection.fileno() in ready:
            connection.pgconn.consume_input()
            while connection.pgconn.notifies() is not None:
                self._reload_at = 0.0

    # ── the connection ──

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
        self._renew_at = self._elapsed() + self.settings.lease_seconds / 3
        self._reload_at = 0.0
        return connection

    def _join(self, connection: Connection) -> None:
        lease = self.settings.lease_seconds
        self._process = processes.join(connection, "clock", self.name, __version__, lease=lease)

    def _heard(self, _: object) -> None:
        self._reload_at = 0.0

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
