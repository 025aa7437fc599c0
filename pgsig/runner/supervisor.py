"""What a runner does with its jobs, in one thread: begin them, have them watched, and say what became of them. It never waits."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from pgsig.condition.duration import seconds
from pgsig.decide import health
from pgsig.decide.retry import How, Outcome, after
from pgsig.failpoints import reached
from pgsig.model import Kind, State
from pgsig.runner.door import Door
from pgsig.runner.engine import Engine, Exit, Expecting, NotStarted
from pgsig.runner.events import Dispossessed, Event, Granted, GrantOver, Probed, ReloadWanted, StopWanted
from pgsig.runner.fence import Fence
from pgsig.runner.job import Job
from pgsig.runner.link import Link
from pgsig.runner.logs import Tail
from pgsig.runner.place import Spool
from pgsig.runner.probe import Prober
from pgsig.runner.session import SayReady, SayState, Session
from pgsig.runner.watch import Watch
from pgsig.settings import Settings
from pgsig.store.jobs import Grant, Held, Report

LINGER = 0.01  # seconds that the beginning of a batch job may wait to be told
LOOK_AGAIN = 0.004  # seconds between two looks while a tree is being ended


class Supervisor:
    """The jobs of a runner, by run. stopping: nothing is started any more."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine[Any],
        spool: Spool,
        fence: Fence,
        link: Link,
        door: Door,
        prober: Prober,
    ) -> None:
        self.settings, self.engine, self.spool = settings, engine, spool
        self.fence, self.link, self.door = fence, link, door
        self.watch = Watch(settings, engine, link, prober)
        self.jobs: dict[int, Job] = {}
        self.stopping = False
        self._waiting: dict[int, Grant] = {}
        self._dispossessed: threading.Event | None = None
        self._rng = random.Random()  # noqa: S311 - jitter

    def patience(self) -> float:
        """Seconds until something has to be looked at, whatever happens."""
        longest = min(1.0, self.settings.lease_seconds / 8)
        if not self.jobs:
            return longest
        if any(job.handle.wake is None for job in self.jobs.values()):
            return LOOK_AGAIN
        return min(longest, self.watch.patience(self.jobs.values()))

    def files(self) -> list[int]:
        """What becomes readable when a job ends."""
        return [job.handle.wake for job in self.jobs.values() if job.handle.wake is not None]

    def look(self, ready: set[int]) -> None:
        """One look at all jobs. ready: which of `files` can be read."""
        if self.fence.fileno() in ready:
            for pid in self.fence.hear():
                self._fenced(pid)
        self._collect([job for job in self.jobs.values() if job.handle.wake is None or job.handle.wake in ready])
        self.watch.look(self.jobs.values())

    def stop(self, drain: float = 0.0) -> None:
        """Start nothing more, and ask all jobs to end: their runs go on elsewhere. drain: seconds that batch runs have to end by
        themselves."""
        self.stopping = True
        for job in list(self.jobs.values()):
            if self.engine.lasting and not job.why:
                self._let_go(job)
                outcome = Outcome(How.HANDED_OVER, detail="its runner was shut down, its job goes on")
                self._conclude(job.session, outcome, handle=job.handle.identity)
        for job in self.jobs.values():
            job.drain_until = monotonic() + (drain if job.grant.kind == Kind.BATCH else 0.0)
        self.watch.look(self.jobs.values())

    def abandon(self) -> None:
        """Kill everything, after an error that nobody thought of."""
        self.stopping = True
        for job in self.jobs.values():
            if not self.engine.lasting:
                self.engine.kill(job.handle)

    def hear_all(self, events: Sequence[Event]) -> None:
        """What the database wants, and what probes found."""
        starts = sum(isinstance(event, Granted) for event in events)
        if starts > 1 and isinstance(self.engine, Expecting):
            self.engine.expect(starts)
        for event in events:
            self.hear(event)

    def hear(self, event: Event) -> None:
        """One of them."""
        match event:
            case Granted(grant) if grant.id in self.jobs:
                # Its job of an older grant is still being ended here: they must not overlap.
                self._waiting[grant.id] = grant
            case Granted(grant, left):
                self._start(grant, left)
            case Dispossessed(done):
                self._dispossessed = done
                self._waiting.clear()
                for job in list(self.jobs.values()):
                    self._over(job)
                self._confirm()
            case StopWanted() | ReloadWanted() | GrantOver() | Probed():
                found = self.jobs.get(event.run)
                if found is None or found.grant.epoch != event.epoch:
                    return
                if isinstance(event, StopWanted):
                    self.watch.ask_to_end(found, "stop")
                elif isinstance(event, ReloadWanted):
                    self.watch.reload(found, event)
                elif isinstance(event, Probed):
                    self.watch.probed(found, event.problem)
                else:
                    self._over(found)

    # ── beginning ──

    def _start(self, grant: Grant, left: Held | None = None) -> None:
        session = Session(grant)
        stop = left is not None and left.desired == "stop"
        if self.stopping or not self.fence.good or self._dispossessed:
            # It would be killed at once. Nothing has begun, so nothing is charged.
            self._conclude(
                session, Outcome(How.HANDED_OVER, detail="its runner could not start it in time"), handle=grant.handle
            )
            return
        reached("run.starting")
        try:
            if grant.problem:
                raise NotStarted(grant.problem, hopeless=True)
            timeout = (
                seconds(grant.spec["timeout"])
                if grant.kind == Kind.BATCH and grant.spec.get("timeout")
                else float("inf")
            )
            care = health.care(grant.kind, grant.spec)
            session.place = self.spool.place(grant, url=self.door.url, token=session.token)
            session.tail = Tail(session.place.output, self.settings.log_kib * 1024)
            self.door.admit(session)
            reached("run.placed")
            adopted = self._adopted(session)
            if stop and not adopted:
                self._conclude(
                    session, Outcome(How.ASKED, detail="of the job that its last runner left nothing was there")
                )
                return
            if adopted and left and left.ready:
                session.said_ready = True
            handle = adopted or self.engine.start(grant, session.place)
        except NotStarted as error:
            self._conclude(session, Outcome(How.NOT_STARTED, detail=error.reason, hopeless=error.hopeless))
            return
        except (OSError, ValueError) as error:
            self._conclude(
                session,
                Outcome(How.NOT_STARTED, detail=str(error), hopeless=isinstance(error, ValueError)),
            )
            return
        reached("run.spawned")
        now = monotonic()
        if not self.engine.lasting:
            self.fence.began(handle.identity, session.place.mark)
        reached("run.began")
        began_at = now - (grant.ran_for or 0.0) if adopted else now
        job = Job(
            session,
            handle,
            began_at=began_at,
            health=health.begin(care, now) if care else None,
            timeout_at=began_at + timeout,
        )
        self.jobs[grant.id] = job
        self.link.output.follow(session)
        lasts = handle.identity if self.engine.lasting else None
        # Nobody waits for word of a batch job that began: where it soon ends, one transaction tells both.
        by = now + LINGER if grant.kind == Kind.BATCH else 0.0
        self.link.say(SayState(session, Report(*grant.key, State.RUNNING, handle=lasts, at=now), by=by))
        session.begin()
        if stop:  # also where it has ended: whoever had it before may have asked it to
            self.watch.ask_to_end(job, "stop")
        # A batch run has nobody to be ready for, unless it takes over from another.
        if grant.spec.get("ready", "start") == "start" and (grant.kind == Kind.STREAMING or grant.handover_of):
            self.link.say(SayReady(session))

    def _adopted(self, session: Session) -> Any:
        """The job of this run that a dead runner left, where the engine can take it over; else None."""
        handle, place = session.grant.handle, session.place
        return self.engine.adopt(handle, place) if handle and place else None

    def _over(self, job: Job) -> None:
        """Its grant is another's now, or nobody's: nothing is to be said of it any more."""
        job.why = "over"
        job.session.end()
        if self.engine.lasting:  # who has the run now has this very job
            self._let_go(job)
            self._forget(job)
        else:
            job.kill_at = monotonic()

    def _let_go(self, job: Job) -> None:
        del self.jobs[job.grant.id]

    def _forget(self, job: Job) -> None:
        self.door.dismiss(job.session)
        self.link.forget(job.session)

    def _fenced(self, pid: int) -> None:
        for job in self.jobs.values():
            if job.handle.identity.split()[0] == str(pid) and job.why in ("", "timeout", "unready", "dead", "shutdown"):
                job.why = "fenced"

    # ── ending ──

    def _collect(self, jobs: list[Job]) -> None:
        # Twice: the first time an engine learns what has ended, the second time it can look after all of them at once.
        for job in jobs:
            self._poll(job)
        for job in jobs:
            if job.grant.id in self.jobs:
                self._poll(job)
        self._confirm()

    def _poll(self, job: Job) -> None:
        end = self.engine.poll(job.handle)
        if end is not None:
            self._ended(job, end)

    def _confirm(self) -> None:
        if self._dispossessed and not self.jobs:
            self._dispossessed.set()
            self._dispossessed = None

    def _ended(self, job: Job, end: Exit) -> None:
        del self.jobs[job.grant.id]
        reached("run.ended")
        if not self.engine.lasting:
            self.fence.ended(job.handle.identity)
        if job.why == "over":
            self._forget(job)
        else:
            self._conclude(job.session, job.outcome(end), monotonic() - job.began_at, end)
        if next_grant := self._waiting.pop(job.grant.id, None):
            self._start(next_grant)

    def _conclude(
        self,
        session: Session,
        outcome: Outcome,
        ran_for: float = 0.0,
        end: Exit | None = None,
        handle: str | None = None,
    ) -> None:
        """Say what becomes of a run. end: of its job, where it had one. handle: of its job, where it is alive."""
        grant = session.grant
        fate = after(
            grant.kind, grant.spec, outcome=outcome, attempt=grant.attempt, ran_for=ran_for,
            failures_in_a_row=grant.failures, rng=self._rng,
        )  # fmt: skip
        session.end()
        self.door.dismiss(session)
        report = Report(
            *grant.key, fate.state, fate.delay, outcome.exit_code, fate.reason, fate.charged, fate.failures, handle,
            cpu_seconds=end.cpu_seconds if end else None, memory_peak=end.memory_peak if end else None,
        )  # fmt: skip
        self.link.say(SayState(session, report))
