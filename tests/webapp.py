"""The web application around a test's database, and rows to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from flask.testing import FlaskClient

from pgsig.settings import Settings
from pgsig.store.database import Database
from pgsig.web import create_app

Connection = psycopg.Connection[Any]


@contextmanager
def serving(dsn: str, **settings: Any) -> Iterator[FlaskClient]:
    """A client of the application. Its thread and its connections end with the block."""
    database = Database(dsn, name="web test", size=4)
    app = create_app(Settings(database_url=dsn, **settings), database)
    try:
        with app.test_client() as client:
            yield client
    finally:
        app.extensions["pgsig.live"].close()
        database.close()


RULES: dict[str, tuple[str, list[tuple[str, Any]]]] = {
    "train": ("streaming", [("START", {"signal": "data.ready"}), ("STOP", {"signal": "ops.stop"})]),
    "evaluate": ("batch", [("START", {"signal": "model.trained", "where": "$.auc > 0.5"})]),
    "serve": (
        "streaming",
        [
            (
                "RELOAD",
                {
                    "all": [
                        {"signal": "model.validated", "eq": "passed"},
                        {"not": {"signal": "ops.freeze", "sticky": True}},
                    ]
                },
            ),
            ("RESTART", {"any": [{"signal": "config.**"}, {"every": "24h"}]}),
        ],
    ),
}


def define(connection: Connection, name: str = "recommender", namespace: str = "default") -> dict[str, int]:
    """A workflow of three operators. Returns their ids."""
    workflow = one(
        connection,
        "INSERT INTO pgsig_private.workflow (namespace, name, version) VALUES (%s, %s, 1) RETURNING id",
        namespace,
        name,
    )
    ids = {}
    for operator, (kind, rules) in RULES.items():
        ids[operator] = one(
            connection, "INSERT INTO pgsig_private.operator (workflow_id, name, kind, spec) VALUES (%s, %s, %s, '{}') RETURNING id",
            workflow, operator, kind,
        )  # fmt: skip
        for ordinal, (action, condition) in enumerate(rules):
            connection.execute(
                "INSERT INTO pgsig_private.rule (operator_id, name, action, ordinal, condition, digest, added_in)"
                " VALUES (%s, %s, %s, %s, %s, 'd', 1)",
                [ids[operator], action.lower(), action, ordinal, json.dumps(condition)],
            )
    return ids


def emit(connection: Connection, key: str, value: Any = None, **more: Any) -> int:
    names = "".join(f", {name} => %({name})s" for name in more)
    statement = f"SELECT pgsig.emit(%(key)s, %(value)s::jsonb{names})"
    row = connection.execute(statement.encode(), {"key": key, "value": json.dumps(value), **more}).fetchone()
    assert row is not None
    return int(row[0])


def start(
    connection: Connection, operator: int, cause: int, *, subject: str = "", explanation: Any = None
) -> tuple[int, int]:
    """A START by the operator's first rule and its queued run. Returns the ids of action and run."""
    action = one(connection, "SELECT nextval('pgsig_private.action_id')")
    run = one(connection, "SELECT nextval('pgsig_private.run_id')")
    rule = one(connection, "SELECT min(id) FROM pgsig_private.rule WHERE operator_id = %s", operator)
    connection.execute(
        "INSERT INTO pgsig_private.action (id, operator_id, rule_id, subject, action, result, version, cause_id, evidence,"
        " explanation, run_id)"
        " VALUES (%s, %s, %s, %s, 'START', 'recorded', 1, %s, %s, %s, %s)",
        [action, operator, rule, subject, cause, [cause], json.dumps(explanation) if explanation else None, run],
    )
    connection.execute(
        "INSERT INTO pgsig_private.outcome (signal_id, rule_id, subject, outcome, action_id) VALUES (%s, %s, %s, 'consumed', %s)",
        [cause, rule, subject, action],
    )
    connection.execute(
        "INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth, evidence)"
        " VALUES (%s, %s, %s, 1, 1, %s, 1, %s)",
        [run, operator, subject, action, [cause]],
    )
    connection.execute(
        "INSERT INTO pgsig_private.instance (operator_id, subject, desired, observed, generation, run_id)"
        " VALUES (%s, %s, 'running', 'queued', 1, %s)",
        [operator, subject, run],
    )
    return action, run


def write_log(connection: Connection, run: int, *pieces: str) -> None:
    for piece in pieces:
        connection.execute(
            "INSERT INTO pgsig_private.log (run_id, seq, text)"
            " SELECT %s, coalesce(max(seq), 0) + 1, %s FROM pgsig_private.log WHERE run_id = %s",
            [run, piece, run],
        )


def one(connection: Connection, statement: str, *parameters: Any) -> int:
    row = connection.execute(statement.encode(), list(parameters)).fetchone()
    assert row is not None
    return int(row[0])
