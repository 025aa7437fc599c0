"""/operators and the page of one: what is wanted, what is, why, orders by hand, and pauses."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from pgsig.api.asking import Asked
from pgsig.api.base import database
from pgsig.api.body import text_problem
from pgsig.api.operators import DEFAULT, effects_of, find, order, would
from pgsig.api.pauses import put
from pgsig.api.problems import Refusal, problems_of, status_of
from pgsig.errors import NotFound, PgsigError, Problem
from pgsig.foresight import told as told_of
from pgsig.model import Json
from pgsig.pages.base import pages, render
from pgsig.pages.forms import json_of
from pgsig.store import doors, triggers
from pgsig.store.database import Connection
from pgsig.store.explain import why
from pgsig.store.reading import Filter, Place, Row, actions, reading, rows, runs

SOURCE = "web"  # of an order that a page sends
AT_ONCE = 0.5  # seconds for a worker to evaluate an order before the page is shown; later it shows by itself


@pages.get("/operators")
def operators() -> Response:
    """Every operator on a line."""
    asked = Asked(request, ("workflow", "part"))
    workflow = asked.text("workflow")
    asked.done()
    with reading(database()) as connection:
        found = rows(connection, "operators", namespace=None, workflow=workflow, operator=None)
        rules = rows(connection, "rules", operators=[row["operator_id"] for row in found])
        states = rows(connection, "rule_states", rules=[rule["id"] for rule in rules])
        ids = [row["operator_id"] for row in found]
        ticking = told_of(connection, triggers.in_force(connection, operators=ids), 1)
        with_held(connection, found)
    waiting = {state["rule_id"]: state["waiting"] for state in states}
    for row in found:
        row["rules"] = [rule for rule in rules if rule["operator_id"] == row["operator_id"]]
        row["holding"] = sum(waiting[rule["id"]] for rule in row["rules"])
        row["triggers"] = [trigger for trigger in ticking if trigger["operator_id"] == row["operator_id"]]
    return render("operators", ("operators",), operators=found)


@pages.get("/operators/<workflow>/<name>")
def operator(workflow: str, name: str) -> Response:
    """One operator: instances, rules with what they hold, triggers, last actions and runs."""
    asked = Asked(request, ("namespace", "subject", "told", "did", "part"))
    namespace, subject = asked.text("namespace") or DEFAULT, asked.text("subject") or ""
    told = asked.number("told", 0, 0, 10**18)
    did = asked.words("did", ("fire", "skip", "pause", "resume"))
    asked.done()
    return page_of(namespace, workflow, name, subject, told=told, did=did[0] if did else None)


@pages.post("/operators/<workflow>/<name>/act")
def act(workflow: str, name: str) -> AnyResponse:
    """Order an action by hand, then show the operator again; what is wrong is shown beside the form."""
    form, problems, body = order_of_form()
    namespace = form["namespace"] or DEFAULT
    try:
        if problems:
            raise Refusal(422, "the order is not understood", problems=problems)
        if request.form.get("dry_run"):
            return page_of(
                namespace, workflow, name, form["subject"], form=form, would=would(namespace, workflow, name, body)
            )
        (position,) = order(namespace, workflow, name, body, source=SOURCE)
        effects_of([position], AT_ONCE)
    except NotFound:
        raise
    except PgsigError as error:
        return page_of(
            namespace, workflow, name, form["subject"], status=status_of(error), problems=problems_of(error), form=form
        )
    return redirect(address_of(namespace, workflow, name, position), 303)


def order_of_form() -> tuple[dict[str, str], list[Problem], dict[str, Any]]:
    """What a form orders: its fields as they are, what is wrong with them, and the order as the API has it."""
    form = {field: request.form.get(field, "") for field in ("action", "subject", "params", "reason", "namespace")}
    problems = [
        Problem("PS622", f"{field} {why}", f"/{field}") for field, text in form.items() if (why := text_problem(text))
    ]
    params: Json = {}
    try:
        params = json_of(form["params"] or "{}", "/params")
        if not isinstance(params, dict):
            problems.append(Problem("PS203", "params is a JSON object", "/params", 'for instance {"rows": 100}'))
    except PgsigError as error:
        problems += problems_of(error)
    body = {"action": form["action"], "subject": form["subject"], "params": params, "reason": form["reason"]}
    return form, problems, body


def page_of(namespace: str, workflow: str, name: str, subject: str, *, status: int = 200, **shown: Any) -> Response:
    """The page of one operator. shown: what stands there beside what is read."""
    with reading(database()) as connection:
        found = with_held(connection, [find(connection, namespace, workflow, name)])[0]
        want = Filter(namespace=namespace, workflow=workflow, operator=name)
        context: dict[str, Any] = {
            "operator": found,
            "at": _path(namespace, workflow, name, {"subject": subject} if subject else {}),
            "why": why(connection, f"{workflow}.{name}", subject, namespace),
            "triggers": told_of(connection, triggers.in_force(connection, operators=[found["operator_id"]]), 10),
            "backfills": rows(connection, "backfills", namespace=None, operators=[found["operator_id"]], limit=3),
            "actions": actions(connection, want, Place(), 10).rows,
            "runs": runs(connection, want, Place(), 10).rows,
            "effects": doors.effects(connection, shown["told"]) if shown.get("told") else [],
        }
    for trigger in context["triggers"]:
        trigger["orders"] = [
            rule["action"] for rule in context["why"]["rules"] if _says(rule["condition"], trigger["spec"])
        ]
    parts = ("operator_head", "operator_told", "operator_rules", "backfills", "operator_history")
    return render(
        "operator",
        parts,
        status,
        subject=subject,
        **{"told": 0, "problems": (), "form": {}, "would": None, "times": None, "did": None, **shown, **context},
    )


def _says(condition: Json, spec: Json) -> bool:
    """Whether a condition has a trigger in it."""
    if condition == spec:
        return True
    inner = condition.values() if isinstance(condition, dict) else condition if isinstance(condition, list) else ()
    return any(_says(part, spec) for part in inner)


@pages.post("/operators/<workflow>/<name>/<any(pause, resume):order>")
def pause(workflow: str, name: str, order: str) -> AnyResponse:
    """Pause an operator's rules, or go on, then show the operator again."""
    namespace = request.form.get("namespace") or DEFAULT
    position = put(
        f"{workflow}.{name}", order, request.form.get("mode", "hold"), request.form.get("reason", ""), namespace, SOURCE
    )
    return redirect(address_of(namespace, workflow, name, position), 303)


def address_of(namespace: str, workflow: str, name: str, told: int, **more: str) -> str:
    """Where an operator is shown after an order. told: the signal of the order."""
    return _path(namespace, workflow, name, {"told": told, **more})


def _path(namespace: str, workflow: str, name: str, query: dict[str, Any]) -> str:
    query = {**query, **({"namespace": namespace} if namespace != DEFAULT else {})}
    return f"/operators/{workflow}/{name}" + (f"?{urlencode(query)}" if query else "")


def with_held(connection: Connection, operators: list[Row]) -> list[Row]:
    """The same operators, each that is paused with how many signals are held for it."""
    paused = [row["operator_id"] for row in operators if row["paused"]]
    counts = (
        {row["operator_id"]: row["held"] for row in rows(connection, "held_counts", operators=paused)} if paused else {}
    )
    for row in operators:
        row["held"] = counts.get(row["operator_id"], 0)
    return operators
