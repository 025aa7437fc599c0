"""/signals: what arrived, and what each caused; and a form to emit one."""

from __future__ import annotations

import json

from flask import Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from pgsig.api.asking import Asked, cursor
from pgsig.api.base import database
from pgsig.api.problems import problems_of, status_of
from pgsig.api.signals import emit_text, filter_of
from pgsig.errors import NotFound, PgsigError
from pgsig.pages.base import ROWS, VALUE, pages, render
from pgsig.pages.forms import json_of
from pgsig.store.explain import why_signal
from pgsig.store.reading import Filter, Place, reading, row, rows
from pgsig.store.reading import signals as list_signals

SOURCE = "pages"  # of a signal that the form emits


@pages.get("/signals")
def signals() -> Response:
    """The newest signals, or the page before a cursor."""
    asked = Asked(request, ("key", "subject", "source", "namespace", "before", "part", "emit"))
    want, place = filter_of(asked), asked.place()
    asked.done()
    return _list(want, place)


@pages.post("/signals/emit")
def emit() -> AnyResponse:
    """Emit what the form says, then show the signal; what is wrong is shown beside the form."""
    form = {name: request.form.get(name, "") for name in ("key", "subject", "value")}
    value = form["value"].strip() or "null"
    try:
        json_of(value, "/value")
        # The value's own text: decoding and encoding it would round its numbers.
        text = f'[{{"key": {json.dumps(form["key"])}, "subject": {json.dumps(form["subject"])}, "value": {value}}}]'
        emitted = emit_text(text, [{"key": form["key"], "subject": form["subject"]}], one=True, source=SOURCE)
    except PgsigError as error:
        return _list(Filter(), Place(), status_of(error), problems_of(error), form)
    return redirect(f"/signals/{emitted[0].id}", 303)


@pages.get("/signals/<position:id>")
def signal(id: int) -> Response:
    """One signal, how it ended for each rule, the actions and runs that it led to."""
    with reading(database()) as connection:
        found = row(connection, "signal", id=id)
        if found is None:
            raise NotFound(f"there is no signal {id}", code="PS604", fix="it may be older than what is kept")
        shown = rows(connection, "signal_pretty", id=id)[0]
        outcomes = rows(connection, "outcomes_of_signal", id=id)
        fate = why_signal(connection, id)
        actions = rows(connection, "actions_of_signal", id=id)
    return render("signal", ("signal_fate",), signal=found, value=shown, outcomes=outcomes, actions=actions, fate=fate)


def _list(
    want: Filter, place: Place, status: int = 200, problems: object = (), form: dict[str, str] | None = None
) -> Response:
    with reading(database()) as connection:
        page = list_signals(connection, want, place, ROWS, chars=VALUE)
    older = cursor(page.next) if page.next is not None else None
    return render(
        "signals", ("signals",), status, signals=page.rows, older=older, want=want, first=place.position is None, problems=problems,
        form=form or {},
    )  # fmt: skip
