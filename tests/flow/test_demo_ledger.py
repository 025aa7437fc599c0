"""The demonstration adds up the ledger: that it notices when something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsig.demo.ledger
from pgsig.definition import Definition, load
from pgsig.demo import ledger
from pgsig.engine import Engine
from pgsig.store import definitions

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def applied(connection: Connection) -> Definition:
    definition = load(Path(pgsig.demo.ledger.__file__).with_name("workflow.yaml"))
    definitions.apply(connection, definition)
    return definition


def emit(connection: Connection, key: str, value: str = "null", subject: str = "") -> None:
    connection.execute("SELECT pgsig.emit(%s, %s::jsonb, %s)", [key, value, subject])


def decide(connection: Connection) -> None:
    engine = Engine(connection)
    while engine.step().taken:
        pass


def test_signal_without_an_outcome_is_named(connection: Connection, applied: Definition) -> None:
    decide(connection)
    span = ledger.here(connection)
    for number in range(1, 4):
        emit(connection, "model.trained", f'{{"model": "m{number}"}}', f"m{number}")
    emit(connection, "nobody.cares")
    found = ledger.balance(connection, applied, span)
    assert found.pairs == 3
    assert len(found.open) == 3
    assert all(name.startswith("evaluate.start: signal ") for name in found.open)
    decide(connection)
    found = ledger.balance(connection, applied, span)
    assert (found.pairs, found.open, found.twice, found.actions) == (3, (), 0, 3)
    count, median, longest = ledger.latency(connection, span)
    assert count == 3
    assert 0 < (median or 0) <= (longest or 0)


def test_newest_verdict_may_wait_and_older_ones_may_not(connection: Connection, applied: Definition) -> None:
    span = ledger.here(connection)
    decide(connection)
    emit(connection, "ops.freeze", '"on"')
    for number in range(1, 4):
        emit(connection, "model.validated", '{"verdict": "passed"}', f"m{number}")
    decide(connection)
    assert ledger.balance(connection, applied, span).open == ()
    assert ledger.one(connection, "SELECT count(*) FROM pgsig.actions WHERE action = 'RELOAD'") == 0
    assert ledger.one(connection, "SELECT count(*) FROM pgsig.outcomes WHERE outcome = 'superseded'") == 2
    # The end of the freeze lets the newest one through, and no other.
    emit(connection, "ops.freeze", '"off"')
    decide(connection)
    reloads = connection.execute(
        "SELECT s.subject FROM pgsig.actions a JOIN pgsig.signals s ON s.id = ANY (a.evidence) WHERE a.action = 'RELOAD'"
    ).fetchall()
    assert reloads == [("m3",)]
    assert ledger.figures(connection, span).frozen is False


@pytest.mark.usefixtures("applied")
def test_events_are_told_once_and_in_order(connection: Connection) -> None:
    decide(connection)
    found, span = ledger.events(connection, ledger.Span(0, 0))
    assert {(event.what, event.operator, event.detail) for event in found} == {
        ("START", "train", "autostart"),
        ("START", "serve", "autostart"),
    }
    assert ledger.events(connection, span) == ([], span)
    emit(connection, "config.changed", '{"min_confidence": 0.5}')
    decide(connection)
    found, span = ledger.events(connection, span)
    assert [(event.what, event.operator, event.result, event.detail) for event in found] == [
        ("RESTART", "serve", "recorded", "config.changed")
    ]


@pytest.mark.usefixtures("applied")
def test_state_of_what_never_ran(connection: Connection) -> None:
    assert ledger.state(connection, "report") == "never_run"
