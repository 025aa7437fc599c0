"""What the HTTP API and the pages read. Every function takes a connection inside a transaction and returns rows as dicts.

Lists come as a `Page`: some rows and where to go on. A list with filters looks at windows of positions and stops when the
page is full, the list ends, or a time budget is spent; then the page may be short, even empty, and still have a `next`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Literal

from psycopg.rows import dict_row

from pgsig.model import FINAL, State
from pgsig.store import cursors
from pgsig.store.database import Connection, Database, query

Row = dict[str, Any]
Direction = Literal["older", "newer"]

LAST = 2**63 - 1  # above every position
WINDOW = 20_000  # positions that one statement of a filtered list looks at; while that is quick, the next looks at twice as many
MOST_WINDOWS = 16  # as many times WINDOW at the most
BUDGET = 0.1  # seconds after which a filtered list answers with what it has
WHOLE = 2**30  # characters of a value: all of them


@dataclass(frozen=True)
class Page:
    """A part of a list. next: the position to go on from in the same direction, None at the list's end."""

    rows: list[Row]
    next: int | None = None


@dataclass(frozen=True)
class Filter:
    """What a list is narrowed to; None is "any". key is a pattern, states, actions and results are alternatives."""

    key: str | None = None
    subject: str | None = None
    source: str | None = None
    namespace: str | None = None
    workflow: str | None = None
    operator: str | None = None
    states: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    results: tuple[str, ...] | None = None

    def parameters(self) -> Row:
        listed = {
            name: list(value) if (value := getattr(self, name)) else None for name in ("states", "actions", "results")
        }
        return {
            "regex": regex(self.key) if self.key else None, "subject": self.subject, "source": self.source,
            "namespace": self.namespace, **listed,
        }  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a page of a list begins. position: the last one seen, None for the list's beginning in that direction."""

    position: int | None = None
    direction: Direction = "older"


@contextmanager
def reading(database: Database) -> Iterator[Connection]:
    """A transaction that cannot write and in which no statement runs longer than three seconds. Raises Unavailable."""
    with database.transaction() as connection:
        connection.execute(query("read_only"))
        yield connection


def rows(connection: Connection, name: str, /, **parameters: Any) -> list[Row]:
    """The rows of a named query."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name).encode(), parameters).fetchall()


def row(connection: Connection, name: str, /, **parameters: Any) -> Row | None:
    """The first row of a named query, None if there is none."""
    found = rows(connection, name, **parameters)
    return found[0] if found else None


def regex(pattern: str) -> str:
    """A pattern over keys as a Postgres regular expression. Everything but `*` and a trailing `**` stands for itself."""
    segments = pattern.split(".")
    rest = ""
    if segments[-1] == "**":
        segments.pop()
        rest = r"(\.[^.]+)*" if segments else ".*"
    escaped = [
        "[^.]+" if part == "*" else "".join(c if c.isalnum() or c in "_:-" else f"\\{c}" for c in part)
        for part in segments
    ]
    return f"^{'[.]'.join(escaped)}{rest}$"


def signals(connection: Connection, want: Filter, place: Place, limit: int, *, chars: int = WHOLE) -> Page:
    """Signals, newest first; oldest first when the place looks to the newer ones. chars: how much of each value."""
    if want.key and "*" not in want.key and not (want.subject or want.source):
        names = [want.namespace] if want.namespace else [r["namespace"] for r in rows(connection, "namespaces")]
        above, below = _range(place)
        found = _listed(
            connection,
            "signals_of_key",
            place,
            namespaces=names,
            key=want.key,
            above=above,
            below=below,
            limit=limit + 1,
            chars=chars,
        )
        return _cut(found, limit)
    narrowed = any((want.key, want.subject, want.source, want.namespace))

    def look(above: int, below: int, most: int) -> list[Row]:
        return _listed(
            connection, "signals_window", place, above=above, below=below, limit=most, chars=chars, **want.parameters()
        )

    return _by_windows(connection, "signal_bounds", look, place, limit, narrowed)


def runs(connection: Connection, want: Filter, place: Place, limit: int) -> Page:
    """Runs, newest first."""
    return _of_operators(
        connection,
        "runs",
        "run_bounds",
        want,
        place,
        limit,
        narrowed=bool(want.states or want.subject or want.namespace),
    )


def actions(connection: Connection, want: Filter, place: Place, limit: int) -> Page:
    """Actions, newest first."""
    narrowed = bool(want.actions or want.results or want.subject or want.namespace)
    return _of_operators(connection, "actions", "action_bounds", want, place, limit, narrowed=narrowed)


def _of_operators(
    connection: Connection, name: str, bounds: str, want: Filter, place: Place, limit: int, *, narrowed: bool
) -> Page:
    operators: list[int] = []
    if want.workflow or want.operator:
        of, _, operator = (want.operator or "").rpartition(
            "."
        )  # no name has a dot: workflow.operator is understood too
        if of and want.workflow not in (None, of):
            return Page([])
        found = rows(
            connection,
            "operator_ids",
            namespace=want.namespace,
            workflow=of or want.workflow,
            operator=operator or None,
        )
        operators = [r["id"] for r in found]
        if not operators:
            return Page([])
    statement = f"{name}_of_operators" if operators else name
    if name == "runs" and want.states:
        if not set(want.states) - (FINAL - {State.SUCCEEDED}):
            statement = "runs_failed"
        elif FINAL.isdisjoint(want.states) and (
            State.QUEUED not in want.states or rows(connection, "few_queued", most=WINDOW)[0]["few"]
        ):
            statement, narrowed = "runs_open", False

    def look(above: int, below: int, most: int) -> list[Row]:
        return _listed(
            connection, statement, place, above=above, below=below, limit=most, operators=operators, **want.parameters()
        )

    return _by_windows(connection, bounds, look, place, limit, narrowed)


def _by_windows(
    connection: Connection,
    bounds: str,
    look: Callable[[int, int, int], list[Row]],
    place: Place,
    limit: int,
    narrowed: bool,
) -> Page:
    above, below = _range(place)
    if not narrowed:  # every row fits: the first `limit` of the index are the page
        return _cut(look(above, below, limit + 1), limit)
    ends = rows(connection, bounds)[0]
    low, high = max(above, ends["oldest"] - 1), min(below, ends["newest"] + 1)
    found: list[Row] = []
    begin, window = monotonic(), WINDOW
    until = begin + BUDGET
    while low + 1 < high:
        if place.direction == "older":
            edge = max(low, high - window - 1)
            found += look(edge, high, limit + 1 - len(found))
            high = edge + 1
        else:
            edge = min(high, low + window + 1)
            found += look(low, edge, limit + 1 - len(found))
            low = edge - 1
        if len(found) > limit or _shortened(found):
            return _cut(found, limit)
        now = monotonic()
        if now - begin < BUDGET / 20 and window < WINDOW * MOST_WINDOWS:
            window *= 2
        begin = now
        if now > until and low + 1 < high:
            return Page(_cut(found, limit).rows, high if place.direction == "older" else low)
    return _cut(found, limit)


def _range(place: Place) -> tuple[int, int]:
    if place.direction == "older":
        return 0, LAST if place.position is None else place.position
    return place.position or 0, LAST


def _listed(connection: Connection, name: str, place: Place, **parameters: Any) -> list[Row]:
    statement = query(name)
    if place.direction == "newer":
        statement = statement.replace(" DESC", " ASC")
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement.encode(), parameters).fetchall()


def _shortened(found: list[Row]) -> bool:
    """Whether a statement left rows out because their values are large together."""
    return bool(found) and found[-1].get("many", 0) > 0 and found[-1]["many"] > sum("many" in item for item in found)


def _cut(found: list[Row], limit: int) -> Page:
    """One row more than wanted was asked for: it tells whether there is a next page."""
    more = len(found) > limit or _shortened(found)
    for item in found:
        item.pop("before", None)
        item.pop("many", None)
    return Page(found[:limit], found[:limit][-1]["id"] if more else None)


@dataclass(frozen=True)
class Cursor:
    """How far a reader of the log has come: everything that `s1` sees, and of what `s2` sees, positions up to `done`. timeline: see
    `sql/api/16_timeline.sql`."""

    s1: str
    s2: str = ""
    done: int = 0
    timeline: int = 0


@dataclass(frozen=True)
class Arrivals:
    """Signals that became visible, each with the cursor to go on from after it; and the cursor after all of them. more: there may be more
    at once, also where there are none here."""

    signals: list[tuple[Row, Cursor]]
    cursor: Cursor
    more: bool = False


def here(connection: Connection) -> Cursor:
    """The cursor of a reader that begins now."""
    return Cursor(**rows(connection, "cursor_here")[0])


def oldest(connection: Connection, want: Filter) -> Cursor:
    """The cursor of a reader that begins with what is left of the log."""
    return Cursor(**rows(connection, "cursor_oldest", namespace=want.namespace)[0])


def go_on(connection: Connection, cursor: Cursor, want: Filter) -> Cursor:
    """What a cursor means now, with the end of its window. Raises InvalidInput for one of another database, and one that comes too late."""
    cursor = _here_and_now(connection, cursor)
    _refuse_behind(connection, cursor, want)
    return cursor


def _here_and_now(connection: Connection, cursor: Cursor) -> Cursor:
    (row,) = rows(connection, "go_on", s1=cursor.s1, s2=cursor.s2, done=cursor.done, timeline=cursor.timeline)
    if row["s1"] is None:
        raise cursors.foreign()
    return Cursor(**row)


def _refuse_behind(connection: Connection, cursor: Cursor, want: Filter) -> None:
    given = {"s1": cursor.s1, "s2": cursor.s2, "done": cursor.done, "namespace": want.namespace}
    if rows(connection, "missed", **given, regex=regex(want.key) if want.key else None)[0]["missed"]:
        raise cursors.behind()


def arrivals(connection: Connection, cursor: Cursor, want: Filter = Filter(), limit: int = 500) -> Arrivals:
    """What became visible since a cursor, in order of position within each look; late commits are not skipped.

    Raises InvalidInput for a cursor of another database, and where such signals were dropped before it came.
    """
    cursor = _here_and_now(connection, cursor)
    end = cursor.s2
    found = rows(
        connection,
        "signals_between",
        s1=cursor.s1,
        s2=end,
        done=cursor.done,
        chars=WHOLE,
        limit=limit,
        **want.parameters(),
    )
    _refuse_behind(connection, cursor, want)  # behind the reading: what goes meanwhile is missing there, or is not
    reached = [item.pop("reached") for item in found]
    marked = [(item, replace(cursor, done=item["id"])) for item in found if item["id"] is not None]
    if len(marked) == limit:
        return Arrivals(marked, marked[-1][1], more=True)
    if reached and reached[-1] is not None:
        return Arrivals(marked, replace(cursor, done=reached[-1]), more=True)
    return Arrivals(
        marked, Cursor(end, timeline=cursor.timeline), more=cursor.done > 0
    )  # the window's end is some time ago


@dataclass(frozen=True)
class Heads:
    """The newest positions, and the snapshot in which they were read."""

    snapshot: str
    signals: int
    actions: int
    runs: int
    definitions: int
    logs: dict[int, int] = field(default_factory=dict)


def heads(connection: Connection, logs_of: Sequence[int] = ()) -> Heads:
    """Where everything that grows has got to. logs_of: runs of which the last line of the log is asked for too."""
    found = rows(connection, "heads")[0]
    logs = rows(connection, "log_heads", runs=list(logs_of)) if logs_of else []
    return Heads(**found, logs={item["run_id"]: item["seq"] for item in logs})


def keys_between(connection: Connection, s1: str, s2: str) -> list[str]:
    """Keys of the signals that became visible between two snapshots."""
    rows(connection, "by_index")
    return [item["key"] for item in rows(connection, "keys_between", s1=s1, s2=s2)]
