"""Whether a job is ready, and whether it is still alive: when to ask, and what follows from an answer. Pure: time is an argument.

It is not alive before it is ready: until then `ready_timeout` counts, from then on `live`. A job that says `ready` or shows a sign of life
is believed at once; a probe is believed after `failures` in a row. Time in which nobody looked does not count: a runner that stood
still has heard nothing, which says nothing of its jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pgsig.condition.duration import seconds, text
from pgsig.model import Kind

READY_TIMEOUT = "1m"
READY_EVERY, LIVE_EVERY, PROBE_TIMEOUT, LIVE_FAILURES = "1s", "10s", "1s", 3
MOST_BETWEEN_LOOKS = 2.0  # seconds: what is longer was a standstill
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask a job: a URL, or a command line. every, timeout: seconds. failures: in a row, before it is believed."""

    http: str = ""
    command: tuple[str, ...] = ()
    every: float = 1.0
    timeout: float = 1.0
    failures: int = 1


@dataclass(frozen=True, slots=True)
class Care:
    """What a definition says about a run's health.

    waits: it is not ready at its start. ready: how to find out, None where it says so itself. ready_timeout: seconds.
    live: how to find out, None for not at all. heartbeat: seconds between two signs of life, 0 for none wanted.
    """

    waits: bool = False
    ready: Probe | None = None
    ready_timeout: float = NEVER
    live: Probe | None = None
    heartbeat: float = 0.0


class Step(StrEnum):
    """What has to be done now: ask the job, say that it is ready, or end it."""

    ASK = "ask"
    READY = "ready"
    UNREADY = "unready"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a job. Times: seconds by one clock, of which only differences matter.

    looked_at: the last look. since: when it began, and once it is ready the last sign of life. ask_at: when to ask next. asking: an
    answer is awaited. failed: probes in a row. last: what was wrong the last time, "" if nothing was.
    """

    care: Care
    looked_at: float
    since: float
    ready: bool = False
    ask_at: float = NEVER
    asking: bool = False
    failed: int = 0
    last: str = ""

    @property
    def probe(self) -> Probe | None:
        """How to ask it now."""
        return self.care.live if self.ready else self.care.ready

    @property
    def look_at(self) -> float:
        """When something is due if nothing happens."""
        limit = self.care.heartbeat or NEVER if self.ready else self.care.ready_timeout
        return min(self.since + limit, NEVER if self.asking else self.ask_at)


def care(kind: Kind | str, spec: Mapping[str, Any]) -> Care | None:
    """What a spec asks for, None where that is nothing. Raises ValueError where it cannot be used; it is checked when it is applied."""
    ready, live = spec.get("ready", "start"), spec.get("live") or {}
    waits = kind == Kind.STREAMING and ready != "start"
    if not waits and not live:
        return None
    return Care(
        waits=waits,
        ready=_probe(ready, READY_EVERY, 1) if waits and isinstance(ready, Mapping) else None,
        ready_timeout=seconds(spec.get("ready_timeout", READY_TIMEOUT)) if waits else NEVER,
        live=None if "heartbeat" in live or not live else _probe(live, LIVE_EVERY, LIVE_FAILURES),
        heartbeat=seconds(live["heartbeat"]) if "heartbeat" in live else 0.0,
    )


def _probe(given: Mapping[str, Any], every: str, failures: int) -> Probe:
    return Probe(
        http=str(given.get("http", "")),
        command=tuple(map(str, given.get("command", ()))),
        every=seconds(given.get("every", every)),
        timeout=seconds(given.get("timeout", PROBE_TIMEOUT)),
        failures=int(given.get("failures", failures)),
    )


def begin(care: Care, now: float) -> Health:
    """A job that has just been started."""
    if care.waits:
        return Health(care, now, now, ask_at=now if care.ready else NEVER)
    return became_ready(Health(care, now, now), now)


def became_ready(health: Health, now: float) -> Health:
    """It serves. From here on it has to be alive, and is asked for the first time once it could have failed."""
    if health.ready:
        return health
    ask_at = now + health.care.live.every if health.care.live else NEVER
    return replace(health, ready=True, since=now, ask_at=ask_at, asking=False, failed=0, last="")


def look(health: Health, now: float, *, heard_at: float = 0.0) -> tuple[Health, Step | None]:
    """What is due. heard_at: the job's last sign of life. ASK is answered once, by `answered`."""
    gap = now - health.looked_at - MOST_BETWEEN_LOOKS
    if gap > 0:
        health = replace(health, since=health.since + gap)
    since = max(health.since, heard_at) if health.ready and health.care.heartbeat else health.since
    health = replace(health, looked_at=now, since=since)
    if not health.ready and now - since >= health.care.ready_timeout:
        return health, Step.UNREADY
    if health.ready and health.care.heartbeat and now - since >= health.care.heartbeat:
        return health, Step.DEAD
    if health.probe and not health.asking and now >= health.ask_at:
        return replace(health, asking=True, ask_at=now + health.probe.every), Step.ASK
    return health, None


def answered(health: Health, now: float, problem: str) -> tuple[Health, Step | None]:
    """A probe came back. problem: what was wrong, "" if it was good."""
    probe = health.probe
    if not health.asking or probe is None:
        return health, None  # it was asked before it was ready
    health = replace(health, asking=False, failed=health.failed + 1 if problem else 0, last=problem)
    if not health.ready:
        return (health, None) if problem else (became_ready(health, now), Step.READY)
    return health, Step.DEAD if health.failed >= probe.failures else None


def reason(health: Health) -> str:
    """Why a job is ended that is not ready in time, or not alive."""
    last = f"; its last probe: {health.last}" if health.last else ""
    if not health.ready:
        return f"not ready within {text(health.care.ready_timeout)}{last}"
    if health.care.heartbeat:
        return f"no heartbeat for {text(health.care.heartbeat)}"
    times = "once" if health.failed == 1 else f"{health.failed} times"
    return f"the probe failed {times}: {health.last}"
