"""/actions: who or what ordered what, and why. /processes: who is at work."""

from __future__ import annotations

from flask import Response, request

from pgsig.api.actions import find
from pgsig.api.asking import Asked, cursor
from pgsig.api.base import database
from pgsig.model import Action, Result
from pgsig.pages.base import ROWS, VALUE, pages, render
from pgsig.pages.overview import behind
from pgsig.store.reading import Filter, reading, rows
from pgsig.store.reading import actions as list_actions


@pages.get("/actions")
def actions() -> Response:
    """The newest actions, or the page before a cursor."""
    asked = Asked(request, ("workflow", "operator", "subject", "action", "result", "namespace", "before", "part"))
    want = Filter(
        namespace=asked.text("namespace"), workflow=asked.text("workflow"), operator=asked.text("operator"),
        subject=asked.text("subject"), actions=asked.words("action", list(Action)), results=asked.words("result", list(Result)),
    )  # fmt: skip
    place = asked.place()
    asked.done()
    with reading(database()) as connection:
        page = list_actions(connection, want, place, ROWS)
        ids = sorted({row["cause_id"] for row in page.rows})
        causes = {row["id"]: row for row in rows(connection, "signals_by_id", ids=ids, chars=VALUE)}
    older = cursor(page.next) if page.next is not None else None
    return render(
        "actions", ("actions",), actions=page.rows, causes=causes, older=older, want=want, first=place.position is None,
        kinds=list(Action), results=list(Result),
    )  # fmt: skip


@pages.get("/actions/<position:id>")
def action(id: int) -> Response:
    """One action: the evaluation as it was recorded, and its evidence."""
    with reading(database()) as connection:
        found = find(connection, id)
        evidence = rows(connection, "signals_by_id", ids=found["evidence"], chars=VALUE)
    return render("action", (), action=found, evidence=evidence)


@pages.get("/processes")
def processes() -> Response:
    """Workers, runners, clocks: who is alive, and who was."""
    asked = Asked(request, ("part",))
    asked.done()
    with reading(database()) as connection:
        found = rows(connection, "processes")
        lag = behind(connection)
        pools = rows(connection, "pools")
    return render("processes", ("processes",), processes=found, lag=lag, pools=pools)
