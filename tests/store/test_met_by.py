"""Conditions that are SQL functions: whether they exist, and take and give what a condition does, is found out before an apply."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgsig.errors import InvalidInput
from pgsig.store.definitions import apply, catalog, plan

Connection = psycopg.Connection[Any]
FUNCTIONS = """
CREATE SCHEMA ops;
CREATE FUNCTION ops.inout(signal jsonb, INOUT state jsonb, OUT met boolean) LANGUAGE sql RETURN (state, true);
CREATE FUNCTION ops.named(signal jsonb, before jsonb) RETURNS TABLE (state jsonb, met boolean) LANGUAGE sql
    BEGIN ATOMIC SELECT before, true; END;
CREATE FUNCTION ops.more(signal jsonb, INOUT state jsonb, OUT met boolean, OUT note text) LANGUAGE sql RETURN (state, true, '');
CREATE FUNCTION ops.texts(signal text, INOUT state jsonb, OUT met boolean) LANGUAGE sql RETURN (state, true);
CREATE FUNCTION ops.flag(signal jsonb, state jsonb) RETURNS boolean LANGUAGE sql RETURN true;
CREATE FUNCTION ops.swapped(signal jsonb, old jsonb, OUT met boolean, OUT state jsonb) LANGUAGE sql RETURN (true, old);
CREATE PROCEDURE ops.procedure(signal jsonb, INOUT state jsonb) LANGUAGE sql BEGIN ATOMIC SELECT state; END;
CREATE FUNCTION ops.overloaded(a text) RETURNS text LANGUAGE sql RETURN a;
CREATE FUNCTION ops.overloaded(signal jsonb, INOUT state jsonb, OUT met boolean) LANGUAGE sql RETURN (state, true);
"""


def asking(*names: str) -> dict[str, Any]:
    start = [{"signal": "a", "met_by": name} for name in names]
    return {"workflow": "w", "operators": {"op": {"batch": {"command": ["true"]}, "start": start}}}


@pytest.fixture
def database_with_functions(connection: Connection) -> Connection:
    connection.execute(FUNCTIONS.encode())
    return connection


def test_functions_that_fit_are_taken(database_with_functions: Connection) -> None:
    names = ("ops.inout", "ops.named", "ops.more", "ops.overloaded")
    apply(database_with_functions, asking(*names))
    (operator,) = catalog(database_with_functions)
    assert [rule.condition["met_by"] for rule in operator.rules] == list(names)


def test_all_that_do_not_fit_are_named_at_once_with_a_remedy(database_with_functions: Connection) -> None:
    wanted = {
        "ops.nothing": "there is no SQL function ops.nothing",
        "nowhere.is_met": "there is no SQL function nowhere.is_met",
        "ops.texts": "ops.texts does not take (signal jsonb, state jsonb)",
        "ops.procedure": "ops.procedure does not take (signal jsonb, state jsonb)",
        "ops.flag": "ops.flag does not answer with state jsonb, met boolean",
        "ops.swapped": "ops.swapped does not answer with state jsonb, met boolean",
    }
    for use in (plan, apply):
        with pytest.raises(InvalidInput) as refused:
            use(database_with_functions, asking(*wanted))
        problems = refused.value.problems
        assert [(problem.code, problem.message) for problem in problems] == [
            ("PS528", what) for what in wanted.values()
        ]
        assert [problem.where for problem in problems] == [
            f"/operators/op/start/{i}/met_by" for i in range(len(wanted))
        ]
        assert problems[0].fix == "create it: FUNCTION ops.nothing(signal jsonb, INOUT state jsonb, OUT met boolean)"
    assert catalog(database_with_functions) == []
