"""Metrics in Prometheus' text form: names with their unit, labels, one line a value. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgsig.store.metrics import Metrics

Sample = tuple[dict[str, str], float | None]
Family = tuple[str, str, str, Iterable[Sample]]


def exposition(seen: Metrics, version: str) -> str:
    """The whole text. A value that is not known has no line."""
    return "".join(line for family in families(seen, version) for line in _lines(*family))


def families(seen: Metrics, version: str) -> Iterator[Family]:
    """Every metric: name, type, what it is, and its samples."""

    def one(value: float | None) -> list[Sample]:
        return [({}, value)]

    def age(then: object) -> float | None:
        return (seen.now - then).total_seconds() if then is not None else None  # type: ignore[operator]

    lanes = [({"lane": str(lane.lane)}, lane) for lane in seen.lanes]
    tables = [({"table": table.name}, table) for table in seen.tables]
    yield "pgsig_info", "gauge", "Version of the web process that answers.", [({"version": version}, 1)]
    yield "pgsig_signals_total", "counter", "Positions given to signals so far, gaps included.", one(seen.signals)
    yield "pgsig_actions_total", "counter", "Ids given to actions so far, gaps included.", one(seen.actions)
    yield "pgsig_runs_total", "counter", "Ids given to runs so far, gaps included.", one(seen.runs)
    yield (
        "pgsig_signals_waiting",
        "gauge",
        "Signals that no worker has evaluated; stops counting at 10000.",
        [(label, lane.waiting) for label, lane in lanes],
    )
    yield (
        "pgsig_signal_lag_seconds",
        "gauge",
        "Age of the oldest signal that no worker has evaluated.",
        [(label, lane.seconds) for label, lane in lanes],
    )
    yield (
        "pgsig_runs",
        "gauge",
        "Runs that have not ended, by state.",
        [({"state": k}, v) for k, v in seen.live.items()],
    )
    yield "pgsig_processes", "gauge", "Processes alive, by role.", [({"role": k}, v) for k, v in seen.alive.items()]
    yield (
        "pgsig_table_rows",
        "gauge",
        "Rows, as the statistics estimate them.",
        [(label, t.rows) for label, t in tables],
    )
    yield (
        "pgsig_table_dead_rows",
        "gauge",
        "Dead rows that vacuum has not removed.",
        [(label, t.dead) for label, t in tables],
    )
    yield "pgsig_table_bytes", "gauge", "Size without indexes.", [(label, t.bytes) for label, t in tables]
    yield "pgsig_index_bytes", "gauge", "Size of the indexes.", [(label, t.index_bytes) for label, t in tables]
    yield (
        "pgsig_table_oldest_seconds",
        "gauge",
        "Age of the oldest row.",
        [(label, age(t.oldest_at)) for label, t in tables],
    )
    yield (
        "pgsig_table_vacuum_seconds",
        "gauge",
        "Time since the last vacuum.",
        [(label, age(t.vacuumed_at)) for label, t in tables],
    )
    yield "pgsig_database_bytes", "gauge", "Size of the database.", one(seen.bytes)
    yield "pgsig_partitions", "gauge", "Partitions of the log.", one(seen.partitions.partitions)
    until = seen.partitions.until
    yield (
        "pgsig_partitions_ahead_seconds",
        "gauge",
        "Time until emitting fails for want of a partition.",
        one(-(age(until) or 0.0) if until else None),
    )
    yield (
        "pgsig_partitions_overdue",
        "gauge",
        "Partitions past retention that are still there.",
        one(seen.partitions.overdue),
    )
    yield "pgsig_notification_queue_ratio", "gauge", "Share of the server's notification queue in use.", one(seen.queue)
    yield (
        "pgsig_horizon_seconds",
        "gauge",
        "How long somebody has kept dead rows from being removed, by kind.",
        [
            ({"kind": kind}, max((h.seconds or 0.0 for h in seen.horizon if h.kind == kind), default=0.0))
            for kind in ("session", "prepared transaction")
        ],
    )
    yield (
        "pgsig_horizon_transactions",
        "gauge",
        "The same in transactions that have begun since.",
        [
            ({"kind": kind}, max((h.transactions or 0 for h in seen.horizon if h.kind == kind), default=0))
            for kind in ("session", "prepared transaction", "replication slot", "standby")
        ],
    )
    yield (
        "pgsig_frozen_age_transactions",
        "gauge",
        "Transactions since the oldest row that is not frozen.",
        one(seen.frozen_age),
    )


def _lines(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    told = [f"{name}{_labels(labels)} {value:.15g}\n" for labels, value in samples if value is not None]
    if told:
        yield f"# HELP {name} {about}\n# TYPE {name} {kind}\n"
        yield from told


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for k, v in labels.items()}
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped.items()) + "}"
