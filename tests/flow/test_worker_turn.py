"""What a worker does between two takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgsig.engine import Step
from pgsig.settings import Settings
from pgsig.worker import GLANCE, SETTLE, Worker


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return []


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Worker]:
    """One without a database: its bell is held, and nobody rings."""
    found = Worker(Settings(database_url=""), name="w")
    monkeypatch.setattr(found.bell, "wait", waits.append)
    monkeypatch.setattr(found.bell, "arm", lambda: False)
    monkeypatch.setattr(found.bell, "announce", print)
    monkeypatch.setattr(found, "tend", lambda _: None)
    found.bell.held = True
    yield found
    found.bell.close()


class Lanes:
    """An engine, by what its steps find."""

    heeds_starts = False

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.trust = 2

    def step(self, *_: object, **__: object) -> Step:
        return self.steps.pop(0)


class Talk:
    def __init__(self, engine: Lanes) -> None:
        self.engine: Any = engine


def test_after_a_take_of_one_lane_the_others_are_looked_at_soon(worker: Worker, waits: list[float]) -> None:
    """Two signals of one commit in two lanes ring once: the second would wait for all that a worker waits for after a take."""
    talk = Talk(Lanes(Step(1, 1, 1, elsewhere=True), Step(1, 1, 2)))
    worker.turn(talk)  # type: ignore[arg-type]
    assert (waits, talk.engine.trust) == ([GLANCE], 0)
    worker.turn(talk)  # type: ignore[arg-type]
    assert waits == [GLANCE, SETTLE]
    assert GLANCE < SETTLE
