"""Why an operator did or did not act, and what a signal did or why it did nothing."""

from __future__ import annotations

from flask import Response, request

from pgsig.api.asking import Asked
from pgsig.api.base import api, database
from pgsig.api.operators import DEFAULT, find
from pgsig.api.reply import plain, reply
from pgsig.store import explain
from pgsig.store.reading import reading


@api.get("/operators/<workflow>/<operator>/why")
@api.get("/operators/<workflow>.<operator>/why")
def why(workflow: str, operator: str) -> Response:
    """One verdict and each rule's tree for a subject; `text` says it as `pgsig why` does."""
    asked = Asked(request, ("namespace", "subject"))
    namespace, subject = asked.text("namespace") or DEFAULT, asked.text("subject") or ""
    asked.done()
    with reading(database()) as connection:
        find(connection, namespace, workflow, operator)
        return reply(explain.why(connection, f"{workflow}.{operator}", subject, namespace))


@api.get("/signals/<position:id>/why")
def why_signal(id: int) -> Response:
    """Each interested rule with what it did with a signal; keys that are nearly the same where no rule is interested."""
    Asked(request, ()).done()
    with reading(database()) as connection:
        return reply(plain(explain.why_signal(connection, id)))
