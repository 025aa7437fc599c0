"""A job that waits for signals: its runner listens as long as it does, and hears of all that are committed, whoever says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from pgsig.runner import ears as module
from pgsig.runner.door import Door
from pgsig.runner.ears import KEEP, Ears
from pgsig.runner.lines import RUNS, SIGNALS, Lines
from pgsig.runner.session import Session
from pgsig.runner.waiting import Waker
from pgsig.settings import Settings
from pgsig.store.jobs import Grant
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_core import Background, Connection, Rings, awake, one, workers

POLL = 30.0  # seconds: nothing here may come of polling


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def ears(woken: threading.Event) -> Ears:
    found = Ears()
    found.wake = woken.set
    return found


def wants(ears: Ears) -> bool:
    return ears.wanted


def test_it_is_listened_to_signals_only_while_somebody_waits_for_some(ears: Ears, woken: threading.Event) -> None:
    assert wants(ears) is False
    waits = Background(lambda: ears.wait(ears.rung, POLL))
    wait_for(woken)
    assert wants(ears) is True
    ears.listening(True)
    waits.result()  # what was committed before that rang nobody
    woken.clear()
    ears.wait(ears.rung, 0)  # again, at once
    assert not woken.is_set()


def test_what_rings_during_a_look_is_not_waited_for(ears: Ears) -> None:
    rung = ears.rung
    ears.ring()
    begun = monotonic()
    ears.wait(rung, POLL)
    assert monotonic() - begun < POLL / 2


@pytest.mark.parametrize("moment", ["between its two looks", "after both"])
def test_who_comes_when_the_minute_is_over_is_heard(
    ears: Ears, woken: threading.Event, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Just when the connection's thread has seen that nobody waits, and before it has stopped to listen."""
    ears.wait(ears.rung, 0)
    ears.listening(wants(ears))
    woken.clear()
    looks, late = list[str](), monotonic() + KEEP + 1

    def clock() -> float:
        looks.append("one")
        if len(looks) == 2 and moment == "between its two looks":
            ears.wait(ears.rung, 0)
        return late

    monkeypatch.setattr(module, "monotonic", clock)
    wanted = wants(ears)
    if moment == "after both":
        assert not wanted
        ears.wait(ears.rung, 0)
    assert wanted or woken.is_set()


@contextmanager
def door(database: str) -> Iterator[tuple[Door, Callable[..., Any]]]:
    """One behind which nobody listens, and a way to ask it for signals as a job would."""
    opened = Door(Settings(database_url=database, poll_seconds=POLL))
    session = Session(Grant(1, 2, 1, 1, "default", "w", "o", "", "batch", {}))
    opened.admit(session)
    try:
        yield opened, lambda query: opened.answer("GET", f"/signals?{query}", f"Bearer {session.token}", None)
    finally:
        opened.close()


def test_who_waits_for_nothing_is_listened_for_by_nobody(database: str, connection: Connection) -> None:
    """Nor who finds something at once: without a connection that listens, either would look all the same."""
    before = one(connection, "SELECT pg_current_snapshot()::text")
    number = one(connection, "SELECT pgsig.emit('k')")
    with door(database) as (opened, ask):
        opened.ears.wake = lambda: pytest.fail("nobody has to listen")
        assert f'"id": {number}' in ask(f"pattern=k&after={before}&wait=20")
        assert '"signals": []' in ask(f"pattern=other&after={before}")
        assert not opened.ears.wanted


def test_who_waits_while_the_connection_is_away_looks_at_once_and_again_when_it_is_back(
    database: str, connection: Connection
) -> None:
    before = one(connection, "SELECT pg_current_snapshot()::text")
    waits = threading.Event()
    with door(database) as (opened, ask):
        opened.ears.wake = waits.set
        asked = Background(lambda: ask(f"pattern=k&after={before}&wait=20"))
        wait_for(waits)
        number = one(connection, "SELECT pgsig.emit('k')")
        opened.ears.listening(True)
        assert f'"id": {number}' in asked.result()


def test_what_a_worker_announces_says_that_there_are_signals(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    lines, waker = Lines(do.settings(database, tmp_path), "here"), Waker()

    def said(*channels: str) -> set[tuple[str, str]]:
        for channel in (*channels, RUNS):
            connection.execute(f"NOTIFY {channel}".encode())
        heard: set[tuple[str, str]] = set()
        while (RUNS, "") not in heard:
            heard |= lines.wait(waker, POLL)
        return heard - {(RUNS, "")}

    try:
        for listens in (True, False):
            lines.listen(listens)
            expected = {(SIGNALS, "")} if listens else set()
            assert [said(channel) for channel in ("pgsig_signals", "pgsig_changes")] == [expected, expected]
    finally:
        lines.close()
        waker.close()


def test_a_job_hears_signals_while_a_worker_is_kept_awake(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    """Nobody rings then. What the worker announces has to do."""
    operator = do.operator(connection, "listen", "streaming", python="tests.runner_jobs:listen")
    chosen = do.settings(database, tmp_path, poll_seconds=POLL)
    with do.running(chosen), workers(database, poll_seconds=POLL) as (worker,), Rings(database) as rings:
        run = do.start(connection, operator)
        wait_for(lambda: "listening" in do.output(connection, run))
        with awake(database, worker):
            silent = number = 0
            while silent < 5:
                number += 1
                rings.since()
                connection.execute("SELECT pgsig.emit('config.n', to_jsonb(%s))", [number])
                wait_for(lambda: f"heard config.n {number}\n" in do.output(connection, run), 5)  # noqa: B023
                silent += rings.since() == 0
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped")
