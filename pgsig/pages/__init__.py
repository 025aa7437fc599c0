"""The pages: rendered here, kept up to date in the browser by fetching parts of themselves when the live stream says so.

Each module below adds its routes to the blueprint in `base` when it is imported.
"""

from pgsig.pages import ledger, operators, overview, runs, session, signals, storage, stream, triggers, workflows
from pgsig.pages.base import pages

__all__ = [
    "ledger",
    "operators",
    "overview",
    "pages",
    "runs",
    "session",
    "signals",
    "storage",
    "stream",
    "triggers",
    "workflows",
]
