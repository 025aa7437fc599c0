"""Examples of the machine that failed once, and the shortest way to each bug that it was made to find. Each step is judged as there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgsig.store.database import connect
from tests.flow.machine_steps import Model

A, B = {"signal": "a"}, {"signal": "b"}
JOB = {"batch": {"command": ["true"]}}


@pytest.fixture
def model(database: str) -> Iterator[Model]:
    with connect(database, name="floor") as floor:
        Model.dsn, Model.floor = database, floor
        Model.names = Model.two_lanes(floor)
        machine = Model()
        yield machine
        machine.teardown()


def begin(model: Model, **rules: Any) -> None:
    model.begin({"x": {**JOB, **rules}}, {"x": {**JOB, "start": A}})


def emit(model: Model, *events: tuple[str, str, str]) -> None:
    for key, value, subject in events:
        model.emit(0, 0, key, value, subject, 0)


def test_what_is_put_aside_is_so_for_every_rule_that_names_its_key(model: Model) -> None:
    begin(model, start=[{**A, "eq": 1}, {**A, "changed": True}])
    emit(model, ("a", '"bad"', ""))
    model.step(0, 100)


def test_a_signal_without_the_path_reaches_every_live_instance(model: Model) -> None:
    begin(model, stop=[{"all": [A, B], "by": "$.k"}])
    model.order(0, "w.x", "START", "s")
    model.meet(0, "engine.taken", 0, 0, "a", "s", dies=False)


@pytest.mark.parametrize("limit", [1, 100])
def test_a_level_that_is_an_edge_as_well(model: Model, limit: int) -> None:
    begin(model, start=[{"all": [A, {**A, "sticky": True}]}])
    emit(model, *[("a", "1", "s")] * 3)
    while model.step(0, limit):
        pass


@pytest.mark.parametrize("limit", [1, 100])
def test_a_stop_for_all_in_the_batch_of_its_start(model: Model, limit: int) -> None:
    begin(model, start=A, stop=B, restart={"signal": "c"})
    emit(model, ("a", "1", "s"), ("b", "1", ""), ("c", "1", ""), ("b", "1", ""))
    while model.step(0, limit):
        pass


@pytest.mark.parametrize("limit", [1, 100])
def test_an_instance_with_nothing_left_is_not_there_any_more(model: Model, limit: int) -> None:
    begin(model, start={"all": [A, B]})
    emit(model, ("a", "1", "s"), ("b", "1", "s"), ("a", "1", ""), ("b", "1", "s"))
    while model.step(0, limit):
        pass


def test_time_goes_on_over_a_pause_that_drops(model: Model) -> None:
    begin(model, start={**A, "debounce": "5s"})
    emit(model, ("a", "1", "s"))
    model.step(0, 100)
    model.pause(0, "w", "drop")
    model.pass_time(30)
    model.pause(0, "w", None)
    model.step(1, 100)
    assert model.ask("SELECT count(*) FROM pgsig.actions WHERE action = 'START'") == 1


@pytest.mark.parametrize("point", ["engine.taken", "engine.decided", "engine.recorded", "engine.committed"])
def test_a_crash_at_each_point(model: Model, point: str) -> None:
    begin(model, start={"all": [A, B]})
    emit(model, ("a", "1", "s"), ("b", "1", "s"))
    model.crash(0, point, 100)
    model.step(1, 100)
    assert model.ask("SELECT count(*) FROM pgsig.actions") == 1
