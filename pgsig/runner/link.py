"""A runner's thread for the database: lease, grants, orders, reports, output. It may hang with the database; supervision does not.

What has to be told waits in one line, in order, and is repeated until it got through. After an outage: LISTEN first, then the
lease, then a comparison of what the database believes with what is true, then a full look. NOTIFY only shortens waits.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from time import monotonic

import psycopg

from pgsig.failpoints import reached
from pgsig.model import Kind, State
from pgsig.runner.ears import Ears
from pgsig.runner.events import Dispossessed, Event, Granted, GrantOver, ReloadWanted, StopWanted
from pgsig.runner.fence import Fence
from pgsig.runner.lease import Lease
from pgsig.runner.lines import OUTAGE, QUEUED, RUNS, SIGNALS, Lines
from pgsig.runner.outbox import Outbox
from pgsig.runner.output import Copier
from pgsig.runner.reaping import bury_neighbours, end_leftovers, machine
from pgsig.runner.session import Say, SayState, Session
from pgsig.runner.waiting import Waker, readable
from pgsig.settings import Settings
from pgsig.store import housekeeping, jobs
from pgsig.store.database import Connection

log = logging.getLogger(__name__)
LOOK_AGAIN = 0.02  # seconds after a claim that met another one
HEAD_START = 0.005  # seconds for jobs that are about to begin, before it is told what became of others
FLUSH_EVERY = 0.2  # seconds between two portions of a run's output
REAP_EVERY = 1.0
COMPARE_EVERY = 5.0
FIRST_BACKOFF, LONGEST_BACKOFF = 0.05, 2.0


class Link:
    """See the module. tell: where events for the supervisor go. alive: whether the supervisor moves; a lease is not renewed
    for one that hangs. ears: who waits for signals."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        fence: Fence,
        *,
        tell: Callable[[Event], None],
        alive: Callable[[], bool],
        ears: Ears,
    ) -> None:
        self.settings = settings
        self.name = name
        self.claiming = True
        self.connected = threading.Event()
        self._tell, self._alive, self._ears = tell, alive, ears
        self._lock = threading.Lock()
        self._grants: dict[tuple[int, int], bool] = {}  # what was granted and not reported ended: is it still executed?
        self.output = Copier(settings.log_kib * 1024, OUTAGE)
        self._outbox = Outbox(self.output, self._said)
        self._lease = Lease(settings, name, fence)
        self._alarms: list[float] = []
        self._begun_by = 0.0  # when jobs that were granted have probably begun
        self._cleared: set[int] = set()  # dead runners of this machine of which nothing is left
        self._finish = threading.Event()
        self._give_up_at = float("inf")
        self._look = self._asked = True  # there may be runs to claim; something may be ordered of those that are held
        self._more = True  # and more of them than there was room for
        self._due = {"poll": 0.0, "renew": 0.0, "flush": 0.0, "reap": 0.0, "compare": 0.0}
        self._waker = Waker()
        ears.wake = self._waker.wake
        self._rng = random.Random()  # noqa: S311 - jitter
        self.thread = threading.Thread(target=self._run, name=f"pgsig-link-{name}", daemon=True)

    # ── for the other threads ──

    @property
    def process(self) -> int | None:
        """The runner's id in the database, while it holds a lease."""
        return self._lease.process

    def say(self, *items: Say) -> None:
        """Tell the database, as soon as it can be told. A run whose end is said here takes no place of the runner any more."""
        with self._lock:  # before it can be told: then the grant is forgotten
            for item in items:
                if isinstance(item, SayState) and item.last:
                    self._grants[item.session.grant.key] = False
                    if self._more:
                        self._look = True
        self._outbox.put(items)
        self._waker.wake()

    def forget(self, session: Session) -> None:
        """A session ended whose grant is over: there is nothing to say, and its place is free."""
        self.output.forget(session)
        with self._lock:
            self._grants.pop(session.grant.key, None)
        session.release()

    def finish(self, within: float) -> None:
        """Say what there is to say, declare the runner ended, and end. within: seconds, for a database that is away."""
        self._give_up_at = monotonic() + within
        self._finish.set()
        self._waker.wake()

    # ── the thread ──

    def _run(self) -> None:
        pause = FIRST_BACKOFF
        while not self._over():
            lines = None
            try:
                lines = Lines(self.settings, self.name)
                reached("link.connected")
                self._look, self._asked, self._due = True, True, dict.fromkeys(self._due, 0.0)
                self.connected.set()
                pause = FIRST_BACKOFF
                self._talk(lines)
                break
            except OUTAGE as error:
                log.warning("runner %s: the database is away: %s", self.name, " ".join(str(error).split()))
            except Exception:  # what nobody thought of shall cost a moment, not the runner
                log.exception("runner %s: an error in its exchange with the database", self.name)
            finally:
                self.connected.clear()
                self._ears.listening(False)
                if lines:
                    lines.close()
            readable([], self._rng.uniform(pause / 2, pause))
            pause = min(pause * 2, LONGEST_BACKOFF)
        self._waker.close()

    def _over(self) -> bool:
        return self._finish.is_set() and monotonic() > self._give_up_at

    def _talk(self, lines: Lines) -> None:
        while not self._over():
            self._exchange(lines.work)
            if self._finish.is_set() and not self._outbox:
                break
            lines.listen(self._ears.wanted)
            self._ears.listening(lines.hears_signals)
            for channel, what in lines.wait(self._waker, self._patience()):
                if channel == RUNS:
                    self._look = True
                    self._asked |= what != QUEUED
                elif channel == SIGNALS:
                    self._ears.ring()
        if self.process is not None:
            reached("link.leaving")
            jobs.leave(lines.work, self.process)

    def _is_due(self, what: str, every: float) -> bool:
        now = monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + every * self._rng.uniform(0.9, 1.0)
        return True

    def _exchange(self, work: Connection) -> None:
        if self._is_due("renew", self.settings.lease_seconds / 3):
            self._renew(work)
        if self._is_due("compare", COMPARE_EVERY):
            self._compare(work)
        if not self._tell_in() or self._finish.is_set():
            self._outbox.tell(work)
        if self._is_due("flush", FLUSH_EVERY):
            reached("link.flushing")
            self.output.flush(work)
        if self._is_due("poll", self.settings.poll_seconds):
            self._look = self._asked = True
        now = monotonic()
        if any(alarm <= now for alarm in self._alarms):
            self._alarms = [alarm for alarm in self._alarms if alarm > now]
            self._look = True
        if self.process is not None and self._is_due("reap", REAP_EVERY):
            bury_neighbours(work, self.process)
            # Not |=, which would forget what others said meanwhile.
            if housekeeping.reap(work, quiet=self.settings.lease_seconds):
                self._look = True
        if self._look and not self._finish.is_set():
            self._look = False
            self._claim(work)  # first: who waits for a start waits for both, who is to stop has a grace period
            if self._asked:
                self._asked = False
                self._obey(work)

    def _patience(self) -> float:
        """Seconds until something is due."""
        if self._look:
            return 0.0
        dues = [self._due["poll"], self._due["renew"], self._due["reap"], *self._alarms]
        if len(self.output):
            dues.append(self._due["flush"])
        return min(self._tell_in(), max(0.0, min(dues) - monotonic()))

    def _tell_in(self) -> float:
        """Seconds until something has to be told. Jobs that are about to begin go first, for a moment: both take this process' time."""
        by = self._outbox.by
        return max(0.0, min(max(by, self._begun_by), by + HEAD_START) - monotonic())

    # ── lease ──

    def _renew(self, work: Connection) -> None:
        if not self._alive():
            log.error("runner %s: supervision does not move; its lease is not renewed", self.name)
            return
        joined = self.process is not None
        if not self._lease.renew(work):
            if joined:
                log.error("runner %s: declared dead; ending its jobs and joining anew", self.name)
                self._lose_everything()
            self._lease.join(work)
            self._look = True

    def _lose_everything(self) -> None:
        done = threading.Event()
        self._tell(Dispossessed(done))
        done.wait()
        with self._lock:
            self._grants.clear()
        for session in self.output.forget_all() | self._outbox.drop():
            session.release()

    def _compare(self, work: Connection) -> None:
        """Find grants whose answer was lost on the way, and jobs whose grant is gone."""
        if self.process is None:
            return
        reached("link.comparing")
        held = {(one.run_id, one.epoch): one for one in jobs.held(work, self.process)}
        with self._lock:
            mine = dict(self._grants)
        for key, executed in mine.items():
            if key not in held and executed:
                self._tell(GrantOver(*key))
        known = {run for run, _ in mine}
        for key, one in held.items():
            # While a job of an older grant is being ended here, the newer one is not given away.
            if one.run_id not in known:
                log.warning("run %s was granted, but the answer was lost: given back", one.run_id)
                self._give_back(work, key, one.handle, "its grant did not reach the runner")

    # ── what was told ──

    def _said(self, item: SayState, told: bool) -> None:
        if item.last:
            # Had the database refused it, the next comparison would find a grant that nobody executes.
            self.forget(item.session)
        elif not told:
            self._tell(GrantOver(*item.session.grant.key))
        elif item.session.grant.kind == Kind.STREAMING:
            self._look = self._asked = True  # a reload may have waited for it to run
        if item.report.state is State.RETRYING:
            self._alarms.append(monotonic() + item.report.delay + 0.002)

    # ── what is asked ──

    def _obey(self, work: Connection) -> None:
        if self.process is None:
            return
        orders = jobs.orders(work, self.process)
        if orders:
            reached("link.ordered")
        for order in orders:
            if order.stop:
                self._tell(StopWanted(order.run_id, order.epoch))
            elif order.reload_id is not None:
                self._tell(ReloadWanted(order.run_id, order.epoch, order.reload_id, order.cause or "[]"))

    def _free(self) -> int:
        return self.settings.capacity - sum(self._grants.values())

    def _claim(self, work: Connection) -> None:
        with self._lock:
            free = self._free()
            self._more |= free <= 0  # nobody has looked
        if self.process is None or free <= 0 or not self.claiming or not self._alive():
            return
        try:
            reached("link.claiming")
            found = jobs.claim(work, self.process, self.settings.pools, free, self.settings.labels, machine())
        except psycopg.Error as error:
            if error.sqlstate != "PS301":
                raise
            self._due["renew"] = 0.0
            return
        if found.contended:
            self._alarms.append(monotonic() + LOOK_AGAIN)
        if not found.grants:
            self._more = False
            return
        reached("link.claimed")
        # Where this breaks off, nobody here knows of the grants, and the next comparison gives them back.
        clear = end_leftovers(work, found.gone, self._cleared)
        left = {}
        if any(grant.handle for grant in found.grants):
            left = {one.run_id: one for one in jobs.held(work, self.process)}
        with self._lock:
            if clear:
                for grant in found.grants:
                    self._grants[grant.key] = True
            self._more = len(found.grants) >= free
            if self._more and self._free() > 0:  # places became free meanwhile, when nothing was known of more
                self._look = True
        reached("link.granted")
        self._begun_by = monotonic() + HEAD_START
        for grant in found.grants:
            if clear:
                self._tell(Granted(grant, left.get(grant.id) if grant.handle else None))
            else:
                self._give_back(
                    work, grant.key, grant.handle, "a job of a dead runner on this machine cannot be ended", delay=1.0
                )

    def _give_back(
        self, work: Connection, key: tuple[int, int], handle: str | None, why: str, *, delay: float = 0.0
    ) -> None:
        """A grant that nothing came of: somebody shall have it, and nothing is charged. handle: of a job that waits to be taken over."""
        with self._lock:
            self._grants.pop(key, None)
        jobs.report(work, jobs.Report(*key, State.RETRYING, delay, reason=why, charged=False, handle=handle))
