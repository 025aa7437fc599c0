"""/runs and the page of one: what happened, why, and its log as it grows."""

from __future__ import annotations

from flask import Response, request

from pgsig.api.asking import Asked, cursor
from pgsig.api.base import database
from pgsig.api.runs import find
from pgsig.model import FINAL, State
from pgsig.pages.base import ROWS, VALUE, pages, render
from pgsig.store.database import Connection
from pgsig.store.reading import WINDOW, Filter, Row, reading, rows
from pgsig.store.reading import runs as list_runs

PIECES = 200  # of a log on the page at first; earlier ones by a link, later ones as they come


@pages.get("/runs")
def runs() -> Response:
    """The newest runs, or the page before a cursor."""
    asked = Asked(request, ("workflow", "operator", "subject", "state", "namespace", "before", "part"))
    want = Filter(
        namespace=asked.text("namespace"), workflow=asked.text("workflow"), operator=asked.text("operator"),
        subject=asked.text("subject"), states=asked.words("state", list(State)),
    )  # fmt: skip
    place = asked.place()
    asked.done()
    with reading(database()) as connection:
        page = list_runs(connection, want, place, ROWS)
    older = cursor(page.next) if page.next is not None else None
    return render(
        "runs", ("runs",), runs=page.rows, older=older, want=want, first=place.position is None, states=list(State)
    )


@pages.get("/runs/<position:id>")
def run(id: int) -> Response:
    """One run. With `?part=log&after=N` only what its log has got since."""
    asked = Asked(request, ("part", "after", "upto"))
    after, upto = asked.number("after", -1, 0, 2**31 - 1), asked.number("upto", 0, 0, 2**31 - 1)
    asked.done()
    with reading(database()) as connection:
        found = find(connection, id)
        log = _log(connection, id, after, upto)
        if request.args.get("part") == "log":
            return render("run", ("log",), log=log)
        cause = rows(connection, "signals_by_id", ids=found["evidence"], chars=VALUE)
        first = min(found["evidence"], default=0)
        window = {"run": id, "above": first, "below": first + 2 * WINDOW}
        states = rows(connection, "run_states", **window)
        emitted = rows(connection, "signals_of_run", chars=VALUE, **window)
        reloads = rows(connection, "run_reloads", id=id)
    return render(
        "run", ("run_head", "run_facts"), run=found, log=log, cause=cause, timeline=timeline(found, states), emitted=emitted,
        reloads=reloads, over=found["state"] in FINAL,
    )  # fmt: skip


def _log(connection: Connection, run: int, after: int, upto: int) -> Row:
    """A part of the log: what follows `after`, what precedes `upto`, or its end."""
    if after >= 0:
        found = rows(connection, "log_after", id=run, after=after, limit=PIECES)
        more = False
    else:
        found = rows(connection, "log_before", id=run, before=upto or 2**31 - 1, limit=PIECES + 1)
        more = len(found) > PIECES
        found = found[:PIECES][::-1]
    last = found[-1]["seq"] if found else max(after, 0)
    return {
        "text": "".join(item["text"] for item in found),
        "first": found[0]["seq"] if found else 0,
        "last": last,
        "earlier": more,
    }


def timeline(run: Row, states: list[Row]) -> list[Row]:
    """What happened to a run and when: the moments in its row, and those that its state signals add (each attempt's)."""
    moments = [("queued", run["queued_at"]), ("starting", run["claimed_at"]), ("running", run["started_at"]),
               ("ready", run["ready_at"]), (run["state"] if run["ended_at"] else "", run["ended_at"])]  # fmt: skip
    found = [{"state": state, "at": at} for state, at in moments if at is not None]
    if run["attempt"] > 1:
        known = {(item["state"], item["at"].replace(microsecond=0)) for item in found}
        more = [{"state": state["key"].rpartition(".")[2], "at": state["emitted_at"]} for state in states]
        found += [item for item in more if (item["state"], item["at"].replace(microsecond=0)) not in known]
    found.sort(key=lambda item: item["at"])
    for item, before in zip(found[1:], found, strict=False):
        item["since"] = before["at"]
    return found
