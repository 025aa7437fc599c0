"""What becomes of a run that ended."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pgsig.decide.retry import CRASH_LOOP, How, Next, Outcome, after
from pgsig.model import State

RNG = random.Random(7)
GOOD, BAD = Outcome(How.EXITED, 0), Outcome(How.EXITED, 3)


def batch(outcome: Outcome, attempt: int = 1, **spec: Any) -> Next:
    return after("batch", spec, outcome=outcome, attempt=attempt, ran_for=1, failures_in_a_row=0, rng=RNG)


def streaming(outcome: Outcome, ran_for: float = 1, failures: int = 0, **spec: Any) -> Next:
    return after("streaming", spec, outcome=outcome, attempt=1, ran_for=ran_for, failures_in_a_row=failures, rng=RNG)


@pytest.mark.parametrize("decide", [batch, streaming])
def test_a_run_that_was_asked_to_stop_has_stopped_however_it_ended(decide: Any) -> None:
    assert decide(Outcome(How.ASKED, 1)).state is State.STOPPED


@pytest.mark.parametrize("decide", [batch, streaming])
def test_a_run_whose_runner_shuts_down_goes_elsewhere_at_once_without_charge(decide: Any) -> None:
    fate = decide(Outcome(How.HANDED_OVER, 0), restart="never")
    assert (fate.state, fate.delay, fate.charged) == (State.RETRYING, 0, False)


def test_batch_by_exit_code() -> None:
    assert batch(GOOD) == Next(State.SUCCEEDED)
    assert batch(BAD) == Next(State.FAILED, reason="exit code 3")
    assert batch(Outcome(How.KILLED, None, "SIGKILL")).reason == "killed by SIGKILL"
    assert batch(Outcome(How.TIMED_OUT), timeout="90s").reason == "timed out after 1m30s"


def test_batch_is_tried_again_while_attempts_are_left() -> None:
    assert batch(BAD, 1, retries=2).state is State.RETRYING
    assert batch(BAD, 2, retries=2).state is State.RETRYING
    assert batch(BAD, 3, retries=2).state is State.FAILED
    assert batch(Outcome(How.TIMED_OUT), 1, retries=1, timeout=5).state is State.RETRYING


def test_batch_waits_longer_each_time_with_full_jitter_and_never_beyond_the_cap() -> None:
    delays = [[batch(BAD, n, retries=2000, retry_delay="2s").delay for _ in range(200)] for n in (1, 3, 1500)]
    for found, most in zip(delays, (2, 8, 300), strict=True):
        assert 0 <= min(found) < most * 0.2
        assert most * 0.8 < max(found) <= most


def test_what_cannot_be_started_is_not_tried_again_unless_that_may_help() -> None:
    absent = Outcome(How.NOT_STARTED, detail="No such file or directory: nothing", hopeless=True)
    assert batch(absent, retries=5) == Next(
        State.FAILED, reason="could not be started: No such file or directory: nothing"
    )
    assert streaming(absent).state is State.FAILED
    busy = Outcome(How.NOT_STARTED, detail="Resource temporarily unavailable: python")
    assert batch(busy, retries=5).state is State.RETRYING
    assert streaming(busy).state is State.RETRYING


def test_lost_batch_is_tried_again_within_its_retries_else_lost() -> None:
    assert batch(Outcome(How.LOST)) == Next(State.LOST, reason="its runner was lost")
    assert batch(Outcome(How.LOST), retries=1) == Next(State.RETRYING, reason="its runner was lost")


@pytest.mark.parametrize(
    ("policy", "outcome", "state"),
    [
        ("always", GOOD, State.RETRYING),
        ("always", BAD, State.RETRYING),
        ("on_failure", GOOD, State.SUCCEEDED),
        ("on_failure", BAD, State.RETRYING),
        ("never", GOOD, State.SUCCEEDED),
        ("never", BAD, State.FAILED),
        ("always", Outcome(How.LOST), State.RETRYING),
        ("on_failure", Outcome(How.LOST), State.RETRYING),
        ("never", Outcome(How.LOST), State.LOST),
    ],
)
def test_streaming_by_its_restart_policy(policy: str, outcome: Outcome, state: State) -> None:
    assert streaming(outcome, restart=policy).state is state


def test_streaming_restarts_after_a_wait_that_doubles_to_a_minute() -> None:
    failures, longest = 0, []
    for _ in range(CRASH_LOOP - 1):
        fate = streaming(BAD, failures=failures)
        assert fate.state is State.RETRYING
        failures = fate.failures
        longest.append(fate.delay)
    assert 0.1 <= longest[0] <= 0.2
    assert all(0.1 * 2**n <= delay <= min(60, 0.2 * 2**n) for n, delay in enumerate(longest))
    assert streaming(GOOD, ran_for=30, failures=9).delay <= 60


def test_streaming_that_keeps_crashing_fails_with_the_reason() -> None:
    fate = streaming(BAD, failures=CRASH_LOOP - 1)
    assert fate.state is State.FAILED
    assert fate.reason == "crash loop: ended 10 times within 10 s of its start; the last time: exit code 3"


def test_a_healthy_minute_clears_the_record_and_a_middling_time_leaves_it() -> None:
    assert streaming(BAD, ran_for=61, failures=9).failures == 0
    assert streaming(BAD, ran_for=30, failures=9).failures == 9
    assert streaming(Outcome(How.LOST), failures=5).failures == 5
