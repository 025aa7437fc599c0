"""A worker: a stateless process that evaluates signals as they come. Run as many as you like; they share the lanes."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from dataclasses import dataclass

import psycopg

from pgsig import __version__
from pgsig.doorbell import Doorbell
from pgsig.engine import Engine, Step
from pgsig.errors import PgsigError
from pgsig.failpoints import reached
from pgsig.keeper import Keeper
from pgsig.model import State
from pgsig.settings import Settings
from pgsig.store import housekeeping, processes
from pgsig.store.database import AWAY, Connection, connect
from pgsig.store.revision import check

log = logging.getLogger("pgsig.worker")

CLOSE = 0.02  # seconds between two takes that found work, for the second to count as close upon the first
LIVELY = 4  # takes close upon each other: from then on nobody needs to ring
LULL = 0.04  # seconds without work after which it is worth a ring again
NAP = 0.002  # seconds between two looks meanwhile
TRIES = 3  # evaluations of one signal that may fail before the rules that fail at it put it aside
LAST_TRIES = 5  # before every rule does, as it is not a rule that fails
STRIKES = 3  # connections that may break in a row while the same signals are evaluated, before it is laid to them
ANNOUNCE_EVERY = 0.05  # seconds between two notices to pages and tails, at least
UNHURRIED = (State.STARTING,)  # what a ring may say, where no rule asks for it
# Seconds after a take of one lane, for those who go on with what it led to, before all others are looked at.
GLANCE = 0.01
SETTLE = 0.02  # seconds after a take for what follows from it: what a worker does beside its work only begins then
RELY_FOR = 0.5  # seconds between two looks of who relies on another worker, which may die
TEND_EVERY = 1.0  # seconds between two looks at leases


@dataclass
class Session:
    """What a worker has while the database is there. process_id: its row among the living."""

    connection: Connection
    engine: Engine
    process_id: int


class Worker:
    """`run` works until `stop`. settings: see `pgsig.settings`. name: shown to people; defaults to host and process id."""

    def __init__(self, settings: Settings, *, name: str = "") -> None:
        self.settings = settings
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.connection: Connection | None = None  # of the session, while there is one
        self.bell = Doorbell(settings.direct_url, name=f"worker {self.name}", listen_on=lambda: self.connection)
        self.stopping = False
        self.lively = 0  # takes with work, each close upon the one before
        self.worked = float("-inf")  # when the last take with work ended
        self.careful = 0  # signals to take one by one, since a batch of so many failed
        self.tries: dict[int, int] = {}  # failed evaluations by signal
        self.struck = (0, 0)  # the first of the signals at which a connection broke last, and how often in a row
        self.suspects: dict[int, str] = {}  # signals that failed so often, with their error
        self.poison: dict[int, str] = {}  # signals to put aside, with their error
        self.unsaid = False  # something changed since the last notice
        self._announced = self._tended = float("-inf")
        self.keeper = Keeper(settings.direct_url, f"worker {self.name}")

    def stop(self) -> None:
        """Ask `run` to return after the transaction it is in. May be called from any thread or signal handler."""
        self.stopping = True
        self.bell.wake()

    def run(self) -> None:
        """Work until `stop`. A database that goes away is waited for; a schema that does not fit raises SchemaMismatch."""
        session: Session | None = None
        pause = 0.0
        try:
            while not self.stopping:
                try:
                    session = session or self.open()
                    self.turn(session)
                    pause = 0.0
                except AWAY as error:
                    reason = str(error).strip().splitlines() or [type(error).__name__]
                    log.warning("worker %s: the database is away, trying again: %s", self.name, reason[0])
                    if session is not None:
                        session.connection.close()
                    session = self.connection = None
                    pause = min(5.0, max(0.05, pause * 2))
                    self.bell.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        finally:
            self.leave(session)

    def open(self) -> Session:
        self.connection = connection = connect(self.settings.direct_url, name=f"worker {self.name}")
        check(connection)
        engine = Engine(connection)
        engine.prepare()
        if not self.keeper.started:
            self.keeper.start()
        process = self.join(connection)
        reached("worker.joined")
        return Session(connection, engine, process)

    def join(self, connection: Connection) -> int:
        return processes.join(connection, "worker", self.name, __version__, lease=self.ttl)

    def turn(self, session: Session) -> Step:
        """One take, and what follows from it: announce, rest, or go straight on. Returns what it took."""
        step = self.take(session.engine)
        self.bell.can_wait = () if session.engine.heeds_starts else UNHURRIED
        self.tend(session)
        now = time.monotonic()
        if step.taken:
            self.lively = self.lively + 1 if now - self.worked < CLOSE else 0
            self.worked = now
            if self.lively >= LIVELY:
                self.bell.disarm()
            self.unsaid = True
            if step.elsewhere:
                if not self.bell.wait(GLANCE):
                    session.engine.trust = 0
                return step
            if step.taken < self.settings.batch and self.bell.held and self.bell.wait(SETTLE):
                return step  # who is rung for meanwhile comes at once
            self.announce()
        elif self.lively >= LIVELY and now - self.worked < LULL:
            # A worker that slept between two of many signals would have each of them ring, and one commit that rings waits for the
            # fsync of the one before: arrivals would be kept slow enough for it to keep up, and to fall asleep again.
            self.bell.wait(NAP)
        else:
            self.lively = 0
            # Armed a moment ago: whoever committed before that did not ring, so look once more before resting.
            if not self.bell.arm() and not self.stopping:
                self.rest(session.engine.fire_timers())
        return step

    def take(self, engine: Engine) -> Step:
        """One step of the engine. Rule 11, poison: a batch that fails is taken again one signal at a time; where one has failed
        three times on its own, the rules that fail at it put it aside with their error, and everything else goes on."""
        try:
            limit = 1 if self.careful else self.settings.batch
            step = engine.step(limit, suspects=self.suspects, poison=self.poison)
        except AWAY as error:
            if engine.connection.closed:
                self.strike(engine.at_work, error)
            raise
        except Exception as error:  # noqa: BLE001 - whatever an evaluation trips over, the lane has to go on
            self.failed(engine.at_work, error)
            return Step()
        if self.careful:
            self.careful = max(0, self.careful - step.taken)
            for position in engine.at_work:
                for memory in (self.tries, self.suspects, self.poison):
                    memory.pop(position, None)
        return step

    def strike(self, at_work: list[int], error: Exception) -> None:
        """The connection broke: the database's fault, unless it does so at the same signals again and again. What evaluates a value, or a
        function of the user's, may crash its backend, or hold it for longer than a transaction may last. (What the server refuses on a
        connection that lives, for want of space or because it is a standby, is never laid to signals.)"""
        if at_work:
            times = self.struck[1] + 1 if self.struck[0] == at_work[0] else 1
            self.struck = at_work[0], times
            if times >= STRIKES:
                self.failed(at_work, error)

    def failed(self, at_work: list[int], error: Exception) -> None:
        log.error("worker %s: an evaluation failed, signals %s", self.name, at_work[:5], exc_info=error)
        self.careful = max(self.careful, len(at_work), 1)
        if len(at_work) == 1:
            position = at_work[0]
            self.tries[position] = self.tries.get(position, 0) + 1
            why = f"{type(error).__name__}: {error}"
            if self.tries[position] >= LAST_TRIES:
                self.poison[position] = why
            elif self.tries[position] >= TRIES:
                self.suspects[position] = why

    def rest(self, due: float | None = None) -> None:
        """Sleep until somebody rings, the next timer is due, or the poll interval is over; jittered, so that many workers do not
        look at once. due: seconds until the next timer."""
        reached("worker.resting")
        wanted = self.settings.poll_seconds * random.uniform(0.75, 1.0)  # noqa: S311 - jitter, no secret
        if due is not None:
            wanted = min(wanted, due)
        if self.bell.relies:
            wanted = min(wanted, RELY_FOR)
        if self.careful or self.unsaid:
            wanted = min(wanted, ANNOUNCE_EVERY)
        if not self.bell.wait(wanted):
            self.announce()  # else whoever rang comes first

    def announce(self) -> None:
        """Tell pages and tails that something changed, at most every 50 ms."""
        now = time.monotonic()
        if self.unsaid and now - self._announced >= ANNOUNCE_EVERY:
            self._announced, self.unsaid = now, False
            self.bell.announce("pgsig_changes")

    def tend(self, session: Session) -> None:
        """What is due now and then, at work or not: the lease, and the leases of others."""
        now = time.monotonic()
        if now - self._tended >= TEND_EVERY:
            self._tended = now
            reached("worker.tending")
            detail = {"listening": self.bell.listening, "bell": self.bell.held}
            if not processes.renew(session.connection, session.process_id, lease=self.ttl, detail=detail):
                session.process_id = self.join(session.connection)
            housekeeping.reap(session.connection, quiet=self.settings.lease_seconds)
            session.engine.fire_timers()  # also when there is never a moment to rest

    @property
    def ttl(self) -> float:
        """Seconds a worker may be silent before the pages call it dead. Nothing else depends on it: its locks die with its
        connection."""
        return max(5.0, self.settings.poll_seconds * 5)

    def leave(self, session: Session | None) -> None:
        if session is not None:
            try:
                processes.leave(session.connection, session.process_id)
            except (psycopg.Error, PgsigError):
                log.debug("worker %s: could not say goodbye", self.name)
            session.connection.close()
        self.keeper.stop()
        self.bell.close()
