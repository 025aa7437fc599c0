"""/storage: how large and how old everything is, how far behind the workers are, and what holds things up."""

from __future__ import annotations

from flask import Response

from pgsig.api.metrics import look
from pgsig.pages.base import pages, render
from pgsig.store.advice import advice


@pages.get("/storage")
def storage() -> Response:
    seen = look()
    return render("storage", ("storage",), seen=seen, tables=seen.growing, findings=list(advice(seen)))
