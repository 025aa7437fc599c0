"""What becomes of a run that ended. Pure: time and randomness are arguments, the answer is a value.

Batch: exit 0 has succeeded; anything else is tried again while attempts are left (`retries`), after `retry_delay`
doubled each time, capped, with full jitter. Streaming: `restart` decides; the wait begins at 0.2 s and doubles to a minute.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pgsig.condition.duration import seconds, text
from pgsig.model import Kind, State

LONGEST_RETRY = 300.0  # seconds between two attempts of a batch run, at most
FIRST_RESTART, LONGEST_RESTART = 0.2, 60.0  # seconds before a streaming run is restarted
YOUNG = 10.0  # seconds: a streaming run that ends before is crashing
HEALTHY = 60.0  # seconds: one that lasts so long starts with a clean record
CRASH_LOOP = 10  # young ends, without a healthy one between them, after which it is given up
MOST_DOUBLINGS = 30  # far beyond both caps, and short of overflow


class How(StrEnum):
    """How a run came to its end.

    EXITED by itself; KILLED by a signal nobody here sent; TIMED_OUT; NOT_READY in time; NOT_ALIVE any more; NOT_STARTED: it could not
    be spawned; LOST its runner, or the runner its lease; HANDED_OVER by a runner that shuts down; ASKED to stop.
    """

    EXITED = "exited"
    KILLED = "killed"
    TIMED_OUT = "timed_out"
    NOT_READY = "not_ready"
    NOT_ALIVE = "not_alive"
    NOT_STARTED = "not_started"
    LOST = "lost"
    HANDED_OVER = "handed_over"
    ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """exit_code: where it exited. detail: the signal's name, the error of the spawn, why it was lost.
    hopeless: the same attempt would fail in the same way (there is no such program)."""

    how: How
    exit_code: int | None = None
    detail: str = ""
    hopeless: bool = False

    @property
    def good(self) -> bool:
        return self.how is How.EXITED and self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Next:
    """state: what the run is now. delay: seconds until a next attempt, where there is one. reason: for people, "" when all is well.
    failures: young ends in a row, to be given back at the next end. charged: the attempt counts against `retries`."""

    state: State
    delay: float = 0.0
    reason: str = ""
    failures: int = 0
    charged: bool = True


def after(
    kind: Kind | str,
    spec: Mapping[str, Any],
    *,
    outcome: Outcome,
    attempt: int,
    ran_for: float,
    failures_in_a_row: int,
    rng: random.Random,
) -> Next:
    """Decide. attempt: counts from 1. ran_for: seconds. failures_in_a_row: `Next.failures` of the end before, 0 at first.

    A spec that cannot be used fails the run: definitions are checked when they are applied, but one run must not hold up the others.
    """
    try:
        return _after(kind, spec, outcome, attempt, ran_for, failures_in_a_row, rng)
    except (ValueError, TypeError) as error:
        return Next(State.FAILED, reason=f"its definition cannot be used: {error}")


def _after(
    kind: Kind | str,
    spec: Mapping[str, Any],
    outcome: Outcome,
    attempt: int,
    ran_for: float,
    failures: int,
    rng: random.Random,
) -> Next:
    if outcome.how is How.ASKED:
        return Next(State.STOPPED, reason=outcome.detail)
    if outcome.how is How.HANDED_OVER:
        return Next(State.RETRYING, reason=outcome.detail or "handed over: its runner was shut down", charged=False)
    if kind == Kind.STREAMING:
        return _streaming(spec, outcome, ran_for, failures, rng)
    return _batch(spec, outcome, attempt, rng)


def describe(outcome: Outcome, spec: Mapping[str, Any]) -> str:
    """The end of a run in a few words."""
    match outcome.how:
        case How.EXITED:
            return "" if outcome.good else f"exit code {outcome.exit_code}"
        case How.KILLED:
            return f"killed by {outcome.detail}"
        case How.TIMED_OUT:
            return f"timed out after {text(seconds(spec['timeout']))}" if spec.get("timeout") else "timed out"
        case How.NOT_STARTED:
            return f"could not be started: {outcome.detail}"
        case How.LOST:
            return outcome.detail or "its runner was lost"
        case _:
            return outcome.detail


def _batch(spec: Mapping[str, Any], outcome: Outcome, attempt: int, rng: random.Random) -> Next:
    if outcome.good:
        return Next(State.SUCCEEDED)
    reason = describe(outcome, spec)
    if outcome.hopeless or attempt > int(spec.get("retries", 0)):
        return Next(State.LOST if outcome.how is How.LOST else State.FAILED, reason=reason)
    if outcome.how is How.LOST:  # nothing is wrong with the job: no reason to wait
        return Next(State.RETRYING, reason=reason)
    most = min(LONGEST_RETRY, seconds(spec.get("retry_delay", "1s")) * 2.0 ** min(attempt - 1, MOST_DOUBLINGS))
    return Next(State.RETRYING, delay=rng.uniform(0, most), reason=reason)


def _streaming(spec: Mapping[str, Any], outcome: Outcome, ran_for: float, failures: int, rng: random.Random) -> Next:
    policy = spec.get("restart", "always")
    reason = describe(outcome, spec)
    if outcome.how is How.LOST:
        if policy == "never":
            return Next(State.LOST, reason=reason)
        return Next(State.RETRYING, reason=reason, failures=failures)
    if policy == "never" or (policy == "on_failure" and outcome.good):
        return Next(State.SUCCEEDED if outcome.good else State.FAILED, reason=reason)
    if outcome.hopeless:
        return Next(State.FAILED, reason=reason)
    # Between young and healthy neither raises the count nor clears it: the wait stays as it is. Who never served ends young at any age.
    young = ran_for < YOUNG or outcome.how is How.NOT_READY
    failures = failures + young if young or ran_for < HEALTHY else 0
    reason = reason or "ended by itself"
    if failures >= CRASH_LOOP:
        when = "before it was ready" if outcome.how is How.NOT_READY else f"within {YOUNG:g} s of its start"
        return Next(State.FAILED, reason=f"crash loop: ended {failures} times {when}; the last time: {reason}")
    most = min(LONGEST_RESTART, FIRST_RESTART * 2.0 ** min(max(failures - 1, 0), MOST_DOUBLINGS))
    return Next(State.RETRYING, delay=rng.uniform(most / 2, most), reason=reason, failures=failures)
