"""What people and programs do from outside: emit signals and order actions. Used by the HTTP API and the pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from pgsig.errors import Problem
from pgsig.model import Json
from pgsig.store.database import LINE, Connection, translated
from pgsig.store.reading import Row, rows

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25  # seconds between two looks for what an order came to


@dataclass(frozen=True)
class Emitted:
    """Where a signal stands in the log. new: False for a repetition, which is answered with its first position."""

    id: int
    new: bool


def emit(
    connection: Connection, signals: str, *, source: str, namespace: str = "default", event_id: str | None = None
) -> list[Emitted]:
    """Emit a JSON array of signals in the caller's transaction, all or none.

    signals: the array's text, kept as it is down to the last digit. source, namespace, event_id: for signals that name none.
    Raises InvalidInput with every problem, its `where` beginning with the signal's index, and Conflict for an event id
    that was used before with another body.
    """
    defaults: dict[str, str] = {"source": source}
    if event_id is not None:
        defaults["event_id"] = event_id
    found = rows(connection, "emit_with_defaults", signals=signals, defaults=json.dumps(defaults), namespace=namespace)
    positions = [item["id"] for item in found]
    written = {item["id"] for item in rows(connection, "written_here", ids=positions)}
    return [Emitted(position, position in written) for position in positions]


def problems(connection: Connection, signals: Sequence[Json], namespace: str) -> list[Problem]:
    """What the database would find wrong with signals, without emitting them."""
    found = rows(connection, "signal_problems", signals=json.dumps(list(signals)), namespace=namespace)
    matched = (LINE.match(item["p"]) for item in found)
    return [Problem(**{name: text or "" for name, text in line.groupdict().items()}) for line in matched if line]


def act(
    connection: Connection, operator: str, action: str, *, subject: str = "", params: str = "{}", reason: str = "",
    namespace: str = "default", source: str | None = None,
) -> int:  # fmt: skip
    """Order an action of `workflow.operator` by hand. params: JSON text. source: who; None for the database's login.

    Returns the position of the manual signal. Raises NotFound for an unknown operator, InvalidInput for anything else that is wrong.
    """
    given = {"operator": operator, "action": action, "subject": subject, "params": params}
    return position(connection, "act", **given, reason=reason, namespace=namespace, source=source)


def act_on(
    connection: Connection, target: str, action: str, *, subject: str = "", params: str = "{}", reason: str = "",
    namespace: str = "default", source: str | None = None,
) -> list[int]:  # fmt: skip
    """Order an action of `workflow.operator`, or of every operator of a workflow, all or none.

    Returns the positions of the manual signals, in order of the operators' names. Raises like `act`.
    """
    given = {"subject": subject, "params": params, "reason": reason, "namespace": namespace, "source": source}
    with translated(), connection.transaction():
        found = [item["path"] for item in rows(connection, "targets", namespace=namespace, target=target)]
        return [act(connection, path, action, **given) for path in found or [target]]  # type: ignore[arg-type]


def pause(
    connection: Connection, target: str, mode: str = "hold", *, reason: str = "", namespace: str = "default",
    source: str | None = None,
) -> int:  # fmt: skip
    """Pause the rules of `workflow.operator`, or of a whole workflow. mode: hold, collapse or drop.

    Returns the position of the (last) manual signal. Raises NotFound for an unknown target, InvalidInput for another mode.
    """
    return position(connection, "pause", target=target, mode=mode, reason=reason, namespace=namespace, source=source)


def resume(
    connection: Connection, target: str, *, reason: str = "", namespace: str = "default", source: str | None = None
) -> int:
    """End a pause. Returns the position of the (last) manual signal. Raises NotFound for an unknown target."""
    return position(connection, "resume", target=target, reason=reason, namespace=namespace, source=source)


def effects(connection: Connection, signal: int) -> list[Row]:
    """What an order by hand came to: id, workflow, operator, subject, action, result, run_id and `text` of each action, oldest first.

    Empty while no worker has evaluated the signal, and for a signal that ordered nothing.
    """
    found = rows(connection, "effects", signal=signal)[0]["effects"]
    return list(found["actions"]) if found else []


def wait_for_effects(look: Callable[[], list[Row]], within: float, rest: Callable[[float], object]) -> list[Row]:
    """What `look` finds, as soon as it finds anything, [] after `within` seconds. rest: waits so many seconds, or less."""
    until, pause = monotonic() + within, FIRST_PAUSE
    while not (found := look()) and (left := until - monotonic()) > 0:
        rest(min(pause, left))
        pause = min(pause * 2, LONGEST_PAUSE)
    return found


def limit_pool(connection: Connection, pool: str, most: int | None) -> None:
    """Limit how many runs of a pool are alive at once; None for no limit. Raises InvalidInput (PS206)."""
    rows(connection, "limit_pool", pool=pool, most=most)


def position(connection: Connection, name: str, /, **given: object) -> int:
    """What a statement of one row says as `id`: where an order stands in the log. Raises like `act`."""
    with translated():
        return int(rows(connection, name, **given)[0]["id"])
