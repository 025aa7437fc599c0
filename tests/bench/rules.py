"""MANY RULES: what a worker's step takes for a signal that comes alone, and for the first one after somebody applied a workflow or resumed
an operator, with ten rules and with very many."""

from __future__ import annotations

import time
from collections.abc import Callable

from pgsig.engine import Engine
from pgsig.store.definitions import apply
from tests.bench.report import Report, paired
from tests.bench.server import Connection, Server, connect
from tests.support_core import many_rules

FEW, WORKFLOWS = 10, 10  # others than the one that is at work


def measure(server: Server, report: Report, *, rounds: int, signals: int, most_rules: int) -> None:
    found: dict[str, tuple[list[float], list[float]]] = {}
    with server.database() as one, server.database() as other, connect(one) as few, connect(other) as many:
        places = [_Place(few, one, FEW), _Place(many, other, most_rules)]
        for place in places:
            report.figure(f"all definitions are read, {place.rules:,} rules", [place.begin()], "ms")
        for _ in range(rounds):
            for what, act in PIECES.items():
                for place, into in zip(places, found.setdefault(what, ([], [])), strict=True):
                    into.append(act(place, signals))
        for place in places:
            place.engine.connection.close()
    for what, (of_few, of_many) in found.items():
        report.figure(f"{what}, {FEW} rules", of_few, "ms")
        report.figure(f"{what}, {most_rules:,} rules", of_many, "ms")
        goal = "≤ 1.2" if what == ALONE else ""
        report.ratio(f"{what}: {most_rules:,} rules / {FEW} rules", paired(of_many, of_few), goal)


class _Place:
    """A database with so many rules, and an engine."""

    def __init__(self, log: Connection, address: str, rules: int) -> None:
        self.log, self.rules, self.version = log, rules, 0
        many_rules(log, WORKFLOWS, rules // WORKFLOWS)
        self.engine = Engine(connect(address))

    def begin(self) -> float:
        self.change()
        return self.first()

    def change(self) -> None:
        self.version += 1
        train = {"streaming": {"command": ["train", str(self.version)]}, "start": {"signal": "data.ready"}}
        apply(self.log, {"workflow": "shop", "operators": {"train": train}})

    def first(self) -> float:
        """ms until the next signal is evaluated."""
        self.log.execute("SELECT pgsig.emit('data.ready')")
        begin = time.perf_counter()
        while not self.engine.step(1).taken:
            pass
        return (time.perf_counter() - begin) * 1e3


def _alone(place: _Place, signals: int) -> float:
    """The mean of many."""
    return sum(place.first() for _ in range(signals)) / signals


def _after_an_apply(place: _Place, _: int) -> float:
    place.change()
    return place.first()


def _after_a_pause(place: _Place, _: int) -> float:
    for said in ("pause", "resume"):
        place.log.execute(f"SELECT pgsig.{said}('shop.train')".encode())
        while not place.engine.step(1).taken:
            pass
    return place.first()


ALONE = "a signal that comes alone"
PIECES: dict[str, Callable[[_Place, int], float]] = {
    ALONE: _alone, "the first signal after an apply": _after_an_apply, "the first signal after a resume": _after_a_pause,
}  # fmt: skip
