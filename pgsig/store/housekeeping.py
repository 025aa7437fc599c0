"""What any worker does now and then for all: runs whose runner is gone, partitions ahead, partitions that are old."""

from __future__ import annotations

import logging
import random

import psycopg
from psycopg import sql

from pgsig.decide.retry import How, Outcome, after
from pgsig.failpoints import reached
from pgsig.store import jobs
from pgsig.store.database import Connection, query

log = logging.getLogger("pgsig.housekeeping")
_RNG = random.Random()  # noqa: S311 - jitter, no secret


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
        report = jobs.Report(
            run.run_id, run.epoch, then.state, then.delay, None, then.reason, then.charged, then.failures, run.handle
        )
        if jobs.report(connection, report) == [True]:
            reaped += 1
            reached("reap.reported")
            log.warning("run %s lost its runner: %s", run.run_id, then.state)
    return reaped


def maintain(connection: Connection) -> list[str]:
    """Create the partitions of the days to come and drop those past retention that every lane has passed. Returns the dropped ones.

    A partition is detached concurrently, which never makes an emitter wait, and only then dropped.
    """
    dropped: list[str] = []
    for (name,) in connection.execute(query("maintain")).fetchall():
        table = sql.Identifier("pgsig_private", name)
        try:
            connection.execute("SET lock_timeout = '2s'")
            connection.execute(sql.SQL("ALTER TABLE pgsig.signals DETACH PARTITION {} CONCURRENTLY").format(table))
            connection.execute(sql.SQL("DROP TABLE {}").format(table))
            dropped.append(name)
        except (
            psycopg.errors.LockNotAvailable,
            psycopg.errors.ObjectNotInPrerequisiteState,
            psycopg.errors.ObjectInUse,
        ) as error:
            log.info("partition %s stays for now: %s", name, error)
        finally:
            connection.execute("RESET lock_timeout")
    return dropped
