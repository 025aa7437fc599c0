"""/ : what flows now, as a graph and as a table."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from pgsig.api.asking import Asked
from pgsig.api.base import database
from pgsig.pages.base import pages, render
from pgsig.pages.operators import with_held
from pgsig.pages.scene import scene
from pgsig.store.database import Connection
from pgsig.store.reading import Row, heads, reading, rows

LATELY = 20_000  # positions back in which an emitted signal still makes an edge


@pages.get("/")
def overview() -> Response:
    """The graph of every workflow, or of `?workflow=`."""
    asked = Asked(request, ("workflow", "part"))
    workflow = asked.text("workflow")
    asked.done()
    return page_of(workflow)


def page_of(workflow: str | None, status: int = 200, **shown: Any) -> Response:
    """The overview of a workflow, or of all. shown: what stands there beside what is read."""
    part = request.args.get("part")
    context: Row = {}
    with reading(database()) as connection:
        if part in (None, "lag"):
            context["lag"] = behind(connection)
        if part != "lag":
            operators = rows(connection, "operators", namespace=None, workflow=workflow, operator=None)
            with_held(connection, operators)
            rules = rows(connection, "rules", operators=[row["operator_id"] for row in operators])
            context |= {"operators": operators, "scene": scene(operators, rules, emitted(connection))}
        context["workflows"] = rows(connection, "workflows")
    at = f"/?{urlencode({'workflow': workflow})}" if workflow else "/"
    beside = {"problems": (), "form": {}, "would": None, **shown}
    return render("overview", ("graph", "lag", "operators_short"), status, chosen=workflow, at=at, **beside, **context)


def emitted(connection: Connection) -> list[Row]:
    """Which keys the runs of which operator emitted of late."""
    return rows(connection, "emitted_keys", above=max(0, heads(connection).signals - LATELY))


def behind(connection: Connection) -> Row:
    """How far the workers are behind, all lanes together."""
    lanes = rows(connection, "lag")
    return {
        "waiting": sum(lane["waiting"] for lane in lanes), "more": any(lane["waiting"] >= 10_000 for lane in lanes),
        "oldest_at": min((lane["oldest_at"] for lane in lanes if lane["oldest_at"]), default=None),
    }  # fmt: skip
