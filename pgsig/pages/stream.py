"""GET /live: the one stream of a browser tab. It only says what changed; the page fetches what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import monotonic

from flask import Response, request

from pgsig.api.base import live
from pgsig.api.tail import COMMENT
from pgsig.api.tail import stream as event_stream
from pgsig.live import Live
from pgsig.pages.base import pages


@pages.get("/live")
def stream() -> Response:
    """Events like {"signals": 12, "actions": 3, "runs": 2, "keys": ["model.trained"], "log": 40}."""
    text = request.args.get("run", "")
    run = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
    return event_stream(changes(live(), run), live(), run)


def changes(hub: Live, run: int | None) -> Iterator[str]:
    """The stream's text. Begins with the state as it is, so that a page that was away notices what it missed."""
    yield "retry: 2000\n\n"
    serial, said = 0, monotonic()
    while not hub.closed:
        change = hub.wait(serial, max(0.0, said + COMMENT - monotonic()))
        if change is not None and change.heads is not None:
            serial, heads = change.serial, change.heads
            news = {"signals": heads.signals, "actions": heads.actions, "runs": heads.runs, "definitions": heads.definitions,
                    "keys": change.keys, "log": heads.logs.get(run, 0) if run is not None else 0}  # fmt: skip
            yield f"event: change\ndata: {json.dumps(news)}\n\n"
        elif not hub.closed:
            yield ": still here\n\n"
        said = monotonic()
