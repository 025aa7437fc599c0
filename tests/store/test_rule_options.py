"""Options of rules in the database: stored by an apply, read by the worker, and a rule of its own when they change."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from pgsig.model import Action
from pgsig.store.definitions import apply, catalog, plan

Connection = psycopg.Connection[Any]


def document(**options: Any) -> dict[str, Any]:
    start = [{"signal": "a", **options}, {"signal": "b"}]
    return {
        "workflow": "w",
        "operators": {"op": {"batch": {"command": ["x"]}, "start": start, "stop": {"signal": "c"}}},
    }


def test_an_apply_stores_them_and_the_worker_reads_them(connection: Connection) -> None:
    apply(connection, document(max="3/60m", then="stop", shadow=True))
    (operator,) = catalog(connection)
    assert [(rule.name, rule.most, rule.then, rule.shadow) for rule in operator.rules] == [
        ("start", (3, 3600.0), Action.STOP, True),
        ("start.2", None, None, False),
        ("stop", None, None, False),
    ]
    stored = connection.execute("SELECT options FROM pgsig_private.rule ORDER BY ordinal").fetchall()
    assert stored == [({"max": "3/1h", "then": "STOP", "shadow": True},), ({},), ({},)]


def test_a_rule_with_other_options_begins_anew_the_others_keep_their_state(connection: Connection) -> None:
    apply(connection, document(max="3/1h"))
    before = {rule.name: rule.id for rule in catalog(connection)[0].rules}
    (planned,) = plan(connection, document(max="4/1h")).operators
    assert [(rule.change, rule.name, dict(rule.options)) for rule in planned.rules] == [
        ("new", "start", {"max": "4/1h"}),
        ("kept", "start.2", {}),
        ("kept", "stop", {}),
        ("removed", "start", {"max": "3/1h"}),
    ]
    apply(connection, document(max="4/1h"))
    after = {rule.name: rule.id for rule in catalog(connection)[0].rules}
    assert {name: after[name] == before[name] for name in after} == {"start": False, "start.2": True, "stop": True}
    assert not apply(connection, document(max="4/60m")).changes.any


def test_what_is_stored_reads_as_what_was_applied(connection: Connection) -> None:
    # A jsonb sorts an object's keys: `stop` would come before `start`.
    first = apply(connection, document(shadow=True))
    ((stored,),) = connection.execute("SELECT definition FROM pgsig_private.workflow_version").fetchall()
    assert list(stored["operators"]["op"])[:2] == ["stop", "batch"]
    again = apply(connection, json.loads(json.dumps(stored)))
    assert (again.version, again.changes.any) == (first.version, False)
