"""What a replay reads of the log and of what was done, in one snapshot, page by page. Statements: `sql/queries/replay.sql`.

The transaction is read only and takes no advisory lock: it can neither change nor delay anything, except that the snapshot keeps vacuum
from cleaning up until it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from psycopg import IsolationLevel
from psycopg.rows import dict_row

from pgsig.definition import Definition
from pgsig.errors import InvalidInput, Problem
from pgsig.memory import Ask, AskFunction
from pgsig.model import LiveRun, Signal, State
from pgsig.replay import Done, Page
from pgsig.store import signals
from pgsig.store.database import Connection, query, translated
from pgsig.store.definitions import check_paths

PAGE = 1000  # signals


@dataclass(frozen=True)
class Range:
    """Positions of the log, both included, and the number of signals that lie there; begins: the earliest time of one."""

    first: int
    last: int
    signals: int
    begins: datetime
    since: datetime | None


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """One unchanging view of the database for everything in this block."""
    before = connection.isolation_level, connection.read_only
    connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with translated(), connection.transaction():
            connection.execute(query("replay_patience").encode())
            yield
    finally:
        if not connection.closed:
            connection.isolation_level, connection.read_only = before


class Stored:
    """The stored past of a workflow, to be read inside `snapshot`.

    seconds: how far to go back; or first and last: positions, both included, None for no limit.
    """

    def __init__(
        self, connection: Connection, definition: Definition, *,
        seconds: float | None = None, first: int | None = None, last: int | None = None, page: int = PAGE,
    ) -> None:  # fmt: skip
        self.connection, self.definition, self.page = connection, definition, page
        self.names = {"namespace": definition.namespace, "workflow": definition.workflow}
        self.wanted = (seconds, first, last)

    def range(self) -> Range | None:
        """The range that was asked for, None where no signal lies in it. Raises InvalidInput for paths that Postgres cannot read."""
        check_paths(self.connection, self.definition)
        seconds, first, last = self.wanted
        since = None if seconds is None else self._rows("replay_since", seconds=seconds)[0]["since"]
        found = self._rows("replay_range", **{"since": since, "from": first, "to": last})[0]
        if found["first"] is None:
            return None
        return Range(found["first"], found["last"], found["signals"], found["begins"], since)

    def alive(self, moment: datetime) -> list[tuple[str, str, LiveRun]]:
        """(operator, subject, run) of what was alive at a moment."""
        return [
            (row["operator"], row["subject"], LiveRun(row["id"], State(row["state"]), False, row["generation"]))
            for row in self._rows("replay_alive", at=moment)
        ]

    def pages(self, span: Range) -> Iterator[Page]:
        """The signals of a range by position, each page with what was done because of them."""
        after = span.first - 1
        while True:
            given = {**self.names, "after": after, "last": span.last, "since": span.since, "limit": self.page}
            found = [_signal(*row) for row in self.connection.execute(query("replay_signals").encode(), given)]
            if not found:
                return
            yield Page(found, self._done([signal.id for signal in found]))
            after = found[-1].id

    @property
    def ask(self) -> Ask:
        return partial(signals.ask, self.connection)

    @property
    def ask_function(self) -> AskFunction:
        return partial(signals.ask_function, self.connection)

    def _done(self, causes: Sequence[int]) -> list[Done]:
        return [
            Done(
                row["cause_id"], row["operator"], row["subject"], row["rule"], row["action"], row["nth"], row["result"], row["run_id"],
                row["id"],
            )
            for row in self._rows("replay_actions", causes=list(causes))
        ]  # fmt: skip

    def _rows(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(name).encode(), {**self.names, **parameters}).fetchall()


def _signal(
    position: int, namespace: str, key: str, subject: str, value: str, source: str, at: datetime, xid: str, depth: int,
    run_id: int | None, event_id: str | None,
) -> Signal:  # fmt: skip
    return Signal(position, namespace, key, subject, value, source, at, int(xid), depth, run_id, event_id)


def must_be_in_order(first: int | None, last: int | None) -> None:
    """Raise InvalidInput for a range that ends before it begins."""
    if first is not None and last is not None and first > last:
        raise InvalidInput([Problem("PS573", f"the range ends at {last}, before it begins at {first}", "--to")])
