"""/storage: how large and how old everything is, how far behind the workers are, and what holds things up."""

from __future__ import annotations

from flask import Response

from pgsig.api.metrics import look
from pgsig.pages.base import pages, render
from pgsig.store.advice import advice

LARGE = 1_000_000  # bytes from which a table is shown that does not grow by itself

# The setting that says when rows of a table go.
DAYS = {
    "signals": "retention_days", "outcome": "outcome_days", "action": "action_days", "run": "run_days", "log": "log_days",
    "reload": "reload_days", "tick": "tick_days", "event": "event_days", "process": "process_days",
}  # fmt: skip


@pages.get("/storage")
def storage() -> Response:
    seen = look()
    grows = [table for table in seen.tables if table.name in DAYS or table.bytes + table.index_bytes >= LARGE]
    return render("storage", ("storage",), seen=seen, tables=grows, findings=list(advice(seen)), days=DAYS)
