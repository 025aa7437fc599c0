"""Parameters that an operator takes: checked at the apply, and at each order by hand, in the same words."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pgsig.definition import parse
from pgsig.definition.accepts import unfit
from pgsig.errors import InvalidInput
from pgsig.store import doors, trigger_orders
from pgsig.store.definitions import apply

Connection = psycopg.Connection[Any]
TAKES = {
    "rows": {"type": "integer", "least": 1, "most": 1000},
    "mode": {"one_of": ["fast", "deep"], "required": True},
    "share": {"type": "number"},
    "name": {"type": "text"},
    "deep": {"type": "flag"},
    "parts": {"type": "list"},
    "more": {"type": "object"},
}


def workflow(start: Any = None, **spec: Any) -> dict[str, Any]:
    operator: dict[str, Any] = {"batch": {"command": ["true"], "accepts": TAKES, **spec}}
    return {"workflow": "w", "operators": {"job": operator | ({"start": start} if start else {})}}


def test_what_is_given_by_hand_is_checked_in_the_words_of_the_apply(connection: Connection) -> None:
    apply(connection, workflow({"every": "1h"}))
    wrong: list[dict[str, Any]] = [
        {"rows": 0}, {"rows": 1001}, {"rows": 1.5}, {"rows": "5"}, {"rows": True}, {"mode": "slow"}, {"share": "x"}, {"name": 5},
        {"deep": 1}, {"parts": {}}, {"more": []}, {"speed": 3}, {"rows": None},
    ]  # fmt: skip
    for given in wrong:
        params = {"mode": "fast", **given}
        said = [f"/params/{name}: {what}" for name, what in unfit(params, TAKES)]
        assert len(said) == 1
        for order in (
            lambda params=params: doors.act_on(connection, "w.job", "START", params=json.dumps(params)),
            lambda params=params: trigger_orders.fire_now(connection, "w.job", params=params),
        ):
            with pytest.raises(InvalidInput) as caught:
                order()
            assert [f"{problem.where}: {problem.message}" for problem in caught.value.problems] == said
    assert connection.execute("SELECT count(*) FROM pgsig.signals").fetchone() == (0,)


def test_what_fits_is_taken_and_what_is_needed_is_asked_for(connection: Connection) -> None:
    apply(connection, workflow())
    good = '{"rows": 1000, "mode": "deep", "share": 0.5, "name": "x", "deep": false, "parts": [], "more": {}}'
    assert doors.act_on(connection, "w.job", "START", params=good)
    with pytest.raises(InvalidInput, match="PS210 /params/mode: is needed"):
        doors.act_on(connection, "w.job", "START")
    assert doors.act_on(connection, "w.job", "STOP")
    apply(connection, workflow(params={"mode": "fast"}))
    assert doors.act_on(connection, "w.job", "START")


def test_an_operator_that_says_nothing_takes_anything(connection: Connection) -> None:
    apply(connection, {"workflow": "w", "operators": {"job": {"batch": {"command": ["true"]}}}})
    assert doors.act_on(connection, "w.job", "START", params='{"whatever": [1]}')


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (workflow(params={"rows": 0}), "PS517 /operators/job/batch/params/rows: is at least 1"),
        (workflow({"every": "1h", "params": {"mode": "slow"}}), "PS517 /operators/job/start: params of every-"),
        (workflow(accepts=[1]), "PS523 /operators/job/batch/accepts"),
        (workflow(accepts={"a b": {}}), "PS523 /operators/job/batch/accepts/a b"),
        (workflow(accepts={"a": {"type": "int"}}), "PS523 /operators/job/batch/accepts/a/type"),
        (workflow(accepts={"a": {"type": "text", "least": 1}}), "PS523 /operators/job/batch/accepts/a/least"),
        (workflow(accepts={"a": {"one_of": []}}), "PS523 /operators/job/batch/accepts/a/one_of"),
        (workflow(accepts={"a": {"required": 1}}), "PS523 /operators/job/batch/accepts/a/required"),
        (workflow(accepts={"a": {"kind": 1}}), "PS523 /operators/job/batch/accepts/a"),
    ],
)
def test_a_definition_that_contradicts_itself_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(given)
    assert str(caught.value).startswith(said)
