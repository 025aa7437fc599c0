"""Periodic triggers: what is due next, what people do with one, and backfills."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from pgsig.api.asking import MOST, Asked
from pgsig.api.base import api, database
from pgsig.api.body import check_fields, loads, text_of
from pgsig.api.operators import DEFAULT, find
from pgsig.api.problems import Refusal
from pgsig.api.reply import plain, reply
from pgsig.dry_run import what_if
from pgsig.errors import NotFound, Problem
from pgsig.foresight import coming, told
from pgsig.store import backfills, trigger_orders, triggers
from pgsig.store.database import Connection
from pgsig.store.reading import Row, reading, row, rows

SOURCE = "api"
AHEAD = 10  # due times that are told of one trigger
FIELDS: dict[str, dict[str, type | None]] = {
    "fire": {"reason": str, "params": dict},
    "skip": {"reason": str},
    "pause": {"reason": str, "mode": str},
    "resume": {"reason": str},
}


@api.get("/calendar")
def calendar() -> Response:
    """What is due next, of everything or of what is named, the soonest first."""
    asked = Asked(request, ("namespace", "workflow", "operator", "limit"))
    named: dict[str, Any] = {name: asked.text(name) for name in ("namespace", "workflow", "operator")}
    limit = asked.number("limit", AHEAD, 1, MOST)
    asked.done()
    with reading(database()) as connection:
        found, now = triggers.in_force(connection, **named), triggers.now(connection)
    return reply({"now": now, "times": [one.as_dict() for one in coming(found, now, limit)]})


@api.get("/triggers")
def list_triggers() -> Response:
    """Triggers in force: in words, when they are due next, whether they are paused, and what was left out last."""
    asked = Asked(request, ("namespace", "workflow", "operator"))
    named: dict[str, Any] = {name: asked.text(name) for name in ("namespace", "workflow", "operator")}
    asked.done()
    with reading(database()) as connection:
        return reply(
            {"triggers": [plain(item) for item in told(connection, triggers.in_force(connection, **named), 1)]}
        )


@api.post("/operators/<workflow>/<operator>/triggers/<trigger>/<any(fire, skip, pause, resume):order>")
@api.post("/operators/<workflow>.<operator>/triggers/<trigger>/<any(fire, skip, pause, resume):order>")
def order_trigger(workflow: str, operator: str, trigger: str, order: str) -> Response:
    """Fire a trigger now, skip its next time, pause or resume it. 202; with `?dry_run=true` 200 and what it would do.

    The trigger is named as `GET /triggers` has it, or by the beginning of that.
    """
    body = loads(text_of(request)) if request.get_data(cache=True) else {}
    problems = check_fields(body, FIELDS[order], "")
    asked = Asked(request, ("namespace", "dry_run"))
    namespace, dry_run = asked.text("namespace") or DEFAULT, bool(asked.words("dry_run", ("true",)))
    if problems := [*problems, *asked.problems]:
        raise Refusal(422, "the order is not understood", problems=problems)
    with database().transaction() as connection:
        find(connection, namespace, workflow, operator)

        def write() -> Row:
            return put(connection, f"{workflow}.{operator}", trigger, order, body, namespace, SOURCE)

        if dry_run:
            return reply({"dry_run": True, "actions": what_if(connection, write)})
        done = write()
    return reply(done, 202, {"Location": f"/api/v1/signals/{done['signal_id']}"})


def put(
    connection: Connection, path: str, trigger: str, order: str, body: dict[str, Any], namespace: str, source: str
) -> Row:
    """Do what a person orders of a trigger. Raises InvalidInput, NotFound."""
    given: dict[str, Any] = {"reason": _reason(body.get("reason", "")), "namespace": namespace, "source": source}
    if order == "fire":
        return {"signal_id": trigger_orders.fire_now(connection, path, trigger, params=body.get("params"), **given)}
    if order == "skip":
        position, due = trigger_orders.skip_next(connection, path, trigger, **given)
        return {"signal_id": position, "skipped": due}
    if order == "pause":
        return {"signal_id": trigger_orders.pause(connection, path, trigger, body.get("mode", "hold"), **given)}
    return {"signal_id": trigger_orders.resume(connection, path, trigger, **given)}


def _reason(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > 1000:
        raise Refusal(
            422,
            "a reason has at most 1000 bytes",
            problems=[Problem("PS622", "at most 1000 bytes", "/reason", "shorten it")],
        )
    return text


# ── backfills ──


@api.post("/operators/<workflow>/<operator>/triggers/<trigger>/backfills")
@api.post("/operators/<workflow>.<operator>/triggers/<trigger>/backfills")
def begin_backfill(workflow: str, operator: str, trigger: str) -> Response:
    """Have due times from `first` to `last` as ticks after all, `together` at once. 201; with `?dry_run=true` 200 and the times."""
    body = loads(text_of(request))
    fields: dict[str, type | None] = {"first": str, "last": str, "together": int, "again": bool, "reason": str}
    problems = check_fields(body, fields, "", required=("first", "last"))
    asked = Asked(request, ("namespace", "dry_run"))
    namespace, dry_run = asked.text("namespace") or DEFAULT, bool(asked.words("dry_run", ("true",)))
    if problems := [*problems, *asked.problems]:
        raise Refusal(422, "the backfill is not understood", problems=problems)
    path, reason = f"{workflow}.{operator}", _reason(body.get("reason", ""))
    given: dict[str, Any] = {"most": body.get("together", 1), "again": body.get("again", False), "namespace": namespace}
    with database().transaction() as connection:
        find(connection, namespace, workflow, operator)
        span = backfills.span(triggers.find(connection, path, trigger, namespace), body["first"], body["last"])
        if dry_run:
            wanted = backfills.plan(connection, path, trigger, *span, **given)
            return reply({"dry_run": True, "times": list(wanted.dues), "ticked": wanted.ticked})
        number = backfills.begin(connection, path, trigger, *span, **given, reason=reason, source=SOURCE)
    return reply({"id": number}, 201, {"Location": f"/api/v1/backfills/{number}"})


@api.get("/backfills")
def list_backfills() -> Response:
    """Backfills, newest first, and how far they are."""
    asked = Asked(request, ("namespace", "limit"))
    namespace, limit = asked.text("namespace"), asked.limit()
    asked.done()
    with reading(database()) as connection:
        found = rows(connection, "backfills", namespace=namespace, operators=None, limit=limit)
    return reply({"backfills": [plain(item) for item in found]})


@api.get("/backfills/<position:id>")
def one_backfill(id: int) -> Response:
    """One backfill, and how far it is."""
    Asked(request, ()).done()
    with reading(database()) as connection:
        found = row(connection, "backfill", id=id)
    if found is None:
        raise NotFound(f"there is no backfill {id}", code="PS208", fix="GET /api/v1/backfills lists them")
    return reply(plain(found))


@api.post("/backfills/<position:id>/cancel")
def cancel_backfill(id: int) -> Response:
    """Let no further time of a backfill become a tick. Runs that came of it go on."""
    body = loads(text_of(request)) if request.get_data(cache=True) else {}
    asked = Asked(request, ())
    if problems := [*check_fields(body, {"reason": str}, ""), *asked.problems]:
        raise Refusal(422, "the order is not understood", problems=problems)
    position = cancel(id, body.get("reason", ""), SOURCE)
    return reply({"signal_id": position}, 202, {"Location": f"/api/v1/signals/{position}"})


def cancel(id: int, reason: str, source: str) -> int:
    """Cancel a backfill and return the position of the manual signal. Raises InvalidInput."""
    with database().transaction() as connection:
        return backfills.cancel(connection, id, reason=_reason(reason), source=source)
