"""Operators and workflows: what is wanted and what is, and orders by hand. Also how far the workers are behind."""

from __future__ import annotations

import json
import threading
from typing import Any

from flask import Response, request

from pgsig.api.asking import Asked
from pgsig.api.base import api, database
from pgsig.api.body import check_fields, loads, text_of
from pgsig.api.problems import Refusal
from pgsig.api.reply import plain, reply
from pgsig.errors import InvalidInput, NotFound, Problem
from pgsig.store import doors
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
        rows(connection, "by_index")
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
            "triggers": [plain(item) for item in rows(connection, "triggers", operators=ids)],
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

    With `?wait=5` it waits so many seconds, 30 at most, for what the order comes to, and answers 200 with the actions.
    """
    body = loads(text_of(request))
    fields: dict[str, type | None] = {"action": str, "subject": str, "params": dict, "reason": str}
    problems = check_fields(body, fields, "", required=("action",))
    action = body.get("action") if isinstance(body, dict) else None
    if isinstance(action, str) and action.upper() not in ("START", "STOP", "RESTART", "RELOAD"):
        problems.append(Problem("PS202", "not an action", "/action", "use START, STOP, RESTART or RELOAD"))
    asked = Asked(request, ("namespace", "wait"))
    namespace, wait = asked.text("namespace") or DEFAULT, asked.number("wait", 0, 0, LONGEST_WAIT)
    problems += asked.problems
    if problems:
        raise Refusal(422, "the order is not understood", problems=problems)
    position = order(namespace, workflow, operator, body, source="api")
    headers = {"Location": f"/api/v1/signals/{position}"}
    if not wait:
        return reply({"signal_id": position}, 202, headers)
    found = effects_of(position, wait)
    return reply({"signal_id": position, "actions": found}, 200 if found else 202, headers)


def effects_of(position: int, within: float) -> list[Row]:
    """What an order came to, as soon as a worker has evaluated it; [] after `within` seconds."""

    def look() -> list[Row]:
        with reading(database()) as connection:
            return doors.effects(connection, position)

    return doors.wait_for_effects(look, within, threading.Event().wait)


def order(namespace: str, workflow: str, operator: str, body: dict[str, Any], *, source: str) -> int:
    """Order what `body` says, which was checked. source: who does.

    Returns the position of the manual signal. Raises NotFound, InvalidInput.
    """
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
    with database().transaction() as connection:
        find(connection, namespace, workflow, operator)
        return doors.act(
            connection,
            f"{workflow}.{operator}",
            body["action"],
            subject=subject,
            params=params,
            reason=reason,
            namespace=namespace,
            source=source,
        )
