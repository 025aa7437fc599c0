"""Signals: emit one or many, list, look at one with what it caused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Response, request

from pgsig.api.asking import Asked, cursor, paged
from pgsig.api.base import api, database
from pgsig.api.body import check_fields, loads, text_of, text_problem
from pgsig.api.problems import Refusal
from pgsig.api.reply import plain, reply, signal
from pgsig.condition import pattern
from pgsig.errors import Conflict, InvalidInput, NotFound, Problem
from pgsig.failpoints import reached
from pgsig.model import Json
from pgsig.store import doors
from pgsig.store.reading import Filter, reading, row, rows
from pgsig.store.reading import signals as list_signals

SOURCE = "http"  # of a signal that names none
FIELDS: Mapping[str, type | None] = {
    "key": str, "value": None, "subject": str, "namespace": str, "source": str, "event_id": str, "run_id": int,
}  # fmt: skip


@api.post("/signals")
def emit() -> Response:
    """Emit an object, or an array of them, all or none. 201 for something new, 200 if all of it was a repetition."""
    text = text_of(request)
    body = loads(text)
    many = isinstance(body, list)
    event_id = _idempotency_key(many)
    emitted = emit_text(text if many else f"[{text}]", body if many else [body], one=not many, event_id=event_id)
    status = 201 if any(item.new for item in emitted) else 200
    found = [{"id": item.id, "new": item.new} for item in emitted]
    if many:
        return reply({"signals": found}, status)
    return reply(found[0], status, {"Location": f"/api/v1/signals/{found[0]['id']}"})


def emit_text(
    text: str, items: list[Json], *, one: bool, event_id: str | None = None, source: str = SOURCE
) -> list[doors.Emitted]:
    """Check and emit an array. one: the caller knows of one signal only, pointers are into that. Raises InvalidInput, Conflict."""
    if not items:
        raise InvalidInput([Problem("PS110", "there is no signal in it", "", "send at least one")])
    found = [
        problem for place, item in enumerate(items) for problem in check_fields(item, FIELDS, f"/{place}", code="PS111")
    ]
    try:
        if found:
            with reading(database()) as connection:
                known = [_well_typed(item) for item in items]
                seen = {problem.where for problem in found}
                found += [p for p in doors.problems(connection, known, "default") if p.where not in seen]
            raise InvalidInput(sorted(found, key=lambda problem: _place(problem.where)))
        reached("web.emitting")
        with database().transaction() as connection:
            emitted = doors.emit(connection, text, source=source, event_id=event_id)
            reached("web.emitted")
        reached("web.answering")
        return emitted
    except InvalidInput as error:
        if not one:
            raise
        raise InvalidInput([replace(p, where=p.where.removeprefix("/0")) for p in error.problems]) from error
    except Conflict as error:
        where = "Idempotency-Key" if event_id else error.where
        raise Conflict(error.message, code=error.code, where=where, fix=error.fix) from error


def _well_typed(item: Json) -> Json:
    """What of an object the database can judge: a stand-in for what is missing or wrong, which is reported already."""
    given = item if isinstance(item, dict) else {}
    fit = {name: given[name] for name, kind in FIELDS.items() if kind is str and isinstance(given.get(name), str)}
    fit = {name: value for name, value in fit.items() if not text_problem(value)}
    said_nothing_of_it = isinstance(item, dict) and "key" not in item
    return fit if "key" in fit or said_nothing_of_it else {**fit, "key": "reported"}


def _place(pointer: str) -> tuple[int, str]:
    first = pointer.split("/")[1] if "/" in pointer else ""
    return (int(first) if first.isdigit() else 0, pointer)


def _idempotency_key(many: bool) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if many:
        raise Refusal(
            422, "Idempotency-Key stands for one signal", where="Idempotency-Key", fix="give each signal an event_id"
        )
    if not 1 <= len(key) <= 200 or not key.isascii() or not key.isprintable():
        raise Refusal(
            422, "Idempotency-Key has 1 to 200 printable ASCII characters", where="Idempotency-Key", fix="use a UUID"
        )
    return key


@api.get("/signals")
def signals() -> Response:
    """List signals, newest first; with `after`, oldest first. A page may be short, even empty, and have a `next`."""
    asked = Asked(request, ("key", "subject", "source", "namespace", "before", "after", "limit"))
    want = filter_of(asked)
    place, limit = asked.place(), asked.limit()
    asked.done()
    with reading(database()) as connection:
        page = list_signals(connection, want, place, limit)
    document, headers = paged("signals", page, [signal(item) for item in page.rows], request, place.direction)
    newest = max((item["id"] for item in page.rows), default=None)
    return reply({**document, "newest": cursor(newest) if newest is not None else None}, 200, headers)


def filter_of(asked: Asked) -> Filter:
    """The filter that list and tail share."""
    key = asked.text("key")
    if key and key != "**" and (problem := pattern.problem(key)):
        asked.problems.append(Problem("PS622", problem, "?key", "for instance model.* or model.**"))
    return Filter(
        key=key if key != "**" else None,
        subject=asked.text("subject"),
        source=asked.text("source"),
        namespace=asked.text("namespace"),
    )


@api.get("/signals/<position:id>")
def one_signal(id: int) -> Response:
    """One signal, how it ended for each rule, and the actions that it caused."""
    Asked(request, ()).done()
    with reading(database()) as connection:
        found = signal_with_fate(connection, id)
    return reply(found)


def signal_with_fate(connection: Any, id: int) -> dict[str, Any]:
    """Raises NotFound."""
    found = row(connection, "signal", id=id)
    if found is None:
        raise NotFound(
            f"there is no signal {id}", code="PS604", fix="GET /api/v1/signals lists them; old ones are dropped"
        )
    return {
        **signal(found),
        "outcomes": rows(connection, "outcomes_of_signal", id=id),
        "actions": [plain(item) for item in rows(connection, "actions_of_signal", id=id)],
    }
