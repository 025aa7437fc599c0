"""GET /api/v1/signals/tail: signals as they become visible, as server-sent events, resumable without a gap.

The id of each event is a cursor made of snapshots, not a position: a signal whose transaction commits late has a low
position, and a reader that remembered only the highest would never see it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import psycopg
from flask import Response, request

from pgsig.api.asking import Asked
from pgsig.api.base import api, database, live
from pgsig.api.problems import Refusal
from pgsig.api.signals import filter_of
from pgsig.errors import PgsigError
from pgsig.live import Live, TooMany
from pgsig.store.database import Database
from pgsig.store.reading import Cursor, Filter, Row, arrivals, go_on, here, oldest, reading

COMMENT = 15.0  # seconds of silence after which a comment keeps proxies from closing the stream
_SNAPSHOT = "[0-9]{1,19}:[0-9]{1,19}:(?:[0-9]{1,19}(?:,[0-9]{1,19})*)?"
_CURSOR = re.compile(
    rf"(?P<s1>{_SNAPSHOT})\|(?P<s2>(?:{_SNAPSHOT})?)\|(?P<done>[0-9]{{1,18}})(?:\|(?P<timeline>[0-9]{{1,18}}))?"
)


@api.get("/signals/tail")
def tail() -> Response:
    """Stream from now on, with `after=oldest` what is left of the log, or from `Last-Event-ID` on. The query narrows it like a list."""
    asked = Asked(request, ("key", "subject", "source", "namespace", "after"))
    want, place = filter_of(asked), asked.words("after", ("here", "oldest"))
    asked.done()
    given = request.headers.get("Last-Event-ID")
    with reading(database()) as connection:
        if given:
            start = go_on(connection, from_text(given), want)
        else:
            start = oldest(connection, want) if place == ("oldest",) else here(connection)
    return stream(follow(database(), live(), want, start), live())


def stream(events: Iterator[str], hub: Live, run: int | None = None) -> Response:
    """An event stream that holds one of the process's places until it ends. Raises Refusal 429 when there is none."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hub.watching(run))
        except TooMany as error:
            raise Refusal(429, error.message, fix=error.fix) from error
        response = Response(events, content_type="text/event-stream; charset=utf-8")
        response.call_on_close(stack.pop_all().close)
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["Cache-Control"] = "no-store"
    return response


def follow(database: Database, hub: Live, want: Filter, cursor: Cursor) -> Iterator[str]:
    """The stream's text. Ends when the process does; the client then comes back with the last id."""
    yield f"retry: 2000\nid: {to_text(cursor)}\n\n"  # an id without data: nothing to handle, but a place to resume from
    serial, said = 0, monotonic()
    while not hub.closed:
        try:
            with reading(database) as connection:
                found = arrivals(connection, cursor, want)
        except (PgsigError, psycopg.Error):
            return  # the client reconnects, and is then told what is wrong
        for item, place in found.signals:
            yield event(item, place)
            said = monotonic()
        cursor = found.cursor
        if found.more:
            continue
        change = hub.wait(serial, max(0.0, said + COMMENT - monotonic()))
        if change is not None:
            serial = change.serial
        elif not hub.closed:
            yield ": still here\n\n"
            said = monotonic()


def event(item: Row, cursor: Cursor) -> str:
    """One signal as an event. JSON holds no line break, so one data line is enough."""
    head = json.dumps(
        {**{k: v for k, v in item.items() if k != "value"}, "emitted_at": item["emitted_at"].isoformat()},
        ensure_ascii=False,
    )
    return f'id: {to_text(cursor)}\nevent: signal\ndata: {head[:-1]}, "value": {item["value"]}}}\n\n'


def to_text(cursor: Cursor) -> str:
    text = f"{cursor.s1}|{cursor.s2}|{cursor.done}" + (f"|{cursor.timeline}" if cursor.timeline else "")
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_text(text: str) -> Cursor:
    """The cursor in a Last-Event-ID. Raises Refusal 400."""
    try:
        if len(text) > 16384:
            raise ValueError("too long")
        found = _CURSOR.fullmatch(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        )
        if found is None:
            raise ValueError("not snapshots")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise Refusal(
            400, "not an id of this stream", where="Last-Event-ID", fix="hand back the last id as it came"
        ) from error
    return Cursor(found["s1"], found["s2"], int(found["done"]), int(found["timeline"] or 0))
