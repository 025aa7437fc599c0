"""The runner's side of the database: leases, grants, reports, and what a job says and asks. Statements: `sql/queries/jobs.sql`.

Each function is one statement, or one transaction where it says so, on the caller's connection. psycopg's errors pass
through: whoever repeats things has to see which they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgsig.model import Json, State
from pgsig.store.database import Connection, query
from pgsig.store.wire import array, quoted, wire

FOREVER = 3650 * 86400.0  # a delay beyond it would overflow what Postgres calls an interval


@dataclass(frozen=True, slots=True)
class Grant:
    """A run, given to one runner for one attempt.

    epoch: the fencing token; what is reported under another one changes nothing. cause, checkpoint: JSON text, as the job gets
    it. failures: young ends in a row before this attempt. handle: the engine's name of a job that an earlier runner left, which this
    one may take over. ran_for: seconds since that one began. since: the log as it was when
    the run was granted, a snapshot. problem: why the rest cannot be relied on, or "".
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
    failures: int = 0
    handle: str | None = None
    ran_for: float | None = None
    since: str = ""
    problem: str = ""

    @property
    def key(self) -> tuple[int, int]:
        return (self.id, self.epoch)


@dataclass(frozen=True, slots=True)
class Claimed:
    """gone: the ids of `gone_neighbours` as of after the claim: whose runs were taken is among them. contended: somebody else was just
    at some that were in line."""

    grants: list[Grant]
    gone: list[int]
    contended: bool


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
    """A grant as the database has it. ready: whether its job has said that it serves."""

    run_id: int
    epoch: int
    attempt: int
    kind: str
    spec: Mapping[str, Any]
    desired: str
    failures: int
    handle: str | None
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a run that was granted under `epoch`.

    delay: seconds before the next attempt. charged: whether that one gets a new number. failures: young ends in a row, None: as it was.
    handle: the engine's name of the job, while another runner could take it over. cpu_seconds, memory_peak (bytes): what this attempt used.
    at: when it came to be, by `time.monotonic`; 0: just now.
    """

    run: int
    epoch: int
    state: State
    delay: float = 0.0
    exit_code: int | None = None
    reason: str = ""
    charged: bool = True
    failures: int | None = None
    handle: str | None = None
    cpu_seconds: float | None = None
    memory_peak: int | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another runner that claims to live on this machine. detail: what it said of itself when it joined."""

    id: int
    pid: int
    detail: Mapping[str, Any]


def one_value(connection: Connection, statement: str, /, **given: Any) -> Any:
    row = connection.execute(query(statement).encode(), given).fetchone()
    return row[0] if row else None


def all_rows(connection: Connection, statement: str, /, **given: Any) -> list[dict[str, Any]]:
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
    labels: Sequence[str],
    capacity: int,
    lease: float,
) -> int:
    """Announce a runner. lease: seconds for which it need not be heard of again. Returns its process id in pgsig."""
    found = one_value(
        connection, "join", role="runner", name=name, host=host, pid=pid, version=version, pools=list(pools),
        labels=list(labels), capacity=capacity, lease=lease,
    )  # fmt: skip
    return int(found)


def renew(connection: Connection, process: int, *, lease: float, detail: Json = None) -> bool:
    """Prolong the lease to `lease` seconds from now. False: the process was declared dead, its runs are others'."""
    return bool(
        one_value(
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
    """The other runners of a machine that are not known to have ended."""
    return _neighbours(all_rows(connection, "neighbours", process=process, machine=machine))


def gone_neighbours(connection: Connection, machine: str) -> list[Neighbour]:
    """The runners of a machine that ended or were declared dead within a day, and have not joined anew."""
    return _neighbours(all_rows(connection, "gone_neighbours", machine=machine))


def _neighbours(rows: list[dict[str, Any]]) -> list[Neighbour]:
    return [Neighbour(row["id"], row["pid"], _decoded(row["detail"])[0]) for row in rows]


def reap(connection: Connection, *, quiet: float) -> list[Held]:
    """Declare dead whose lease has run out, and return the runs of all the dead. quiet: seconds after the server's start
    in which nobody dies: everybody has to get the chance to renew first."""
    return [_held(row) for row in all_rows(connection, "reap", quiet=quiet)]


def held(connection: Connection, process: int) -> list[Held]:
    return [_held(row) for row in all_rows(connection, "held", runner=process)]


def _held(row: dict[str, Any]) -> Held:
    return Held(**{**row, "spec": _decoded(row["spec"])[0]})


# ── runs ──


def claim(
    connection: Connection,
    process: int,
    pools: Sequence[str],
    capacity: int,
    labels: Sequence[str] = (),
    machine: str = "",
) -> Claimed:
    """Take up to `capacity` runs that may start and need no label but these. machine: whose dead runners to look for, as in `Claimed.gone`.
    Raises psycopg.Error, PS301, when the lease is over."""
    rows = wire(connection).ask(
        "claim", runner=str(process), pools=array(map(quoted, pools)), capacity=str(capacity),
        labels=array(map(quoted, labels)), machine=machine,
    )  # fmt: skip
    runs = [row for row in rows if row[0] is not None]
    return Claimed([_grant(*row[:-1]) for row in runs], runs[0][-1] if runs else [], len(runs) < len(rows))


def _grant(*row: Any) -> Grant:
    """A grant from a row of `claim`, whose columns have the order of its fields."""
    spec, bad_spec = _decoded(row[9])
    params, bad_params = _decoded(row[10])
    problem = f"its definition cannot be used: {bad_spec}" if bad_spec else ""
    problem = problem or (f"its parameters cannot be used: {bad_params}" if bad_params else "")
    defaults = spec.get("params")
    if isinstance(defaults, dict):
        params = {**defaults, **params}
    fields: list[Any] = [*row[:9], spec, params, *row[11:], problem]
    return Grant(*fields)


def orders(connection: Connection, process: int) -> list[Order]:
    return [Order(**row) for row in all_rows(connection, "orders", runner=process)]


def report(connection: Connection, *reports: Report) -> list[bool]:
    """Say what became of runs, in one transaction. False: the grant is over, nothing was changed."""
    now = monotonic()
    rows = [
        asdict(one)
        | {
            "delay": min(one.delay, FOREVER), "reason": clean(one.reason)[:2000] or None,
            "ago": max(0.0, now - one.at) if one.at else 0.0,
        }
        for one in reports
    ]  # fmt: skip
    answers = connection.execute(query("report").encode(), {"reports": Jsonb(rows)}).fetchall()
    return [answer == "ok" for (answer,) in answers]


def ready(connection: Connection, run: int, epoch: int) -> bool:
    """The run serves; the one that it takes over from may go. False: it is not running under this epoch."""
    return bool(one_value(connection, "ready", run=run, epoch=epoch) == "ok")


def report_reload(connection: Connection, reload: int, epoch: int, state: str, reason: str = "") -> bool:
    """state: delivered, acknowledged or failed. False: too late, or not this grant's."""
    answer = one_value(
        connection,
        "report_reload",
        reload=reload,
        epoch=epoch,
        state=state,
        reason=clean(reason)[:2000] or None,
    )
    return bool(answer == "ok")


def clean(text: str) -> str:
    """What Postgres can keep of a text: no NUL, no lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
