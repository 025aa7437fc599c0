"""What the numbers mean for people, with the way out: one place for `pgsig doctor` and the storage page. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pgsig.store.metrics import DAYS, Holder, Metrics

State = Literal["ok", "warning", "problem"]

OLD = 10.0  # seconds that a signal may wait to be evaluated
QUEUE_NOTED, QUEUE_FULL = 0.1, 0.5  # of the notification queue: when it is full, every commit that notifies fails
HELD_NOTED, HELD_LONG = 300.0, 3600.0  # seconds that a transaction may keep dead rows
HELD_TRANSACTIONS = 1_000_000  # the same for who has no beginning in time
DEAD_NOTED, DEAD_SHARE = 20_000, 0.3  # dead rows of a table, and their share
FROZEN_NOTED, FROZEN_LATE = 1_000_000_000, 1_800_000_000  # transactions; at two thousand million the server stops


@dataclass(frozen=True)
class Finding:
    """state: what it means for people. fix: the way out, where there is something to do. tables: where it is about them, in numbers."""

    check: str
    state: State
    detail: str
    fix: str = ""
    tables: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without tables where there are none."""
        return {name: value for name, value in asdict(self).items() if name != "tables" or value}


def advice(seen: Metrics) -> Iterator[Finding]:
    """Every finding about storage and lag, also where all is well."""
    yield from lag(seen)
    yield from partitions(seen)
    yield from queue(seen)
    yield from horizon(seen)
    yield from dead_rows(seen)
    yield from wraparound(seen)
    yield storage(seen)


def lag(seen: Metrics) -> Iterator[Finding]:
    waiting, oldest = sum(lane.waiting for lane in seen.lanes), max((lane.seconds for lane in seen.lanes), default=0.0)
    detail = "1 signal waits to be evaluated" if waiting == 1 else f"{waiting} signals wait to be evaluated"
    if waiting:
        busy = ", ".join(f"{lane.lane} ({lane.waiting})" for lane in seen.lanes if lane.waiting)
        detail += f", the oldest for {oldest:.1f} s, in lane {busy}"
    if oldest < OLD:
        yield Finding("lag", "ok", detail)
    else:
        yield Finding("lag", "problem", detail, "run more workers; a long open transaction in the log holds nothing up")


def partitions(seen: Metrics) -> Iterator[Finding]:
    log = seen.partitions
    until = f"{log.partitions} of the log, until {log.until:%Y-%m-%d}" if log.until else "the log has none"
    if not log.enough:
        yield Finding("partitions", "problem", f"{until}: emitting will fail", "run a worker, or: pgsig migrate")
    elif log.overdue or log.half_gone:
        behind = (
            f"{log.overdue} past retention and still there"
            if log.overdue
            else f"{log.half_gone} detached and not dropped"
        )
        yield Finding(
            "partitions", "warning", f"{until}; {behind}",
            "a worker drops them within minutes, once every lane has passed them and no transaction holds them: see lag and horizon",
        )  # fmt: skip
    else:
        yield Finding("partitions", "ok", until)


def queue(seen: Metrics) -> Iterator[Finding]:
    detail = f"{seen.queue:.1%} of the notification queue is in use"
    if seen.queue < QUEUE_NOTED:
        yield Finding("queue", "ok", detail)
        return
    fix = "a session that listens has been in a transaction for long: end it (see horizon), before every commit that notifies fails"
    yield Finding("queue", "problem" if seen.queue >= QUEUE_FULL else "warning", detail, fix)


def horizon(seen: Metrics) -> Iterator[Finding]:
    if not seen.may_look:
        yield Finding(
            "horizon", "warning", "this login does not see what other sessions hold", "GRANT pg_read_all_stats TO it"
        )
    held = [one for one in seen.horizon if _too_long(one, HELD_NOTED)]
    for one in held[:3]:
        state: State = "problem" if _too_long(one, HELD_LONG) else "warning"
        yield Finding("horizon", state, f"{said(one)} keeps dead rows from being removed", _end(one))
    if not held and seen.may_look:
        oldest = f"nothing keeps dead rows for long; the oldest is {said(seen.horizon[0])}" if seen.horizon else ""
        yield Finding("horizon", "ok", oldest or "nothing keeps dead rows")


def said(one: Holder) -> str:
    """A holder in words."""
    age = f"open for {one.seconds:.0f} s" if one.seconds is not None else f"{one.transactions or 0} transactions old"
    return f"{one.kind} {one.name} ({one.detail}), {age}"


def _too_long(one: Holder, seconds: float) -> bool:
    if one.seconds is not None:
        return one.seconds >= seconds
    return (one.transactions or 0) >= HELD_TRANSACTIONS * (seconds / HELD_NOTED)


def _end(one: Holder) -> str:
    quoted = one.name.replace("'", "''")
    return {
        "session": f"end its transaction, or: SELECT pg_terminate_backend({one.detail.split(',')[0].removeprefix('pid ')})",
        "prepared transaction": f"COMMIT PREPARED '{quoted}', or ROLLBACK PREPARED '{quoted}'",
        "replication slot": f"let its reader catch up, or: SELECT pg_drop_replication_slot('{quoted}')",
        "standby": "end the long query on the standby, or turn hot_standby_feedback off there",
    }.get(one.kind, "")


def dead_rows(seen: Metrics) -> Iterator[Finding]:
    if not seen.autovacuum:
        yield Finding(
            "vacuum", "problem", "autovacuum is off: tables only grow", "set autovacuum and track_counts to on"
        )
    bad = [table for table in seen.tables if table.dead >= DEAD_NOTED and table.dead_share >= DEAD_SHARE]
    for table in bad:
        when = f"last vacuumed {_age(seen.now, table.vacuumed_at)} ago" if table.vacuumed_at else "never vacuumed"
        detail = f"{table.name}: {table.dead} dead rows beside {table.rows}, {when}"
        yield Finding("vacuum", "warning", detail, f"see horizon; else: VACUUM pgsig_private.{table.name}")
    if not bad and seen.autovacuum:
        dead = sum(table.dead for table in seen.tables)
        total = size(sum(table.all_bytes for table in seen.tables))
        yield Finding("vacuum", "ok", f"{dead} dead rows in {total} of tables and indexes")


def _age(now: datetime, then: datetime) -> str:
    hours = (now - then).total_seconds() / 3600
    if hours >= 48:
        return f"{hours / 24:.0f} d"
    return f"{hours:.0f} h" if hours >= 1 else f"{hours * 60:.0f} min"


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit, large in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= large:
            return f"{count / large:.1f} {unit}"
    return f"{count} B"


def wraparound(seen: Metrics) -> Iterator[Finding]:
    detail = f"{seen.frozen_age:,} transactions since the oldest row that is not frozen"
    if seen.frozen_age < FROZEN_NOTED:
        yield Finding("freeze", "ok", detail)
    else:
        state: State = "problem" if seen.frozen_age >= FROZEN_LATE else "warning"
        yield Finding("freeze", state, detail, "let vacuum finish: end what holds the horizon, then VACUUM (FREEZE)")


def storage(seen: Metrics) -> Finding:
    """How large it is, and how old: no age is wrong by itself, as what is needed stays for as long as it is."""
    tables = tuple(
        {**asdict(table), "days": seen.days.get(DAYS.get(table.name, "")), "goes_after": seen.goes_after(table)}
        for table in seen.growing
    )
    aged = [(table.oldest_at, table.name) for table in seen.tables if table.oldest_at is not None]
    if not aged:
        return Finding("storage", "ok", f"{size(seen.bytes)} in all, no rows yet in what grows", tables=tables)
    at, name = min(aged)
    detail = f"{size(seen.bytes)} in all; the oldest row, in {name}, is {_age(seen.now, at)} old"
    return Finding("storage", "ok", detail, tables=tables)
