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
from pgsig.store.wire import wire

RUN = re.compile(r"\brun (\d+)")


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
            wire(connection).finish()
        found = rows(connection, "actions_by", causes=[signal.id for signal in written])
    # The runs that it would make have numbers that nobody will see again.
    made = {action["new_run"] for action in found}
    for action in found:
        own = action.pop("new_run")
        action["text"] = RUN.sub(lambda said, own=own: _told(int(said[1]), own, made), action["text"])  # type: ignore[misc]
    return found


def _told(run: int, own: int | None, made: set[int | None]) -> str:
    if run == own:
        return "a new run"
    return "the new run before it" if run in made else f"run {run}"
