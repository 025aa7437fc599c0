"""What a job says and asks, in the name of its run. Statements: `sql/queries/jobs.sql`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from pgsig.errors import Conflict, InvalidInput, Problem
from pgsig.model import Json
from pgsig.store import cursors
from pgsig.store.database import Connection, query
from pgsig.store.jobs import all_rows
from pgsig.store.wire import wire


@dataclass(frozen=True, slots=True)
class Heard:
    """One signal for a job that listens. cursor: where to go on after it."""

    id: int
    key: str
    subject: str
    value: str
    source: str
    emitted_at: str
    run_id: int | None
    cursor: str


def gone(run: int) -> Conflict:
    return Conflict(
        f"this attempt of run {run} is over: another one was granted, or it was reported ended", code="PS402",
        fix="end this process; what it says is not recorded any more",
    )  # fmt: skip


def emit(
    connection: Connection, run: int, epoch: int, namespace: str, source: str, signals: Sequence[Json]
) -> list[int]:
    """Emit signals in the name of a run, in one statement: all or none. Returns their positions.

    Raises Conflict (PS402) once the grant is over, psycopg.Error for signals that are refused, InvalidInput for what is none.
    """
    stamped = []
    for place, signal in enumerate(signals):
        if not isinstance(signal, dict):
            raise InvalidInput(
                [Problem("PS110", "a signal is an object with a key", f"/{place}")], subject="the signals"
            )
        stamped.append({"source": source, **signal, "run_id": run})
    if not stamped:
        return []
    given = {"run": run, "epoch": epoch, "signals": Jsonb(stamped), "namespace": namespace}
    rows = connection.execute(query("emit").encode(), given).fetchall()
    if not rows:
        raise gone(run)
    return [row[0] for row in rows]


def emit_one(connection: Connection, run: int, epoch: int, namespace: str, source: str, signal: Json) -> int:
    """`emit` for one signal, which needs no list. Returns its position. What is refused is named in the signal, or under /0."""
    one = _plain({"source": source, **signal, "run_id": run}) if isinstance(signal, dict) else None
    if one is None:
        return emit(connection, run, epoch, namespace, source, [signal])[0]
    rows = wire(connection).ask("emit_one", run=str(run), epoch=str(epoch), namespace=namespace, **one)
    if not rows:
        raise gone(run)
    return int(rows[0][0])


def _plain(signal: dict[str, Json]) -> dict[str, str | None] | None:
    """One signal as `pgsig.emit` takes it. None: something in it is not as it should be, and `emit_many` says what."""
    texts = {"key": signal.get("key"), "subject": signal.get("subject", ""), "source": signal["source"]}
    if (event_id := signal.get("event_id")) is not None:
        texts["event_id"] = event_id
    if not signal.keys() <= _FIELDS or not all(isinstance(text, str) and text.isprintable() for text in texts.values()):
        return None
    return {"event_id": None, **texts, "value": json.dumps(signal.get("value"))}


_FIELDS = {"key", "value", "subject", "source", "event_id", "run_id"}


def note(connection: Connection, run: int, epoch: int, what: str, value: Json) -> None:
    """Keep a run's `progress`, `result` or `checkpoint`. Raises Conflict (PS402) once the grant is over."""
    name = {"progress": "note_progress", "result": "note_result", "checkpoint": "note_checkpoint"}[what]
    if connection.execute(query(name).encode(), {"run": run, "epoch": epoch, "value": Jsonb(value)}).rowcount != 1:
        raise gone(run)


def begin(connection: Connection, namespace: str, place: str) -> str:
    """The cursor of a listener that begins anew. place: `here` for now, `oldest` for what is left of the log."""
    return str(all_rows(connection, "cursor_begin", namespace=namespace, place=place)[0]["cursor"])


def signals_after(
    connection: Connection, namespace: str, pattern: str, cursor: str, *, most: int = 500
) -> tuple[list[Heard], str]:
    """Signals whose key matches `pattern`, a regular expression, that became visible after `cursor`, and the next cursor.

    A cursor is a snapshot, or `snapshot;snapshot;position` inside a window, where there may be more at once, also if nothing is found here;
    `@` and a number behind it, where Postgres has lost the end of its log before (`sql/api/16_timeline.sql`). Late commits are not skipped.
    Raises InvalidInput for the cursor of another database, and where such signals were dropped before it came.
    """
    place, _, timeline = cursor.partition("@")
    s1, s2, last = (*place.split(";"), "", "")[:3]
    rows = all_rows(
        connection,
        "signals_after",
        s1=s1,
        s2=s2 or None,
        last=int(last or 0),
        timeline=int(timeline or 0),
        namespace=namespace,
        pattern=pattern,
        most=most,
    )
    if (s1 := rows[0]["s1"]) is None:
        raise cursors.foreign("/after")
    if rows[0]["missed"]:
        raise cursors.behind("/after")
    timeline = f"@{rows[0]['timeline']}" if rows[0]["timeline"] else ""
    end = rows[0]["s2"]
    found = [
        Heard(
            id=row["id"], key=row["key"], subject=row["subject"], value=row["value"], source=row["source"],
            emitted_at=row["emitted_at"].isoformat(), run_id=row["run_id"], cursor=f"{s1};{end};{row['id']}{timeline}",
        )
        for row in rows if row["id"] is not None
    ]  # fmt: skip
    if len(found) == most:
        return found, found[-1].cursor
    reached = rows[-1]["reached"]
    return found, f"{s1};{end};{reached}{timeline}" if reached is not None else end + timeline
