"""/operators and the page of one: what is wanted, what is, why, and orders by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from pgsig.api.asking import Asked
from pgsig.api.base import database
from pgsig.api.body import text_problem
from pgsig.api.operators import DEFAULT, find, order
from pgsig.api.problems import Refusal, problems_of, status_of
from pgsig.condition import parse, schedule
from pgsig.decide.advance import levels_of
from pgsig.decide.explain import explain
from pgsig.decide.find import View
from pgsig.decide.state import RuleState
from pgsig.errors import NotFound, PgsigError, Problem
from pgsig.model import Json
from pgsig.pages.base import pages, render
from pgsig.pages.forms import json_of
from pgsig.store.database import Connection
from pgsig.store.reading import Filter, Place, Row, actions, reading, rows, runs


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
        triggers = due(rows(connection, "triggers", operators=[row["operator_id"] for row in found]))
    waiting = {state["rule_id"]: state["waiting"] for state in states}
    for row in found:
        row["rules"] = [rule for rule in rules if rule["operator_id"] == row["operator_id"]]
        row["holding"] = sum(waiting[rule["id"]] for rule in row["rules"])
        row["triggers"] = [trigger for trigger in triggers if trigger["operator_id"] == row["operator_id"]]
    return render("operators", ("operators",), operators=found)


@pages.get("/operators/<workflow>/<name>")
def operator(workflow: str, name: str) -> Response:
    """One operator: instances, rules with what they hold, triggers, last actions and runs."""
    asked = Asked(request, ("namespace", "subject", "told", "part"))
    namespace, subject = asked.text("namespace") or DEFAULT, asked.text("subject") or ""
    told = asked.number("told", 0, 0, 10**18)
    asked.done()
    return _page(namespace, workflow, name, subject, told=told)


@pages.post("/operators/<workflow>/<name>/act")
def act(workflow: str, name: str) -> AnyResponse:
    """Order an action by hand, then show the operator again; what is wrong is shown beside the form."""
    form = {field: request.form.get(field, "") for field in ("action", "subject", "params", "reason", "namespace")}
    namespace = form["namespace"] or DEFAULT
    problems = [
        Problem("PS422", f"{field} {why}", f"/{field}") for field, text in form.items() if (why := text_problem(text))
    ]
    params: Json = {}
    try:
        params = json_of(form["params"] or "{}", "/params")
        if not isinstance(params, dict):
            problems.append(Problem("PS203", "params is a JSON object", "/params", 'for instance {"rows": 100}'))
    except PgsigError as error:
        problems += problems_of(error)
    try:
        if problems:
            raise Refusal(422, "the order is not understood", problems=problems)
        body = {"action": form["action"], "subject": form["subject"], "params": params, "reason": form["reason"]}
        position = order(namespace, workflow, name, body)
    except NotFound:
        raise
    except PgsigError as error:
        return _page(
            namespace, workflow, name, form["subject"], status=status_of(error), problems=problems_of(error), form=form
        )
    return redirect(
        f"/operators/{workflow}/{name}?told={position}" + (f"&namespace={namespace}" if namespace != DEFAULT else ""),
        303,
    )


def _page(namespace: str, workflow: str, name: str, subject: str, *, status: int = 200, **shown: Any) -> Response:
    with reading(database()) as connection:
        found = find(connection, namespace, workflow, name)
        want = Filter(namespace=namespace, workflow=workflow, operator=name)
        context = {
            "operator": found,
            "rules": held(connection, found, subject),
            "triggers": due(rows(connection, "triggers", operators=[found["operator_id"]])),
            "actions": actions(connection, want, Place(), 10).rows,
            "runs": runs(connection, want, Place(), 10).rows,
        }
    parts = ("operator_head", "operator_rules", "operator_history")
    return render(
        "operator", parts, status, subject=subject, **{"told": 0, "problems": (), "form": {}, **shown, **context}
    )


def due(triggers: list[Row]) -> list[Row]:
    """The same triggers, each with when it is due next: None if never again, or if this version cannot read it."""
    now = datetime.now(UTC)
    for trigger in triggers:
        try:
            trigger["next_due"] = schedule.next_due(schedule.build(trigger["spec"]), now)
        except (ValueError, TypeError, KeyError):
            trigger["next_due"] = None
    return triggers


def held(connection: Connection, operator: Row, subject: str) -> list[Row]:
    """The rules of an operator, each with the explanation of where it stands for a subject; None where that cannot be read."""
    path = f"{operator['workflow']}.{operator['operator']}"
    found: dict[int, Row] = {}
    for row in rows(connection, "why_rules", operator=path, namespace=operator["namespace"], subject=subject):
        rule = found.setdefault(row["id"], {**row, "states": {}})
        if row["body"] is not None:
            rule["states"][row["subject"]] = row["body"]
    for rule in found.values():
        rule["standing"] = _standing(rule, path, subject)
    return list(found.values())


def _standing(rule: Row, path: str, subject: str) -> Json:
    root, _ = parse(rule["condition"], operator=path)
    if root is None:
        return None
    try:
        states = {name: RuleState.from_json(body) for name, body in rule["states"].items()}
    except (KeyError, TypeError, ValueError):
        return None  # a state of another version: the condition itself is still worth showing
    own, shared = states.get(subject, RuleState()), states.get("", RuleState())
    return explain(root, View(own.pending, levels_of(own, shared), own.clock))
