"""What a job gets between its start and its end: its health is asked for, its deadlines are kept, its output is bounded, it is told to
reload and to end. What becomes of it then is the supervisor's."""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic
from typing import Any

from pgsig.condition.duration import text
from pgsig.decide import health
from pgsig.decide.health import Step
from pgsig.failpoints import reached
from pgsig.runner.engine import Engine
from pgsig.runner.events import ReloadWanted
from pgsig.runner.job import Job
from pgsig.runner.link import Link
from pgsig.runner.probe import Prober
from pgsig.runner.session import Reload, SayReady, SayReload
from pgsig.settings import Settings

LOOK_EVERY = 0.2  # seconds between two looks at jobs that say nothing
LOOK_AT_FLOOD = 0.02  # while a job writes faster than its output is copied


class Watch:
    """See the module. Belongs to the supervising thread, and never waits."""

    def __init__(self, settings: Settings, engine: Engine[Any], link: Link, prober: Prober) -> None:
        self.settings, self.engine, self.link, self.prober = settings, engine, link, prober
        self._flood = False

    def patience(self, jobs: Collection[Job]) -> float:
        """Seconds until these jobs have to be looked at."""
        now = monotonic()
        dues = [min(job.kill_at, job.timeout_at, job.drain_until) - now for job in jobs]
        dues += [job.health.look_at - now for job in jobs if job.health and not job.why]
        return max(0.0, min(LOOK_AT_FLOOD if self._flood else LOOK_EVERY, *dues))

    def look(self, jobs: Collection[Job]) -> None:
        """Deadlines, health, and output that grows too fast."""
        now, flood = monotonic(), False
        for job in jobs:
            if job.health and not job.why:
                self._care(job, job.health, now)
            if job.timeout_at <= now:
                job.timeout_at = float("inf")
                self.ask_to_end(job, "timeout")
            if job.drain_until <= now:
                job.drain_until = float("inf")
                self.ask_to_end(job, "shutdown")
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

    def ask_to_end(self, job: Job, why: str) -> None:
        """Ask, and kill after its grace. why: as in `Job`; the first one stays, unless it was only the runner's own end."""
        if job.why in ("", "shutdown") and why != job.why:
            first, job.why = not job.why, why
            if first:
                job.kill_at = monotonic() + job.grace
                reached("run.stopping")
                self.engine.stop(job.handle)
                with job.session.changed:
                    job.session.changed.notify_all()

    def reload(self, job: Job, order: ReloadWanted) -> None:
        """Put it where the job gets it by itself, or send the signal that its definition names, which counts as acknowledged."""
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

    def probed(self, job: Job, problem: str) -> None:
        """A probe was answered. problem: "" for none."""
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

    def _care(self, job: Job, known: health.Health, now: float) -> None:
        """Readiness and life: what is due."""
        if job.session.said_ready:
            known = health.became_ready(known, now)
        job.health, step = health.look(known, now, heard_at=job.session.heard_at)
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
            self.ask_to_end(job, step.value)
