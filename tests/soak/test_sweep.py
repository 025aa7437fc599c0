"""The sweep has something to provoke each failpoint with, however few the kills are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from pgsig.failpoints import NAMES
from tests.soak.arena import Slot
from tests.soak.schedule import CLOCKS, EMITTERS, WORKERS, homes
from tests.soak.sweep import RUNNERS, Sweep


class Stage:
    """An arena without processes: what is to be done later is done at once, and what is done to a slot is told."""

    def __init__(self) -> None:
        self.slots = {name: Slot(name, 0) for name in (*WORKERS, *RUNNERS, *CLOCKS, *EMITTERS, "a0")}
        self.done: list[tuple[str, object]] = []

    def say(self, text: str) -> None:
        pass

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        what()

    def spawn(self, name: str, failpoints: str) -> None:
        self.done.append(("spawn", name))
        self.slots[name].pid = 1000 + len(self.done)

    def deploy(self, failpoints: str) -> None:
        self.spawn("a0", failpoints)

    def signal(self, name: str, number: int) -> None:
        assert name in self.slots
        self.done.append(("signal", name))

    def freeze(self, pid: int, seconds: float) -> None:
        self.done.append(("freeze", pid))

    def order(self, subject: str, amount: int = 0) -> None:
        self.done.append(("order", subject))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_one_kill_at_one_failpoint_can_be_provoked(name: str) -> None:
    stage = Stage()
    work = Sweep(cast(Any, stage), [name], times=1, seed=1)
    [home] = [home for home in work.homes.values() if home.queue]
    assert home.name in homes(NAMES[name].role, RUNNERS)
    work.begin(home)
    assert home.at == name
    assert stage.done[0] == ("spawn", home.name)


def test_a_worker_with_a_failpoint_of_its_own_is_not_ended_for_another() -> None:
    stage = Stage()
    work = Sweep(cast(Any, stage), ["bell.armed"], times=2, seed=1)
    first, second = [home for home in work.homes.values() if home.queue]
    work.begin(first)
    ended = {what for kind, what in stage.done if kind == "signal"}
    assert ended == set(WORKERS) - {first.name}
    stage.done.clear()
    work.begin(second)
    ended = {what for kind, what in stage.done if kind == "signal"}
    assert ended == set(WORKERS) - {first.name, second.name}
