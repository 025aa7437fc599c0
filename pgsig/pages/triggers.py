"""/calendar: what is due next, and backfills; and what people do with a trigger on the page of its operator."""

from __future__ import annotations

from typing import Any

from flask import Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from pgsig.api.asking import Asked
from pgsig.api.base import database
from pgsig.api.body import text_problem
from pgsig.api.operators import DEFAULT, find
from pgsig.api.problems import Refusal, problems_of, status_of
from pgsig.api.triggers import cancel, put
from pgsig.dry_run import what_if
from pgsig.errors import NotFound, PgsigError, Problem
from pgsig.foresight import coming, unknown
from pgsig.pages.base import ROWS, pages, render
from pgsig.pages.forms import json_of
from pgsig.pages.operators import SOURCE, address_of, page_of
from pgsig.store import backfills, triggers
from pgsig.store.database import Connection
from pgsig.store.reading import reading, rows

FIELDS = ("namespace", "reason", "params", "mode", "first", "last", "together")


@pages.get("/calendar")
def calendar() -> Response:
    """The next due times of everything, paused triggers, and backfills."""
    asked = Asked(request, ("workflow", "part"))
    workflow = asked.text("workflow")
    asked.done()
    with reading(database()) as connection:
        found, now = triggers.in_force(connection, workflow=workflow), triggers.now(connection)
        backfills = rows(connection, "backfills", namespace=None, operators=None, limit=20)
    paused = [item for item in found if item["paused"]]
    return render(
        "calendar",
        ("calendar", "backfills"),
        times=coming(found, now, ROWS, fair=True),
        unknown=unknown(found, now),
        paused=paused,
        backfills=backfills,
        known=len(found),
    )


@pages.post("/operators/<workflow>/<name>/triggers/<trigger>/<any(fire, skip, pause, resume, backfill):order>")
def order_trigger(workflow: str, name: str, trigger: str, order: str) -> AnyResponse:
    """Do what a person orders of a trigger, then show its operator again; what is wrong is shown there too."""
    form = {field: request.form.get(field, "") for field in FIELDS}
    namespace = form["namespace"] or DEFAULT
    problems = [
        Problem("PS622", f"{field} {why}", f"/{field}") for field, text in form.items() if (why := text_problem(text))
    ]
    try:
        if problems:
            raise Refusal(422, "the order is not understood", problems=problems)
        with database().transaction() as connection:
            find(connection, namespace, workflow, name)
            if order == "backfill":
                times = _backfill(connection, f"{workflow}.{name}", trigger, form)
                if times is None:
                    return redirect("/calendar#backfills", 303)
                return page_of(namespace, workflow, name, "", times=times)
            body: dict[str, Any] = {"reason": form["reason"], **({"mode": form["mode"]} if form["mode"] else {})}
            if order == "fire" and form["params"].strip():
                body["params"] = _params(form["params"])

            def write() -> dict[str, Any]:
                return put(connection, f"{workflow}.{name}", trigger, order, body, namespace, SOURCE)

            if request.form.get("dry_run"):
                would = what_if(connection, write)
            else:
                done = write()
                return redirect(address_of(namespace, workflow, name, done["signal_id"], did=order), 303)
        return page_of(namespace, workflow, name, "", would=would)
    except NotFound:
        raise
    except PgsigError as error:
        return page_of(namespace, workflow, name, "", status=status_of(error), problems=problems_of(error))


def _params(text: str) -> dict[str, Any]:
    found = json_of(text, "/params")
    if not isinstance(found, dict):
        problem = Problem("PS203", "params is a JSON object", "/params", 'for instance {"rows": 100}')
        raise Refusal(422, "the order is not understood", problems=[problem])
    return found


def _backfill(connection: Connection, path: str, trigger: str, form: dict[str, str]) -> backfills.Backfill | None:
    """Begin a backfill; of a dry run the times that it would have."""
    namespace = form["namespace"] or DEFAULT
    if not form["together"].isdecimal() or len(form["together"]) > 6:
        raise Refusal(
            422,
            "the backfill is not understood",
            problems=[Problem("PS208", "a whole number is needed", "/together", "for instance 1")],
        )
    span = backfills.span(triggers.find(connection, path, trigger, namespace), form["first"], form["last"])
    given: dict[str, Any] = {
        "most": int(form["together"]),
        "again": bool(request.form.get("again")),
        "namespace": namespace,
    }
    if request.form.get("dry_run"):
        return backfills.plan(connection, path, trigger, *span, **given)
    backfills.begin(connection, path, trigger, *span, **given, reason=form["reason"], source=SOURCE)
    return None


@pages.post("/backfills/<position:id>/cancel")
def cancel_backfill(id: int) -> AnyResponse:
    """Let no further time of a backfill become a tick, then show the calendar again."""
    cancel(id, request.form.get("reason", ""), SOURCE)
    return redirect("/calendar#backfills", 303)
