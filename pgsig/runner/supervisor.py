"""What a runner does with its jobs, in one thread: start, reload, end, and say what became of them. It never waits."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from pgsig.condition.duration import seconds, text
from pgsig.decide import health
from pgsig.decide.health import Step
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
from pgsig.runner.session import Reload, SayReady, SayReload, SayState, Session
from pgsig.settings import Settings
from pgsig.store.jobs import Grant, Report

LOOK_EVERY = 0.2  # seconds between two looks at jobs that say nothing
LOOK_AGAIN = 0.004  # while a tree is being ended
LOOK_AT_FLOOD = 0.02  # while a job writes faster than its output is copied


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
        self.fence, self.link, self.door, self.prober = fence, link, door, prober
        self.jobs: dict[int, Job] = {}
        self.stopping = False
        self._waiting: dict[int, Grant] = {}
        self._dispossessed: threading.Event | None = None
        self._flood = False
        self._rng = random.Random()  # noqa: S311 - jitter

    def patience(self) -> float:
        """Seconds until something has to be looked at, whatever happens."""
        now, longest = monotonic(), min(1.0, self.settings.lease_seconds / 8)
        if not self.jobs:
            return longest
        if any(job.handle.wake is None for job in self.jobs.values()):
            return LOOK_AGAIN
        dues = [min(job.kill_at, job.timeout_at, job.drain_until) - now for job in self.jobs.values()]
        dues += [job.health.look_at - now for job in self.jobs.values() if job.health and not job.why]
        return max(0.0, min(longest, LOOK_AT_FLOOD if self._flood else LOOK_EVERY, *dues))

    def files(self) -> list[int]:
        """What becomes readable when a job ends."""
        return [job.handle.wake for job in self.jobs.values() if job.handle.wake is not None]

    def look(self, ready: set[int]) -> None:
        """One look at all jobs. ready: which of `files` can be read."""
        if self.fence.fileno() in ready:
            for pid in self.fence.hear():
                self._fenced(pid)
        self._collect([job for job in self.jobs.values() if job.handle.wake is None or job.handle.wake in ready])
        self._watch()

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
        self._watch()

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
            case Granted(grant):
                self._start(grant)
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
                    self._ask_to_end(found, "stop")
                elif isinstance(event, ReloadWanted):
                    self._reload(found, event)
                elif isinstance(event, Probed):
                    self._probed(found, event.problem)
                else:
                    self._over(found)

    # ── beginning ──

    def _start(self, grant: Grant) -> None:
        session = Session(grant)
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
        left = handle.identity if self.engine.lasting else None
        self.link.say(SayState(session, Report(*grant.key, State.RUNNING, handle=left)))
        # A batch run has nobody to be ready for, unless it takes over from another.
        if grant.spec.get("ready", "start") == "start" and (grant.kind == Kind.STREAMING or grant.handover_of):
            self.link.say(SayReady(session))

    def _adopted(self, session: Session) -> Any:
        """The job of this run that a dead runner left, where the engine can take it over; else None."""
        handle, place = session.grant.handle, session.place
        return self.engine.adopt(handle, place) if handle and place else None

    # ── under way ──

    def _reload(self, job: Job, order: ReloadWanted) -> None:
        if job.why:
            return
        timeout = job.reload_timeout
        by = str(job.grant.spec.get("reload_by", "api"))
        if not job.session.offer(Reload(order.reload, order.cause, monotonic() + timeout)) or by == "api":
            return
        job.session.next_reload(0)
        job.session.settled(order.reload)
        if job.session.place:
            job.session.place.write("reload", order.cause)
        if self.engine.reload(job.handle, by):
            self.link.say(
                SayReload(job.session, order.reload, "delivered"),
                SayReload(job.session, order.reload, "acknowledged"),
            )
        else:
            self.link.say(SayReload(job.session, order.reload, "failed", f"the signal {by} could not be sent"))

    def _care(self, job: Job, known: health.Health, now: float) -> None:
        """Readiness and life: what is due."""
        if job.session.said_ready:
            known = health.became_ready(known, now)
        job.health, step = health.look(known, now, heard_at=job.session.heard_at)
        self._follow(job, job.health, step)

    def _probed(self, job: Job, problem: str) -> None:
        if job.health is None or job.why:
            return
        failed = job.health.failed if job.health.ready else 0
        job.health, step = health.answered(job.health, monotonic(), problem)
        if job.session.place and job.health.ready and (job.health.failed or failed):
            most = job.health.probe.failures if job.health.probe else 0
            said = (
                f"the probe failed, {job.health.failed} of {most}: {problem}"
                if problem
                else "the probe is answered again"
            )
            job.session.place.note(said)
        self._follow(job, job.health, step)

    def _follow(self, job: Job, known: health.Health, step: Step | None) -> None:
        place = job.session.place
        if step is Step.ASK and known.probe and place:
            cwd = job.grant.spec.get("cwd")
            self.prober.ask(job.grant.key, known.probe, env=place.env, cwd=str(cwd) if cwd else None)
        elif step is Step.READY:
            self.link.say(SayReady(job.session))
        elif step in (Step.UNREADY, Step.DEAD):
            job.detail = health.reason(known)
            if place:
                place.note(f"it is ended: {job.detail}")
            self._ask_to_end(job, step.value)

    def _watch(self) -> None:
        """Deadlines, health, and output that grows too fast."""
        now, flood = monotonic(), False
        for job in self.jobs.values():
            if job.health and not job.why:
                self._care(job, job.health, now)
            if job.timeout_at <= now:
                job.timeout_at = float("inf")
                self._ask_to_end(job, "timeout")
            if job.drain_until <= now:
                job.drain_until = float("inf")
                self._ask_to_end(job, "shutdown")
            if job.kill_at <= now:
                job.forced = True
                reached("run.killing")
                self.engine.kill(job.handle)
                job.kill_at = now + LOOK_EVERY
            for reload in job.session.overdue(now):
                limit = text(job.reload_timeout)
                self.link.say(SayReload(job.session, reload.id, "failed", f"not acknowledged within {limit}"))
            if job.session.tail:
                flood |= job.session.tail.bound() > self.settings.log_kib * 256
        self._flood = flood

    def _ask_to_end(self, job: Job, why: str) -> None:
        if job.why in ("", "shutdown") and why != job.why:
            first, job.why = not job.why, why
            if first:
                job.kill_at = monotonic() + job.grace
                reached("run.stopping")
                self.engine.stop(job.handle)
                with job.session.changed:
                    job.session.changed.notify_all()

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
