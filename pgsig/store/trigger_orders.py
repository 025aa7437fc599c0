"""What people do with one trigger: fire it now, skip its next due time, pause and resume it.

Each is a signal that says who and why, and returns its position.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pgsig.condition import missed, schedule
from pgsig.condition.missed import Gap, Policy, Settled
from pgsig.errors import InvalidInput, Problem
from pgsig.model import Json
from pgsig.store.database import Connection, query
from pgsig.store.doors import position
from pgsig.store.reading import Row, row
from pgsig.store.triggers import Trigger, find, settle


def fire_now(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    *,
    params: Json = None,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """Let a trigger tick now, beside its due times. trigger: its name or the beginning of it; None for the only one.

    Raises NotFound for an unknown operator, InvalidInput (PS207) for an unknown trigger, or one of several.
    """
    given = {"operator": operator, "trigger": trigger, "namespace": namespace, "reason": reason, "source": source}
    return position(connection, "fire_trigger", **given, params=None if params is None else json.dumps(params))


def pause(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    mode: str = "hold",
    *,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """Pause a trigger. mode: what becomes of due times until the resume: hold, collapse or drop. Raises like `fire_now`."""
    given = {"operator": operator, "trigger": trigger, "namespace": namespace, "reason": reason, "source": source}
    return position(connection, "pause_trigger", **given, mode=mode)


def resume(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    *,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """End the pause of a trigger, and settle what was due meanwhile as the pause says. Raises like `fire_now`."""
    with connection.transaction():
        found = _locked(connection, find(connection, operator, trigger, namespace)["id"])
        more: dict[str, Any] = {"mode": found["paused"]}
        if found["paused"] is not None:
            item, times = Trigger(found["id"], found["spec"], found["since"]), schedule.build(found["spec"])
            connection.execute(query("unpause_trigger").encode(), {"id": item.id})
            settled = _since_the_pause(times, item, found["now"], missed.AT_RESUME[found["paused"]])
            if settled is not None:
                settle(connection, [(item, settled)], by=source, reason=reason)
                more["ticks"] = len(settled.ticks)
        return _note(connection, found["id"], "RESUME_TRIGGER", more, reason, source)


def _since_the_pause(times: schedule.Times, item: Trigger, moment: datetime, how: Policy) -> Settled | None:
    """What a pause held back: nothing of it is fired for being recent, the mode decides of all."""
    old = schedule.last_due(times, item.since, moment, max(1, how.most))
    if not old:
        return None
    fired = old[len(old) - how.most :] if how.most else []
    gap = missed.gap_between(times, item.since, fired[0] if fired else old[-1], "paused", inclusive=not fired)
    return Settled(tuple(fired), gap, old[-1])


def skip_next(
    connection: Connection,
    operator: str,
    trigger: str | None = None,
    *,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> tuple[int, datetime]:
    """Leave out the next due time of a trigger. Returns the position of the manual signal, and the due time.

    What is due by now and nobody has fired yet is fired first. Raises like `fire_now`; InvalidInput (PS209) where nothing is to come.
    """
    with connection.transaction():
        found = _locked(connection, find(connection, operator, trigger, namespace)["id"])
        item, times = Trigger(found["id"], found["spec"], found["since"]), schedule.build(found["spec"])
        moment = found["now"]
        if found["paused"] is not None:
            raise InvalidInput([Problem("PS209", f"{found['name']} is paused", "/trigger", "resume it first")])
        due = missed.settle(times, item.since, moment, item.policy, seed=item.seed, jitter_most=item.jitter)
        if due is not None:
            item = Trigger(item.id, item.spec, settle(connection, [(item, due)]).places[item.id].since)
        upcoming = schedule.next_due(times, item.since)
        if upcoming is None:
            raise InvalidInput(
                [Problem("PS209", f"{found['name']} has no due time to come", "/trigger", "there is nothing to skip")]
            )
        gap = Gap(upcoming, upcoming, 1, "skipped")
        settle(connection, [(item, Settled((), gap, upcoming))], ahead=True, by=source, reason=reason)
        connection.execute(query("announce_triggers").encode())
        return _note(connection, item.id, "SKIP_TRIGGER", {"due": upcoming.isoformat()}, reason, source), upcoming


def _locked(connection: Connection, trigger: int) -> Row:
    found = row(connection, "lock_trigger", id=trigger)
    assert found is not None
    return found


def _note(connection: Connection, trigger: int, word: str, more: Json, reason: str, source: str | None) -> int:
    connection.execute(query("announce_triggers").encode())
    return position(
        connection, "note_trigger", id=trigger, word=word, more=json.dumps(more), reason=reason, source=source
    )
