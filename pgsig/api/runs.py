"""Runs and their logs."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response, request, stream_with_context

from pgsig.api.asking import Asked, paged
from pgsig.api.base import api, database
from pgsig.api.reply import plain, reply, signal
from pgsig.errors import NotFound
from pgsig.model import State
from pgsig.store.database import Connection
from pgsig.store.reading import WHOLE, Filter, Row, reading, row, rows
from pgsig.store.reading import runs as list_runs

PIECES = 200  # of a log that are read at once; a piece is what a runner wrote at a time


@api.get("/runs")
def runs() -> Response:
    """List runs, newest first."""
    asked = Asked(request, ("namespace", "workflow", "operator", "subject", "state", "before", "after", "limit"))
    want = Filter(
        namespace=asked.text("namespace"), workflow=asked.text("workflow"), operator=asked.text("operator"),
        subject=asked.text("subject"), states=asked.words("state", list(State)),
    )  # fmt: skip
    place, limit = asked.place(), asked.limit()
    asked.done()
    with reading(database()) as connection:
        page = list_runs(connection, want, place, limit)
    document, headers = paged("runs", page, [plain(item) for item in page.rows], request, place.direction)
    return reply(document, 200, headers)


@api.get("/runs/<position:id>")
def one_run(id: int) -> Response:
    """One run with the signals that caused it."""
    Asked(request, ()).done()
    with reading(database()) as connection:
        found = find(connection, id)
        cause = rows(connection, "signals_by_id", ids=found["evidence"], chars=WHOLE)
    return reply({**plain(found), "cause": [signal(item) for item in cause]})


@api.get("/runs/<position:id>/log")
def log(id: int) -> Response:
    """The log as plain text, from position `after` on. The header Pgsig-Log-Position says where it ended for now."""
    asked = Asked(request, ("after",))
    after = asked.number("after", 0, 0, 2**31 - 1)
    asked.done()
    with reading(database()) as connection:
        find(connection, id)
        last = max((item["seq"] for item in rows(connection, "log_heads", runs=[id])), default=after)
    headers = {"Pgsig-Log-Position": str(last)}
    text = stream_with_context(pieces(id, after, last))
    return Response(text, 200, headers, content_type="text/plain; charset=utf-8")


def pieces(run: int, after: int, last: int) -> Iterator[str]:
    """What stands in (after, last], some pieces at a time: a log is bounded, but not small."""
    while after < last:
        with reading(database()) as connection:
            found = rows(connection, "log_after", id=run, after=after, limit=PIECES)
        if not found:
            return
        yield "".join(item["text"] for item in found if item["seq"] <= last)
        after = found[-1]["seq"]


def find(connection: Connection, id: int) -> Row:
    """The row of one run. Raises NotFound."""
    found = row(connection, "run", id=id)
    if found is None:
        raise NotFound(f"there is no run {id}", code="PS604", fix="GET /api/v1/runs lists them")
    return found
