"""How large, how old, how far behind, and what holds things up: for `pgsig doctor`, the storage page and `GET /metrics`.

Statements: `sql/queries/metrics.sql`. What the numbers mean is in `pgsig.store.advice`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pgsig.store.database import Connection
from pgsig.store.reading import row, rows

LARGE = 1_000_000  # bytes from which a table is shown that does not grow by itself

# The setting that says when rows of a table go.
DAYS = {
    "signals": "retention_days", "outcome": "outcome_days", "action": "action_days", "run": "run_days", "log": "log_days",
    "reload": "reload_days", "tick": "tick_days", "event": "event_days", "process": "process_days",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """rows, dead: estimates of the server's statistics. bytes: with TOAST, without indexes. oldest_at: of its first row."""

    name: str
    parts: int
    rows: int
    dead: int
    bytes: int
    index_bytes: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None
    oldest_at: datetime | None = None

    @property
    def all_bytes(self) -> int:
        return self.bytes + self.index_bytes

    @property
    def dead_share(self) -> float:
        """Dead rows among all."""
        return self.dead / max(1, self.rows + self.dead)


@dataclass(frozen=True)
class Lane:
    """waiting: signals that no worker has evaluated; stops counting at 10,000. seconds: age of the oldest of them."""

    lane: int
    waiting: int
    oldest_at: datetime | None
    seconds: float


@dataclass(frozen=True)
class Holder:
    """Somebody who may still want to see rows that are dead. transactions: how many have begun since."""

    kind: str
    name: str
    detail: str
    since: datetime | None
    seconds: float | None
    transactions: int | None


@dataclass(frozen=True)
class Partitions:
    """Of the log. overdue: past retention and still there. half_gone: detached, or being so, and not dropped."""

    partitions: int
    until: datetime | None
    enough: bool
    half_gone: int
    overdue: int


@dataclass(frozen=True)
class Metrics:
    """One look at everything. queue: share of the notification queue in use. frozen_age: transactions since the oldest row not frozen.
    may_look: whether this login sees what other sessions do. signals, actions, runs: positions given away so far, gaps included."""

    now: datetime
    bytes: int
    queue: float
    frozen_age: int
    autovacuum: bool
    may_look: bool
    signals: int
    actions: int
    runs: int
    shift: int
    tables: list[Table]
    lanes: list[Lane]
    horizon: list[Holder]
    partitions: Partitions
    live: dict[str, int] = field(default_factory=dict)  # runs that have not ended, by state
    alive: dict[str, int] = field(default_factory=dict)  # processes, by role
    days: dict[str, float | None] = field(default_factory=dict)  # settings

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def growing(self) -> list[Table]:
        """The tables that grow with use, and others that are large; the largest first."""
        return [table for table in self.tables if table.name in DAYS or table.all_bytes >= LARGE]

    def goes_after(self, table: Table) -> str:
        """When its rows go, in words; empty where no setting says so."""
        if table.name not in DAYS:
            return ""
        most = self.days.get(DAYS[table.name])
        return "never" if most is None else f"{most:g} d"


def collect(connection: Connection) -> Metrics:
    """Look at everything once. The connection is in a transaction or in autocommit mode."""
    oldest = {item["name"]: item["at"] for item in rows(connection, "metrics_oldest")}
    tables = [Table(**item, oldest_at=oldest.get(item["name"])) for item in rows(connection, "metrics_tables")]
    server = row(connection, "metrics_server")
    partitions = row(connection, "check_partitions")
    if server is None or partitions is None:
        raise RuntimeError("a query without FROM has a row")
    return Metrics(
        **server,
        tables=tables,
        lanes=[Lane(**item) for item in rows(connection, "lag")],
        horizon=[Holder(**item) for item in rows(connection, "metrics_horizon")],
        partitions=Partitions(**partitions),
        live={item["state"]: item["runs"] for item in rows(connection, "metrics_runs")},
        alive={item["role"]: item["alive"] for item in rows(connection, "metrics_processes")},
        days={item["name"]: item["days"] for item in rows(connection, "metrics_days")},
    )
