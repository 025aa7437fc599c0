"""A job that a runner supervises: what was done to end it, and what its end therefore means."""

from __future__ import annotations

from dataclasses import dataclass

from pgsig.condition.duration import seconds, text
from pgsig.decide.health import Health
from pgsig.decide.retry import How, Outcome
from pgsig.runner.engine import Exit, Handle
from pgsig.runner.session import Session
from pgsig.store.jobs import Grant

GRACE, RELOAD_TIMEOUT = "10s", "30s"  # where the operator does not say


@dataclass(slots=True, eq=False)
class Job:
    """A job of this runner. health: where its definition asks for care. why: what we did to end it, if it was us: stop, timeout, unready,
    dead (with the reason in `detail`), shutdown, fenced or over."""

    session: Session
    handle: Handle
    began_at: float
    health: Health | None = None
    why: str = ""
    detail: str = ""
    timeout_at: float = float("inf")
    drain_until: float = float("inf")  # the runner ends: until then it may end by itself
    kill_at: float = float("inf")
    forced: bool = False

    @property
    def grant(self) -> Grant:
        return self.session.grant

    @property
    def grace(self) -> float:
        """Seconds between asking it to end and killing it."""
        return self._seconds("grace", GRACE)

    @property
    def reload_timeout(self) -> float:
        """Seconds in which a reload has to be acknowledged."""
        return self._seconds("reload_timeout", RELOAD_TIMEOUT)

    def _seconds(self, key: str, default: str) -> float:
        try:
            return seconds(self.grant.spec.get(key, default))
        except ValueError:  # what was applied was checked; a job is not left running for a typing error
            return seconds(default)

    def outcome(self, end: Exit) -> Outcome:
        """What its end means, given who wanted it."""
        forced = f"did not end within {text(self.grace)} and was killed" if self.forced else ""
        fenced = "its runner's lease ran out, and it was ended before another could start it"
        match self.why:
            case "stop":
                return Outcome(How.ASKED, end.code, forced)
            case "timeout":
                return Outcome(How.TIMED_OUT, end.code)
            case "unready" | "dead":
                how = How.NOT_READY if self.why == "unready" else How.NOT_ALIVE
                return Outcome(how, end.code, "; it ".join(filter(None, (self.detail, forced))))
            case "shutdown":
                return Outcome(How.HANDED_OVER, end.code, "its runner was shut down")
            case "fenced":
                return Outcome(How.LOST, end.code, fenced)
        return Outcome(How.EXITED if end.code is not None else How.KILLED, end.code, end.signal)
