"""Operators and workflows: what is wanted and what is, and orders by hand. Also how far the workers are behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from flask import Response, request

from pgsig.api.asking import Asked
from pgsig.api.base import api, database
from pgsig.api.body import check_fields, loads, text_of
from pgsig.api.problems import Refusal
from pgsig.api.reply import plain, reply
from pgsig.dry_run import what_if
from pgsig.errors import InvalidInput, NotFound, Problem
from pgsig.foresight import told
from pgsig.store import doors, triggers
from pgsig.store.database import Connection
from pgsig.store.reading import Filter, Place, Row, actions, reading, row, rows

DEFAULT = "default"
LONGEST_WAIT = 30  # seconds


@api.get("/workflows")
def workflows() -> Response:
    """Every workflow at its version."""
    Asked(request, ()).done()
    with reading(database()) as connection:
        return reply({"workflows": rows(connection, "workflows")})


@api.get("/lag")
def lag() -> Response:
    """Signals that no worker has evaluated yet, by lane; counting stops at 10000."""
    Asked(request, ()).done()
    with reading(database()) as connection:
        return reply({"lanes": rows(connection, "lag")})


@api.get("/operators")
def operators() -> Response:
    """Every operator with up to 100 of its instances."""
    asked = Asked(request, ("namespace", "workflow"))
    namespace, workflow = asked.text("namespace"), asked.text("workflow")
    asked.done()
    with reading(database()) as connection:
        found = rows(connection, "operators", namespace=namespace, workflow=workflow, operator=None)
    return reply({"operators": [plain(item, "spec") for item in found]})


@api.get("/operators/<workflow>/<operator>")
@api.get("/operators/<workflow>.<operator>")
def operator(workflow: str, operator: str) -> Response:
    """One operator: its definition, rules, triggers, instances and last actions."""
    asked = Asked(request, ("namespace",))
    namespace = asked.text("namespace") or DEFAULT
    asked.done()
    with reading(database()) as connection:
        found = find(connection, namespace, workflow, operator)
        ids = [found["operator_id"]]
        recent = actions(
            connection, Filter(namespace=namespace, workflow=workflow, operator=operator), Place(), 20
        ).rows
        return reply({
            **plain(found),
            "rules": [plain(item, "namespace", "workflow", "operator") for item in rows(connection, "rules", operators=ids)],
            "triggers": [plain(item) for item in told(connection, triggers.in_force(connection, operators=ids), 10)],
            "actions": [plain(item) for item in recent],
        })  # fmt: skip


def find(connection: Connection, namespace: str, workflow: str, operator: str) -> Row:
    """The row of one operator. Raises NotFound."""
    found = None
    if "\0" not in namespace + workflow + operator:
        found = row(connection, "operators", namespace=namespace, workflow=workflow, operator=operator)
    if found is None:
        raise NotFound("there is no such operator", code="PS201", fix="GET /api/v1/operators lists them")
    return found


@api.post("/operators/<workflow>/<operator>/actions")
@api.post("/operators/<workflow>.<operator>/actions")
def act(workflow: str, operator: str) -> Response:
    """Order an action by hand. 202: it is a signal now, which a worker evaluates; Location is that signal.

    With `?wait=5` it waits so many seconds, 30 at most, for what the order comes to, and answers 200 with the actions. With
    `?dry_run=true` it answers 200 with the actions that would come of it, and nothing happens.
    """
    return _act(workflow, operator)


@api.post("/workflows/<workflow>/actions")
def act_on_workflow(workflow: str) -> Response:
    """The same for every operator of a workflow, all or none; Location is the last one's signal."""
    return _act(workflow, None)


def _act(workflow: str, operator: str | None) -> Response:
    body = loads(text_of(request))
    fields: dict[str, type | None] = {"action": str, "subject": str, "params": dict, "reason": str}
    problems = check_fields(body, fields, "", required=("action",))
    action = body.get("action") if isinstance(body, dict) else None
    if isinstance(action, str) and action.upper() not in ("START", "STOP", "RESTART", "RELOAD"):
        problems.append(Problem("PS202", "not an action", "/action", "use START, STOP, RESTART or RELOAD"))
    asked = Asked(request, ("namespace", "wait", "dry_run"))
    namespace, wait = asked.text("namespace") or DEFAULT, asked.number("wait", 0, 0, LONGEST_WAIT)
    dry_run = bool(asked.words("dry_run", ("true",)))
    problems += asked.problems
    if problems:
        raise Refusal(422, "the order is not understood", problems=problems)
    if dry_run:
        return reply({"dry_run": True, "actions": would(namespace, workflow, operator, body)})
    positions = order(namespace, workflow, operator, body, source="api")
    headers = {"Location": f"/api/v1/signals/{positions[-1]}"}
    said = {"signal_id": positions[-1], **({"signal_ids": positions} if operator is None else {})}
    if not wait:
        return reply(said, 202, headers)
    found = effects_of(positions, wait)
    return reply({**said, "actions": found}, 200 if found else 202, headers)


def effects_of(positions: Sequence[int], within: float) -> list[Row]:
    """What orders came to, as soon as a worker has evaluated all of them; [] after `within` seconds."""

    def look() -> list[Row]:
        with reading(database()) as connection:
            found = [doors.effects(connection, position) for position in positions]
        return [effect for effects in found for effect in effects] if all(found) else []

    return doors.wait_for_effects(look, within, threading.Event().wait)


def order(namespace: str, workflow: str, operator: str | None, body: dict[str, Any], *, source: str) -> list[int]:
    """Order what `body` says, which was checked, of one operator or of a whole workflow. source: who does.

    Returns the positions of the manual signals. Raises NotFound, InvalidInput.
    """
    with database().transaction() as connection:
        return _order(connection, namespace, workflow, operator, body, source)


def would(namespace: str, workflow: str, operator: str | None, body: dict[str, Any]) -> list[Row]:
    """What `order` would lead to. Raises like it."""
    with database().transaction() as connection:
        return what_if(connection, lambda: _order(connection, namespace, workflow, operator, body, "dry run"))


def _order(
    connection: Connection, namespace: str, workflow: str, operator: str | None, body: dict[str, Any], source: str
) -> list[int]:
    params = json.dumps(body.get("params", {}))
    subject, reason = body.get("subject", ""), body.get("reason", "")
    limits = (("/subject", subject, 200), ("/reason", reason, 1000), ("/params", params, 65536))
    wrong = [
        Problem(
            "PS622", f"at most {most} bytes, these are {len(text.encode('utf-8', 'replace'))}", where, "make it shorter"
        )
        for where, text, most in limits
        if len(text.encode("utf-8", "replace")) > most
    ]
    if wrong:
        raise InvalidInput(wrong)
    if operator is not None:
        find(connection, namespace, workflow, operator)
    elif "\0" in namespace + workflow:
        raise NotFound("there is no such workflow", code="PS201", fix="GET /api/v1/workflows lists them")
    path = workflow if operator is None else f"{workflow}.{operator}"
    given = {"subject": subject, "params": params, "reason": reason, "namespace": namespace, "source": source}
    return doors.act_on(connection, path, body["action"], **given)
