"""Pausing and resuming the rules of an operator, or of a whole workflow."""

from __future__ import annotations

from flask import Response, request

from pgsig.api.asking import Asked
from pgsig.api.base import api, database
from pgsig.api.body import check_fields, loads, text_of
from pgsig.api.operators import DEFAULT
from pgsig.api.problems import Refusal
from pgsig.api.reply import reply
from pgsig.errors import NotFound, Problem
from pgsig.store import doors

MODES = ("hold", "collapse", "drop")
SOURCE = "api"


@api.post("/operators/<workflow>/<operator>/<any(pause, resume):order>")
@api.post("/operators/<workflow>.<operator>/<any(pause, resume):order>")
def pause_operator(workflow: str, operator: str, order: str) -> Response:
    """Pause an operator's rules, or go on. 202: it is a signal now, which a worker evaluates; Location is that signal."""
    return _answer(f"{workflow}.{operator}", order)


@api.post("/workflows/<workflow>/<any(pause, resume):order>")
def pause_workflow(workflow: str, order: str) -> Response:
    """The same for every operator of a workflow; Location is the last one's signal."""
    return _answer(workflow, order)


def _answer(target: str, order: str) -> Response:
    body = loads(text_of(request)) if request.get_data(cache=True) else {}
    fields: dict[str, type | None] = {"reason": str, **({"mode": str} if order == "pause" else {})}
    problems = check_fields(body, fields, "")
    asked = Asked(request, ("namespace",))
    namespace = asked.text("namespace") or DEFAULT
    if problems := [*problems, *asked.problems]:
        raise Refusal(422, "the order is not understood", problems=problems)
    position = put(target, order, body.get("mode", "hold"), body.get("reason", ""), namespace, SOURCE)
    return reply({"signal_id": position}, 202, {"Location": f"/api/v1/signals/{position}"})


def put(target: str, order: str, mode: str, reason: str, namespace: str, source: str) -> int:
    """Pause or resume, and return the position of the manual signal. Raises NotFound, InvalidInput."""
    if len(reason.encode("utf-8", "replace")) > 1000:
        raise Refusal(
            422,
            "a reason has at most 1000 bytes",
            problems=[Problem("PS622", "at most 1000 bytes", "/reason", "shorten it")],
        )
    if "\0" in f"{target}{namespace}":
        raise NotFound("there is no such operator or workflow", code="PS201", fix="GET /api/v1/operators lists them")
    with database().transaction() as connection:
        if order == "resume":
            return doors.resume(connection, target, reason=reason, namespace=namespace, source=source)
        return doors.pause(connection, target, mode, reason=reason, namespace=namespace, source=source)
