"""Backfills: due times that have passed become ticks after all, a few on the way at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pgsig.condition import schedule
from pgsig.errors import InvalidInput, Problem
from pgsig.store.database import Connection, query
from pgsig.store.doors import position
from pgsig.store.reading import Row, rows
from pgsig.store.triggers import find

MOST_TIMES = 10_000  # of one backfill
MOST_TOGETHER = 1000


@dataclass(frozen=True)
class Backfill:
    """What a backfill would do. dues: the times. ticked: how many of the range are left out because they became ticks."""

    trigger: Row
    dues: tuple[datetime, ...]
    ticked: int


def span(trigger: Row, first: str, last: str) -> tuple[datetime, datetime]:
    """A range as people write it, in the trigger's zone; a last day that is not over ends now. Raises InvalidInput (PS208)."""
    zone, found, problems = schedule.zone_of(trigger["spec"].get("tz", "UTC")), [], []
    for name, text in (("first", first), ("last", last)):
        try:
            found.append(schedule.moment(text, zone, last=name == "last"))
        except ValueError as error:
            problems.append(Problem("PS208", str(error), f"/{name}", "for instance 2027-01-31 or 2027-01-31T02:30"))
    if problems:
        raise InvalidInput(problems, subject="the backfill")
    # Only a day that has begun is cut: a range that is all to come is to be refused for that.
    return found[0], min(found[1], max(found[0], trigger["now"])) if len(last.strip()) <= 10 else found[1]


def plan(
    connection: Connection,
    operator: str,
    trigger: str | None,
    first: datetime,
    last: datetime,
    *,
    most: int = 1,
    again: bool = False,
    namespace: str = "default",
) -> Backfill:
    """The due times of a trigger from `first` to `last`, both included, that did not become ticks; all of them with `again`.

    most: how many are to be on the way at once. Raises InvalidInput with everything that is wrong (PS208).
    """
    found = find(connection, operator, trigger, namespace)
    problems = []
    if last < first:
        problems.append(Problem("PS208", "the range ends before it begins", "/last", "exchange first and last"))
    if last > found["now"]:
        problems.append(
            Problem(
                "PS208",
                f"{_utc(last)} is not past: the clocks will fire it",
                "/last",
                f"end at {_utc(found['now'])} at the latest",
            )
        )
    if not 1 <= most <= MOST_TOGETHER:
        problems.append(Problem("PS208", f"{most} cannot be on the way at once", "/together", f"1 to {MOST_TOGETHER}"))
    dues: list[datetime] = []
    if not problems:
        times = schedule.build(found["spec"])
        before = first.astimezone(UTC) - schedule.MICROSECOND
        dues = schedule.due_between(times, before, last, MOST_TIMES + 1)
        if len(dues) > MOST_TIMES:
            problems.append(
                Problem(
                    "PS208",
                    f"the range holds more than {MOST_TIMES} due times",
                    "/first",
                    f"the first {MOST_TIMES} end at {_utc(dues[-2])}",
                )
            )
        elif not dues:
            problems.append(
                Problem("PS208", "the range holds no due time", "/first", "pgsig calendar shows when it is due")
            )
    if problems:
        raise InvalidInput(problems, subject="the backfill")
    there = set() if again else {item["due_at"] for item in rows(connection, "ticked", id=found["id"], dues=dues)}
    return Backfill(found, tuple(due for due in dues if due not in there), len(there))


def begin(
    connection: Connection,
    operator: str,
    trigger: str | None,
    first: datetime,
    last: datetime,
    *,
    most: int = 1,
    again: bool = False,
    reason: str = "",
    namespace: str = "default",
    source: str | None = None,
) -> int:
    """Feed due times that have passed to the rules, at most `most` on the way at once. Returns the backfill's number.

    Raises like `plan`, also where every time of the range became a tick.
    """
    wanted = plan(connection, operator, trigger, first, last, most=most, again=again, namespace=namespace)
    if not wanted.dues:
        raise InvalidInput(
            [
                Problem(
                    "PS208",
                    f"all {wanted.ticked} due times of the range became ticks",
                    "/first",
                    "ask for them again (--again)",
                )
            ]
        )
    return position(
        connection,
        "begin_backfill",
        id=wanted.trigger["id"],
        dues=list(wanted.dues),
        most=most,
        reason=reason,
        source=source,
    )


def cancel(connection: Connection, number: int, *, reason: str = "", source: str | None = None) -> int:
    """Let no further time of a backfill become a tick. Returns the position of the manual signal. Raises InvalidInput (PS208)."""
    return position(connection, "cancel_backfill", id=number, reason=reason, source=source)


def feed(connection: Connection) -> int:
    """Let the next times of every backfill become ticks, as far as its bound allows. Returns how many backfills go on."""
    found = connection.execute(query("feed_backfills").encode()).fetchone()
    return int(found[0]) if found else 0


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
