"""The JSON API under /api/v1, and the health checks. Errors are RFC 9457 documents; lists have cursors and no totals.

Each module below adds its routes to the blueprint in `base` when it is imported.
"""

from pgsig.api import actions, metrics, operators, pauses, runs, signals, tail, triggers, why
from pgsig.api.base import api

__all__ = ["actions", "api", "metrics", "operators", "pauses", "runs", "signals", "tail", "triggers", "why"]
