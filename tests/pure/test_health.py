"""Whether a job is ready and alive: when it is asked, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

from pgsig.decide.health import Care, Health, Probe, Step, answered, became_ready, begin, care, look, reason
from pgsig.decide.retry import CRASH_LOOP, How, Outcome
from pgsig.model import State
from tests.pure.test_retry import batch, streaming

URL = "http://127.0.0.1:{port}/health"
HTTP = {"http": URL}


def cared(**spec: Any) -> Care:
    found = care("streaming", spec)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "spec", "wanted"),
    [
        ("streaming", {}, None),
        ("streaming", {"ready": "start"}, None),
        ("batch", {"ready": "api"}, None),
        ("streaming", {"ready": "api"}, Care(waits=True, ready_timeout=60)),
        ("streaming", {"ready": HTTP}, Care(waits=True, ready_timeout=60, ready=Probe(http=URL))),
        (
            "streaming",
            {"ready": {"command": ["is", "up"], "every": "2s", "timeout": "3s"}, "ready_timeout": "5m"},
            Care(waits=True, ready_timeout=300, ready=Probe(command=("is", "up"), every=2, timeout=3)),
        ),
        ("batch", {"live": {"heartbeat": "30s"}}, Care(heartbeat=30)),
        ("streaming", {"live": HTTP}, Care(live=Probe(http=URL, every=10, failures=3))),
        ("streaming", {"live": {**HTTP, "every": 5, "failures": 1}}, Care(live=Probe(http=URL, every=5, failures=1))),
    ],
)
def test_what_a_definition_asks_for(kind: str, spec: dict[str, Any], wanted: Care | None) -> None:
    assert care(kind, spec) == wanted


def play(health: Health, events: list[tuple[float, Any]]) -> tuple[Health, list[tuple[float, Step]]]:
    """Looks each half second and at each event: "ready" is the job's own word, "heard" a sign of life, None nothing, all else what was
    wrong when a probe came back."""
    steps, heard, now = [], 0.0, health.looked_at
    for at, event in events:
        while now + 0.5 < at:
            now += 0.5
            health, step = look(health, now, heard_at=heard)
            steps += [(now, step)] if step else []
        now, step = at, None
        if event == "ready":
            health = became_ready(health, now)
        elif event == "heard":
            heard = now
        elif isinstance(event, str):
            health, step = answered(health, now, event)
        else:
            health, step = look(health, now, heard_at=heard)
        steps += [(now, step)] if step else []
    return health, steps


A, R, U, D = Step.ASK, Step.READY, Step.UNREADY, Step.DEAD
READY_HTTP, LIVE_HTTP = {"ready": {**HTTP, "every": "2s"}}, {"live": {**HTTP, "every": "2s", "failures": 2}}


@pytest.mark.parametrize(
    ("spec", "events", "wanted", "why"),
    [
        # Asked at once, then each two seconds; one good answer is enough, and then it is not asked any more.
        (READY_HTTP, [(0, None), (0.2, "refused"), (2, None), (2.1, ""), (9, None)], [(0, A), (2, A), (2.1, R)], ""),
        # While an answer is awaited no other is asked for.
        (READY_HTTP, [(0, None), (5, None), (5.1, "no answer"), (5.5, None)], [(0, A), (5.5, A)], ""),
        # Its own word counts as well, and an answer that comes after it is of no use.
        ({**READY_HTTP, **LIVE_HTTP}, [(0, None), (0.1, "ready"), (0.2, "refused"), (1.5, None)], [(0, A)], ""),
        ({"ready": "api", "ready_timeout": "3s"}, [(2, "ready"), (9, None)], [], ""),
        ({"ready": "api", "ready_timeout": "3s"}, [(2.9, None), (3, None)], [(3, U)], "not ready within 3s"),
        (
            {**READY_HTTP, "ready_timeout": "3s"},
            [(0, None), (0.1, "status 503"), (2, None), (2.1, "status 502"), (3, None)],
            [(0, A), (2, A), (3, U)],
            "not ready within 3s; its last probe: status 502",
        ),
        # Alive: the first question after the first interval; failures count in a row only.
        (LIVE_HTTP, [(2, None), (2.1, "x"), (4, None), (4.1, ""), (6, None), (6.1, "x")], [(2, A), (4, A), (6, A)], ""),
        (
            LIVE_HTTP,
            [(2, None), (2.1, "x"), (4, None), (4.1, "status 500")],
            [(2, A), (4, A), (4.1, D)],
            "the probe failed 2 times: status 500",
        ),
        # Before it is ready nobody asks whether it is alive.
        (
            {**LIVE_HTTP, "ready": "api"},
            [(5, None), (6, "ready"), (7.9, None), (8, None)],
            [(8, A)],
            "",
        ),
        ({"live": {"heartbeat": "3s"}}, [(2.5, "heard"), (5, "heard"), (7.5, None)], [], ""),
        ({"live": {"heartbeat": "3s"}}, [(2.5, "heard"), (5.5, None)], [(5.5, D)], "no heartbeat for 3s"),
        ({"live": {"heartbeat": "3s"}, "ready": "api"}, [(9, "ready"), (11.5, None), (12, None)], [(12, D)], "no heartbeat for 3s"),
    ],
)  # fmt: skip
def test_what_happens(
    spec: dict[str, Any], events: list[tuple[float, Any]], wanted: list[tuple[float, Step]], why: str
) -> None:
    health, steps = play(begin(cared(**spec), 0), events)
    assert steps == wanted
    if why:
        assert reason(health) == why


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """A runner that was frozen has heard nothing: its jobs get the chance to say something first."""
    health = begin(cared(live={"heartbeat": "30s"}), 0)
    health, step = look(health, 1000)
    assert step is None
    health, step = look(health, 1001, heard_at=1000.5)
    assert step is None
    assert health.look_at == 1030.5
    # Where it looks as it should, nothing is forgiven.
    seen = [look(health, now)[1] for now in (1002, 1003)]
    assert seen == [None, None]
    for now in range(1002, 1032):
        health, step = look(health, now)
    assert step is Step.DEAD


def test_when_to_look_next() -> None:
    assert begin(cared(ready="api", ready_timeout="5s"), 100).look_at == 105
    health = begin(cared(ready=HTTP), 100)
    assert health.look_at == 100
    health, _ = look(health, 100)
    assert health.look_at == 160
    assert answered(health, 100.2, "x")[0].look_at == 101
    assert begin(cared(live={"heartbeat": "7s"}), 100).look_at == 107


@pytest.mark.parametrize("how", [How.NOT_READY, How.NOT_ALIVE])
def test_what_becomes_of_a_run_that_was_ended_for_it(how: How) -> None:
    outcome = Outcome(how, 0, "no heartbeat for 30s")
    # It ended with 0 when it was asked to: that does not make it good.
    assert streaming(outcome, restart="on_failure").state is State.RETRYING
    assert streaming(outcome, restart="never").state is State.FAILED
    assert batch(outcome, retries=1).state is State.RETRYING
    assert (batch(outcome).state, batch(outcome).reason) == (State.FAILED, "no heartbeat for 30s")


def test_who_never_gets_ready_is_given_up_however_long_it_took() -> None:
    outcome = Outcome(How.NOT_READY, None, "not ready within 10m")
    assert streaming(outcome, ran_for=600, failures=3).failures == 4
    given_up = streaming(outcome, ran_for=600, failures=CRASH_LOOP - 1)
    assert (given_up.state, given_up.reason) == (
        State.FAILED,
        "crash loop: ended 10 times before it was ready; the last time: not ready within 10m",
    )
    # One that served for long and then hung starts with a clean record.
    assert streaming(Outcome(How.NOT_ALIVE), ran_for=600, failures=3).failures == 0
