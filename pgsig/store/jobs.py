"""The runner's side of the database: leases, grants, reports, and what a job says and asks. Statements: `sql/queries/jobs.sql`.

Each function is one statement, or one transaction where it says so, on the caller's connection. psycopg's errors pass
through: whoever repeats things has to see which they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgsig.errors import Conflict, InvalidInput, Problem
from pgsig.model import Json, State
from pgsig.store.database import Connection, query

FOREVER = 3650 * 86400.0  # a delay beyond it would overflow what Postgres calls an interval


@dataclass(frozen=True, slots=True)
class Grant:
    """A run, given to one runner for one attempt.

    epoch: the fencing token; what is reported under another one changes nothing. cause, checkpoint: JSON text, as the job gets
    it. since: the log as it was when the run was granted, a snapshot. problem: why the rest cannot be relied on, or "".
    """

    id: int
    epoch: int
    attempt: int
    generation: int
    namespace: str
    workflow: str
    operator: str
    subject: str
    kind: str
    spec: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    cause: str = "[]"
    action: str | None = None
    depth: int = 0
    handover_of: int | None = None
    checkpoint: str | None = None
    since: str = ""
    problem: str = ""

    @property
    def key(self) -> tuple[int, int]:
        return (self.id, self.epoch)


@dataclass(frozen=True, slots=True)
class Order:
    """For a run that this runner holds: stop it, or (`reload_id` is given) hand it the signals in `cause`, JSON text."""

    run_id: int
    epoch: int
    stop: bool
    reload_id: int | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """A grant as the database has it."""

    run_id: int
    epoch: int
    attempt: int
    kind: str
    spec: Mapping[str, Any]
    desired: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another runner that claims to live on this machine. detail: what it said of itself when it joined."""

    id: int
    pid: int
    detail: Mapping[str, Any]


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


def _one(connection: Connection, statement: str, /, **given: Any) -> Any:
    row = connection.execute(query(statement).encode(), given).fetchone()
    return row[0] if row else None


def _rows(connection: Connection, statement: str, /, **given: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(statement).encode(), given).fetchall()


def _decoded(text: str | None) -> tuple[dict[str, Any], str]:
    """An object and no problem, or an empty one and what is wrong with its text."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        return {}, f"it is JSON that Python cannot read: {error}"
    return (value, "") if isinstance(value, dict) else ({}, "it is not a JSON object")


# ── the runner itself ──


def join(
    connection: Connection,
    *,
    name: str,
    host: str,
    pid: int,
    version: str,
    pools: Sequence[str],
    capacity: int,
    lease: float,
) -> int:
    """Announce a runner. lease: seconds for which it need not be heard of again. Returns its process id in pgsig."""
    found = _one(
        connection, "join", role="runner", name=name, host=host, pid=pid, version=version, pools=list(pools),
        capacity=capacity, lease=lease,
    )  # fmt: skip
    return int(found)


def renew(connection: Connection, process: int, *, lease: float, detail: Json = None) -> bool:
    """Prolong the lease to `lease` seconds from now. False: the process was declared dead, its runs are others'."""
    return bool(
        _one(
            connection,
            "renew",
            process=process,
            lease=lease,
            detail=None if detail is None else Jsonb(detail),
        )
    )


def leave(connection: Connection, process: int) -> None:
    """The process has ended: what it still holds may be taken from it at once."""
    connection.execute(query("leave").encode(), {"process": process})


def neighbours(connection: Connection, process: int, machine: str) -> list[Neighbour]:
    rows = _rows(connection, "neighbours", process=process, machine=machine)
    return [Neighbour(row["id"], row["pid"], _decoded(row["detail"])[0]) for row in rows]


def reap(connection: Connection, *, quiet: float) -> list[Held]:
    """Declare dead whose lease has run out, and return the runs of all the dead. quiet: seconds after the server's start
    in which nobody dies: everybody has to get the chance to renew first."""
    return [_held(row) for row in _rows(connection, "reap", quiet=quiet)]


def held(connection: Connection, process: int) -> list[Held]:
    return [_held(row) for row in _rows(connection, "held", runner=process)]


def _held(row: dict[str, Any]) -> Held:
    return Held(**{**row, "spec": _decoded(row["spec"])[0]})


# ── runs ──


def claim(connection: Connection, process: int, pools: Sequence[str], capacity: int) -> list[Grant]:
    """Take up to `capacity` runs that may start. Raises psycopg.Error with state PS301 when the lease is over."""
    grants = []
    for row in _rows(connection, "claim", runner=process, pools=list(pools), capacity=capacity):
        spec, bad_spec = _decoded(row["spec"])
        params, bad_params = _decoded(row["params"])
        problem = f"its definition cannot be used: {bad_spec}" if bad_spec else ""
        problem = problem or (f"its parameters cannot be used: {bad_params}" if bad_params else "")
        defaults = spec.get("params")
        if isinstance(defaults, dict):
            params = {**defaults, **params}
        grants.append(Grant(**{**row, "spec": spec, "params": params, "problem": problem}))
    return grants


def orders(connection: Connection, process: int) -> list[Order]:
    return [Order(**row) for row in _rows(connection, "orders", runner=process)]


def report(
    connection: Connection,
    run: int,
    epoch: int,
    state: State,
    *,
    delay: float = 0.0,
    exit_code: int | None = None,
    reason: str = "",
    charged: bool = True,
) -> bool:
    """Say what became of a run. delay: seconds before the next attempt. charged: whether that one gets a new number.
    False: the grant is over, nothing was changed."""
    answer = _one(
        connection, "report", run=run, epoch=epoch, state=str(state), delay=min(delay, FOREVER), exit_code=exit_code,
        reason=clean(reason)[:2000] or None, charged=charged,
    )  # fmt: skip
    return bool(answer == "ok")


def ready(connection: Connection, run: int, epoch: int) -> bool:
    """The run serves; the one that it takes over from may go. False: it is not running under this epoch."""
    return bool(_one(connection, "ready", run=run, epoch=epoch) == "ok")


def report_reload(connection: Connection, reload: int, epoch: int, state: str, reason: str = "") -> bool:
    """state: delivered, acknowledged or failed. False: too late, or not this grant's."""
    answer = _one(
        connection,
        "report_reload",
        reload=reload,
        epoch=epoch,
        state=state,
        reason=clean(reason)[:2000] or None,
    )
    return bool(answer == "ok")


# ── what a job says and asks ──


def gone(run: int) -> Conflict:
    return Conflict(
        f"this attempt of run {run} is over: another one was granted, or it was reported ended", code="PS402",
        fix="end this process; what it says is not recorded any more",
    )  # fmt: skip


def emit(
    connection: Connection, run: int, epoch: int, namespace: str, source: str, signals: Sequence[Json]
) -> list[int]:
    """Emit signals in the name of a run, in one transaction: all or none. Returns their positions.

    Raises Conflict (PS402) once the grant is over, psycopg.Error for signals that are refused, InvalidInput for what is none.
    """
    stamped = []
    for place, signal in enumerate(signals):
        if not isinstance(signal, dict):
            raise InvalidInput(
                [Problem("PS110", "a signal is an object with a key", f"/{place}")], subject="the signals"
            )
        stamped.append({"source": source, **signal, "run_id": run})
    with connection.transaction():
        if connection.execute(query("hold").encode(), {"run": run, "epoch": epoch}).rowcount != 1:
            raise gone(run)
        rows = connection.execute(
            query("emit").encode(), {"signals": Jsonb(stamped), "namespace": namespace}
        ).fetchall()
    return [row[0] for row in rows]


def note(connection: Connection, run: int, epoch: int, what: str, value: Json) -> None:
    """Keep a run's `progress`, `result` or `checkpoint`. Raises Conflict (PS402) once the grant is over."""
    name = {"progress": "note_progress", "result": "note_result", "checkpoint": "note_checkpoint"}[what]
    if (
        connection.execute(query(name).encode(), {"run": run, "epoch": epoch, "value": Jsonb(value)}).rowcount
        != 1
    ):
        raise gone(run)


def signals_after(
    connection: Connection, namespace: str, pattern: str, cursor: str, *, most: int = 500
) -> tuple[list[Heard], str]:
    """Signals whose key matches `pattern`, a regular expression, that became visible after `cursor`, and the next cursor.

    A cursor is a snapshot, or `snapshot;snapshot;position` inside a window. Late commits are not skipped.
    """
    s1, s2, last = (*cursor.split(";"), "", "")[:3]
    rows = _rows(
        connection,
        "signals_after",
        s1=s1,
        s2=s2 or None,
        last=int(last or 0),
        namespace=namespace,
        pattern=pattern,
        most=most,
    )
    end = rows[0]["s2"]
    found = [
        Heard(
            id=row["id"], key=row["key"], subject=row["subject"], value=row["value"], source=row["source"],
            emitted_at=row["emitted_at"].isoformat(), run_id=row["run_id"], cursor=f"{s1};{end};{row['id']}",
        )
        for row in rows if row["id"] is not None
    ]  # fmt: skip
    return found, (found[-1].cursor if len(found) == most else end)


# ── output ──


def log_size(connection: Connection, run: int) -> int:
    return int(_one(connection, "log_size", run=run))


def log_add(connection: Connection, run: int, epoch: int, text: str) -> None:
    """Append output. Does nothing once the grant is over: the run's log belongs to its next attempt."""
    connection.execute(query("log_add").encode(), {"run": run, "epoch": epoch, "text": text})


def log_trim(connection: Connection, run: int, limit: int) -> None:
    """Drop the oldest output of a run until at most `limit` bytes are left; row 0 says how much went."""
    connection.execute(query("log_trim").encode(), {"run": run, "limit": limit})


def clean(text: str) -> str:
    """What Postgres can keep of a text: no NUL, no lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
