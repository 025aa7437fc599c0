"""What a runner has to tell, and when: `pgsig.runner.outbox`, without a database."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from pgsig.model import State
from pgsig.runner.outbox import Outbox
from pgsig.runner.output import Copier
from pgsig.runner.session import SayReady, SayState, Session
from pgsig.store import jobs
from pgsig.store.jobs import Grant, Report

TOLD: list[list[State]] = []


class Quiet(Copier):
    """Nothing is printed here."""

    def copy(self, *_: Any, **__: Any) -> None:
        """Nothing."""


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    def report(_: object, *reports: Report) -> list[bool]:
        TOLD.append([one.state for one in reports])
        return [True for _ in reports]

    monkeypatch.setattr(jobs, "report", report)
    monkeypatch.setattr(jobs, "ready", lambda *_: True)
    TOLD.clear()
    return Outbox(Quiet(1024, ()), lambda *_: None)


def begun(by: float, run: int = 1) -> SayState:
    return SayState(session(run), Report(run, 2, State.RUNNING), by=by)


def ended(run: int = 1) -> SayState:
    return SayState(session(run), Report(run, 2, State.SUCCEEDED))


def session(run: int = 1) -> Session:
    return Session(Grant(run, 2, 1, 1, "default", "w", "o", "", "batch", {}))


def test_a_beginning_is_told_together_with_the_end(outbox: Outbox) -> None:
    outbox.put([begun(monotonic() + 60)])
    assert 50 < outbox.by - monotonic() < 61
    outbox.put([ended()])
    assert outbox.by <= monotonic()
    outbox.tell(None)  # type: ignore[arg-type]
    assert TOLD == [[State.RUNNING, State.SUCCEEDED]]
    assert outbox.by == float("inf")


def test_a_beginning_is_told_alone_once_it_has_waited(outbox: Outbox) -> None:
    outbox.put([begun(monotonic() - 0.001)])
    assert outbox.by <= monotonic()


def test_what_cannot_wait_takes_along_what_was_said_before(outbox: Outbox) -> None:
    outbox.put([begun(monotonic() + 60), begun(monotonic() + 60, run=2)])
    outbox.put([SayReady(session())])
    assert outbox.by <= monotonic()
    outbox.tell(None)  # type: ignore[arg-type]
    assert TOLD == [[State.RUNNING, State.RUNNING]]
    assert not outbox


def test_what_is_dropped_is_awaited_no_more(outbox: Outbox) -> None:
    outbox.put([begun(0.0)])
    outbox.drop()
    assert outbox.by == float("inf")
