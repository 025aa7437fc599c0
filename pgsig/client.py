"""Emit signals and order actions from any Python program that reaches the database.

client = Client("postgresql://…")
client.emit("model.trained", {"auc": 0.93}, subject="eu")

with psycopg.connect(url) as connection:          # or a SQLAlchemy connection or session
    connection.execute("INSERT INTO orders …")
    client.emit("orders.ready", connection=connection)   # exists if and only if the order does
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, Self

import psycopg

from pgsig.errors import InvalidInput, Problem
from pgsig.failpoints import reached
from pgsig.model import Json
from pgsig.store.database import Database, query, translate, translated

PORTION = 5000  # signals in one statement
ENOUGH = 100  # problems after which the rest is not looked at


class Client:
    """Safe to share between threads. Connects when it is first needed.

    url: libpq URL or key=value text; None or "" reads `DATABASE_URL` and libpq's own variables. size:
    connections at most.

    Every method raises InvalidInput with all that is wrong, Conflict for an event id that was used for
    another fact, NotFound, and Unavailable when the database cannot be reached.
    """

    def __init__(self, url: str | None = None, *, size: int = 4) -> None:
        self._database = Database(url, name="client", size=size) if url else Database.from_env(name="client", size=size)

    def emit(
        self,
        key: str,
        value: Json = None,
        subject: str = "",
        *,
        source: str | None = None,
        event_id: str | None = None,
        namespace: str = "default",
        connection: Any = None,
    ) -> int:
        """Emit one signal and return its position; with an event id that was seen before, the first position.

        source: defaults to the database user. connection: the caller's psycopg connection, or SQLAlchemy
        connection or session, whose transaction the signal belongs to; without it the signal is committed
        on return.
        """
        given = {"key": key, "value": dumped(value), "subject": subject, "source": source, "event_id": event_id}
        return int(self._call("client_emit", {**given, "namespace": namespace}, connection)[0])

    def emit_many(
        self, signals: Iterable[Mapping[str, Json]], *, namespace: str = "default", connection: Any = None
    ) -> list[int]:
        """Emit objects of key, value, subject, source, event_id and namespace: all or none, however many.

        They are read and sent some thousands at a time, in one transaction: a generator is never held whole. What is wrong is named by
        the signal's place. With a `connection` of the caller's it is the caller who rolls back. Returns the positions in order.
        """
        if connection is not None:
            return _in_portions(
                signals, namespace, lambda given: self._call("client_emit_many", given, connection), most=1
            )
        reached("client.emitting")
        with self._database.transaction() as own:
            statement = query("client_emit_many").encode()

            def send(given: dict[str, Any]) -> list[int]:
                with translated(), own.transaction():  # so that the next portion can still be looked at
                    return [row[0] for row in own.execute(statement, given)]

            positions = _in_portions(signals, namespace, send)
            reached("client.emitted")
        reached("client.answering")
        return positions

    def act(
        self,
        operator: str,
        action: str,
        subject: str = "",
        *,
        params: Mapping[str, Json] | None = None,
        reason: str = "",
        namespace: str = "default",
        connection: Any = None,
    ) -> int:
        """Order START, STOP, RESTART or RELOAD of `workflow.operator`.

        Returns the position of the manual signal.
        """
        given = {"operator": operator, "action": action, "subject": subject, "reason": reason, "namespace": namespace}
        params_json = dumped(dict(params or {}), "/params")
        return int(self._call("client_act", {**given, "params": params_json}, connection)[0])

    def close(self) -> None:
        """Close what connections there are."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, name: str, given: dict[str, Any], connection: Any) -> list[int]:
        statement = query(name)
        if connection is None:
            reached("client.emitting")
            with self._database.transaction() as own:
                found = [row[0] for row in own.execute(statement.encode(), given)]
                reached("client.emitted")
            reached("client.answering")
            return found
        if isinstance(connection, psycopg.Connection):
            with translated():
                return [row[0] for row in _plain_rows(connection, statement, given)]
        if not hasattr(connection, "exec_driver_sql") and callable(getattr(connection, "connection", None)):
            connection = connection.connection()  # of a session
        if not hasattr(connection, "exec_driver_sql"):
            kind = type(connection).__name__
            raise TypeError(
                f"connection is of psycopg 3 or SQLAlchemy, not {kind}; an AsyncConnection is not supported"
            )
        return _through_sqlalchemy(connection, statement, given)


def _in_portions(
    signals: Iterable[Mapping[str, Json]],
    namespace: str,
    send: Callable[[dict[str, Any]], list[int]],
    *,
    most: int = ENOUGH,
) -> list[int]:
    """Send signals some at a time. Raises InvalidInput with what is wrong in all of them; after `most` problems the rest is not read."""
    positions: list[int] = []
    problems: list[Problem] = []
    rest: Iterator[Any] = iter(signals)
    place = 0
    while portion := [dict(item) if isinstance(item, Mapping) else item for item in islice(rest, PORTION)]:
        try:
            positions += send({"signals": dumped(portion, ""), "namespace": namespace})
        except InvalidInput as error:
            problems += [replace(found, where=_moved(found.where, place)) for found in error.problems]
            if len(problems) >= most:
                break
        place += len(portion)
    if problems:
        raise InvalidInput(problems, subject="the signals")
    return positions


def _moved(where: str, by: int) -> str:
    """A pointer into a portion as one into the whole: `/3/key` becomes `/5003/key`."""
    first, slash, rest = where.removeprefix("/").partition("/")
    return f"/{int(first) + by}{slash}{rest}" if first.isascii() and first.isdigit() else where


def dumped(value: Json, where: str = "/value") -> str:
    """A value as JSON text. Raises InvalidInput for what JSON does not have."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        problem = Problem(
            "PS112",
            f"not a value that JSON has: {error}",
            where,
            "use texts, numbers, true, false, null, lists, objects",
        )
        raise InvalidInput([problem], subject="the signal") from error


def _plain_rows(connection: psycopg.Connection[Any], statement: str, given: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Rows as tuples, whatever row factory the caller's connection has."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        return cursor.execute(statement.encode(), given).fetchall()


def _through_sqlalchemy(connection: Any, statement: str, given: dict[str, Any]) -> list[int]:
    from sqlalchemy.exc import DBAPIError

    try:
        return [row[0] for row in connection.exec_driver_sql(statement, given)]
    except DBAPIError as error:
        known = translate(error.orig) if isinstance(error.orig, psycopg.Error) else None
        if known is None:
            raise
        raise known from error
