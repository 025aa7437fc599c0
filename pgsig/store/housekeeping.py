"""What any worker does now and then for all: runs whose runner is gone, partitions ahead, and what is past its time.

Statements: `sql/queries/housekeeping.sql`; what stays is in `sql/api/25_keep.sql`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

import psycopg
from psycopg import sql

from pgsig.decide.retry import How, Next, Outcome, after
from pgsig.failpoints import reached
from pgsig.model import State
from pgsig.store import jobs
from pgsig.store.database import Connection, query

log = logging.getLogger("pgsig.housekeeping")
_RNG = random.Random()  # noqa: S311 - jitter, no secret

BATCH = 2000  # rows that one transaction looks at
PATIENCE = 2.0  # seconds to wait for the transactions of others, before a partition stays until the next turn
DAY = 86_400.0  # seconds
SELDOM = ("gaps", "backfills", "kept", "milestones")  # once a day is enough
CHORES = (
    "cursors", "forgotten", "outcomes", "logs", "runs", "actions", "reloads", "processes", "events", "ticks", *SELDOM,
)  # fmt: skip
IN_USE = (
    psycopg.errors.LockNotAvailable, psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.ObjectInUse,
    psycopg.errors.DeadlockDetected,
)  # fmt: skip

Pause = Callable[[float], bool]


def reap(connection: Connection, *, quiet: float) -> int:
    """Give the runs of dead runners to others, or end them, as their policy says. Returns how many. quiet: see `jobs.reap`."""
    reaped = 0
    for run in jobs.reap(connection, quiet=quiet):
        reached("reap.found")
        lost = (
            Outcome(How.ASKED, detail="its runner was lost while it stopped")
            if run.desired == "stop"
            else Outcome(How.LOST)
        )
        then = after(
            run.kind, run.spec, outcome=lost, attempt=run.attempt, ran_for=0.0, failures_in_a_row=run.failures, rng=_RNG
        )
        if run.handle:
            then = Next(
                State.RETRYING, reason="its runner was lost, its job goes on", failures=run.failures, charged=False
            )
        report = jobs.Report(
            run.run_id, run.epoch, then.state, then.delay, None, then.reason, then.charged, then.failures, run.handle
        )
        if jobs.report(connection, report) == [True]:
            reaped += 1
            reached("reap.reported")
            log.warning("run %s lost its runner: %s", run.run_id, then.state)
    return reaped


def look_after(connection: Connection, progress: Progress, pause: Pause = lambda _: False) -> list[str]:
    """One turn of what has to be done now and then: partitions ahead, partitions that are old, rows that are old.

    Does nothing where another session is at it. progress: from turn to turn the same. pause: waits for some seconds, and answers whether to
    end early. Returns the partitions that were dropped. The connection is in autocommit mode.
    """
    if connection.execute(query("try_housekeeping")).fetchone() != (True,):
        return []
    try:
        connection.execute(query("prepare_days"))
        dropped = drop_old_partitions(connection)
        prune(connection, progress, pause)
    finally:
        connection.execute(query("end_housekeeping"))
    return dropped


def drop_old_partitions(connection: Connection, *, patience: float = PATIENCE) -> list[str]:
    """Drop the partitions past retention that every lane has passed, and finish what was interrupted. Returns the dropped ones.

    Emitters never wait: a partition is detached concurrently, and only then dropped. That may have to wait for transactions that
    have used the log. It does so for `patience` seconds, and the next turn goes on where this one was.
    """
    dropped: list[str] = []
    connection.execute(sql.SQL("SET lock_timeout = {}").format(round(patience * 1000)))
    try:
        for name, state in connection.execute(query("old_partitions")).fetchall():
            table = sql.Identifier("pgsig_private", name)
            try:
                if state == "attached":
                    if connection.execute(query("close_partition"), {"name": name}).fetchone() != (True,):
                        log.info("partition %s stays for now: somebody is writing into it, or has just done so", name)
                        continue
                    connection.execute(
                        sql.SQL("ALTER TABLE pgsig_private.signal DETACH PARTITION {} CONCURRENTLY").format(table)
                    )
                elif state == "detaching":
                    connection.execute(
                        sql.SQL("ALTER TABLE pgsig_private.signal DETACH PARTITION {} FINALIZE").format(table)
                    )
                gone = connection.execute(query("drop_detached"), {"name": name}).fetchone() == (True,)
            except IN_USE as error:
                log.info("partition %s stays for now: %s", name, str(error).strip().partition("\n")[0])
                break  # no other can be detached before this one
            if gone:
                dropped.append(name)
    finally:
        connection.execute("RESET lock_timeout")
    return dropped


@dataclass
class Progress:
    """How far each table was looked through. Once a day all of it is looked through again, for what had to stay then."""

    after: dict[str, int] = field(default_factory=dict)
    since: float = field(default_factory=monotonic)


def prune(
    connection: Connection, progress: Progress, pause: Pause = lambda _: False, *, limit: int = BATCH
) -> dict[str, int]:
    """Delete what is past its time, in short transactions of at most `limit` rows, resting as long as working. Returns how many of each.

    Leaves the connection with settings that suit nothing else.
    """
    gone = dict.fromkeys(CHORES, 0)
    if monotonic() - progress.since > DAY:
        progress.after.clear()
        progress.since = monotonic()
    connection.execute(query("row_by_row"))
    for chore in CHORES:
        if chore in SELDOM and chore in progress.after:
            continue
        more = True
        while more:
            begun = monotonic()
            given = {"after": progress.after.get(chore, 0), "limit": limit}
            found = connection.execute(query(f"prune_{chore}").encode(), given).fetchone()
            count, last, more = found or (0, None, False)
            progress.after[chore] = given["after"] if last is None else last
            gone[chore] += count
            if more and pause(monotonic() - begun):
                return gone
    if any(gone.values()):
        log.info("past their time: %s", ", ".join(f"{count} {chore}" for chore, count in gone.items() if count))
    return gone
