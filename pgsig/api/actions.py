"""Actions: the ledger of decisions, which is also the audit log."""

from __future__ import annotations

from flask import Response, request

from pgsig.api.asking import Asked, paged
from pgsig.api.base import api, database
from pgsig.api.reply import plain, reply, signal
from pgsig.errors import NotFound
from pgsig.model import Action, Result
from pgsig.store.database import Connection
from pgsig.store.reading import WHOLE, Filter, Row, reading, row, rows
from pgsig.store.reading import actions as list_actions


@api.get("/actions")
def actions() -> Response:
    """List actions, newest first."""
    asked = Asked(
        request, ("namespace", "workflow", "operator", "subject", "action", "result", "before", "after", "limit")
    )
    want = Filter(
        namespace=asked.text("namespace"), workflow=asked.text("workflow"), operator=asked.text("operator"),
        subject=asked.text("subject"), actions=asked.words("action", list(Action)), results=asked.words("result", list(Result)),
    )  # fmt: skip
    place, limit = asked.place(), asked.limit()
    asked.done()
    with reading(database()) as connection:
        page = list_actions(connection, want, place, limit)
    document, headers = paged("actions", page, [plain(item) for item in page.rows], request, place.direction)
    return reply(document, 200, headers)


@api.get("/actions/<position:id>")
def one_action(id: int) -> Response:
    """One action with the signals that it consumed."""
    Asked(request, ()).done()
    with reading(database()) as connection:
        found = find(connection, id)
        evidence = rows(connection, "signals_by_id", ids=found["evidence"], chars=WHOLE)
    return reply({**plain(found), "signals": [signal(item) for item in evidence]})


def find(connection: Connection, id: int) -> Row:
    """The row of one action. Raises NotFound."""
    found = row(connection, "action", id=id)
    if found is None:
        raise NotFound(f"there is no action {id}", code="PS604", fix="GET /api/v1/actions lists them")
    return found
