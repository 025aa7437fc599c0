"""What would this do? An order is written, evaluated and planned as a worker would, in a transaction that never commits.

So the answer comes from the same pure planner and the same rows, and nobody hears of it: no signal, no run, no notification.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pgsig.decide.match import match
from pgsig.engine import Engine
from pgsig.store import signals
from pgsig.store.database import Connection, query, translated
from pgsig.store.reading import Row, rows

NEW_RUN = re.compile(r"^(recorded: |queued[^:]*: )run \d+(?! is asked)")


def what_if(connection: Connection, order: Callable[[], object]) -> list[Row]:
    """The actions that would be recorded by what `order` emits: workflow, operator, subject, action, result, rule and `text` of each.

    order: writes signals over the same connection. Whatever it raises is raised. What is locked meanwhile is let go within moments.
    """
    with translated(), connection.transaction(force_rollback=True):
        connection.execute(query("short_lock").encode())
        order()
        written = signals.own(connection)
        engine = Engine(connection)
        catalog = engine.definitions({})
        if matches := match(catalog, written):
            engine.evaluate(catalog, matches, {}, {})
        found = rows(connection, "actions_by", causes=[signal.id for signal in written])
    for action in found:  # the run that it would be has a number that is never given to it
        action["text"] = NEW_RUN.sub(r"\1a new run", action["text"])
    return found
