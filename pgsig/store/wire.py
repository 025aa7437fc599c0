"""The statements that somebody waits for, sent by libpq itself: those of a worker's transaction, and a runner's claim.

A signal that comes alone is answered in three journeys: BEGIN and take, lock, record and COMMIT; in two where its key came of late, for it
is taken and locked for at once. psycopg's cursors would take longer to write and read these than Postgres takes to answer them, the more so
after a pause, when none of their code is in a cache. Values still come in by psycopg's loaders. Between two journeys the connection is
psycopg's: whatever else the transaction has to ask goes by `execute`.
"""

from __future__ import annotations

import re
import select
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from pgsig.store.database import Connection, query

Argument = str | bytes | None  # as Postgres reads it from text
_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_BINARY, _TEXT = pq.Format.BINARY, pq.Format.TEXT
_wires: WeakKeyDictionary[Connection, Wire] = WeakKeyDictionary()


def wire(connection: Connection) -> Wire:
    """The one of a connection: what was prepared over it is known there."""
    found = _wires.get(connection)
    if found is None:
        found = _wires[connection] = Wire(connection)
    return found


class Wire:
    """Sends named statements of `sql/queries` over a connection. Raises what psycopg would."""

    def __init__(self, connection: Connection) -> None:
        self._pgconn = connection.pgconn
        # Behind a pooler the next statement may come to another server connection, where a prepared one is unknown.
        self._keep = connection.prepare_threshold is not None
        self._encoding = connection.info.encoding
        self._loaders = Transformer(connection)
        self._prepared: dict[
            str, tuple[bytes, bytes, list[str]]
        ] = {}  # by name: as the server knows it, text, parameters
        self._names: tuple[str, ...] = ()  # what is going to be sent in this transaction
        self._begun = False  # its BEGIN was sent, and nothing was answered yet

    @contextmanager
    def transaction(self, *names: str) -> Iterator[None]:
        """Its BEGIN travels with the first statement, its COMMIT with the last. names: what is going to be sent in it."""
        self._names = names
        try:
            self._send_begin()
            yield
            self._begin()
            self._pgconn.send_query_params(b"COMMIT", None)
            self.finish()
        except BaseException:
            self._abandon()
            raise

    def send(self, name: str, **arguments: Argument) -> None:
        """Send a statement and do not wait: the server is at it while the caller goes on. `finish` says if it failed."""
        self._begin()
        self._put(name, arguments)
        self._pgconn.flush()

    def ask(self, name: str, **arguments: Argument) -> list[tuple[Any, ...]]:
        """Send a statement and wait for its rows. Outside a transaction it is one by itself."""
        alone = self._pgconn.transaction_status == pq.TransactionStatus.IDLE and not self._is_piping()
        begun = self._begun
        try:
            answer = self._answer(name, arguments)
        except psycopg.errors.InvalidSqlStatementName:
            # psycopg deallocates all that this session has prepared when it rolls back, for whomever it does.
            self._prepared.clear()
            if not (alone or begun):
                raise
            if begun:
                self._roll_back()
                self._send_begin()
            answer = self._answer(name, arguments)
        if answer is None or not answer.ntuples:
            return []
        self._loaders.set_pgresult(answer, set_loaders=True, format=_BINARY)
        return self._loaders.load_rows(0, answer.ntuples, tuple)

    def finish(self) -> pq.abc.PGresult | None:
        """Wait for the answers of everything that was sent. Returns the last one with rows."""
        if self._pgconn.pipeline_status == pq.PipelineStatus.OFF:
            return None
        self._begun = False
        self._pgconn.pipeline_sync()
        last, wrong = None, None
        while True:
            answer = self._next()
            if self._pgconn.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(self._pgconn.get_error_message(self._encoding))
            if answer is None:
                continue  # what parts the answers
            status = answer.status
            if status == pq.ExecStatus.PIPELINE_SYNC:
                break
            if status == pq.ExecStatus.TUPLES_OK:
                last = answer
            elif status not in (*_GOOD, pq.ExecStatus.PIPELINE_ABORTED) and wrong is None:
                wrong = answer
        self._pgconn.exit_pipeline_mode()
        if wrong is not None:
            raise psycopg.errors.error_from_result(wrong, self._encoding)
        return last

    # ── libpq ──

    def _begin(self) -> None:
        if self._pgconn.pipeline_status == pq.PipelineStatus.OFF:
            self._pgconn.enter_pipeline_mode()

    def _is_piping(self) -> bool:
        return self._pgconn.pipeline_status != pq.PipelineStatus.OFF

    def _send_begin(self) -> None:
        for name in self._names:
            self._known(name)
        self._begin()
        self._pgconn.send_query_params(b"BEGIN", None)
        self._begun = True

    def _answer(self, name: str, arguments: Mapping[str, Argument]) -> pq.abc.PGresult | None:
        self._known(name)
        self._begin()
        self._put(name, arguments)
        return self.finish()

    def _put(self, name: str, arguments: Mapping[str, Argument]) -> None:
        known, text, places = self._known(name)
        values = [one.encode() if isinstance(one := arguments[place], str) else one for place in places]
        if known:
            self._pgconn.send_query_prepared(known, values, result_format=_BINARY)
        else:
            self._pgconn.send_query_params(text, values, result_format=_BINARY)

    def _known(self, name: str) -> tuple[bytes, bytes, list[str]]:
        found = self._prepared.get(name)
        if found is None:
            numbered, places = _numbered(query(name))
            text = numbered.encode()
            known = (
                b"pgsig_" + name.encode()
                if self._keep and self._pgconn.pipeline_status == pq.PipelineStatus.OFF
                else b""
            )
            if known:
                answer = self._pgconn.prepare(known, text)
                if answer.status not in _GOOD:
                    raise psycopg.errors.error_from_result(answer, self._encoding)
            found = known, text, places
            if known or not self._keep:
                self._prepared[name] = found
        return found

    def _next(self) -> pq.abc.PGresult | None:
        """The next answer, None between the answers of two statements."""
        pgconn = self._pgconn
        while pgconn.flush():
            readable, _, _ = select.select([pgconn.socket], [pgconn.socket], [])
            if readable:
                pgconn.consume_input()
        while pgconn.is_busy():
            select.select([pgconn.socket], [], [])
            pgconn.consume_input()
        return pgconn.get_result()

    def _abandon(self) -> None:
        """Leave an open transaction as it was before it began, unless the connection is gone."""
        pgconn = self._pgconn
        if pgconn.status == pq.ConnStatus.BAD:
            return
        if pgconn.pipeline_status != pq.PipelineStatus.OFF:
            try:
                self.finish()
            except psycopg.Error:
                if pgconn.status == pq.ConnStatus.BAD:
                    return
        if pgconn.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
            self._roll_back()

    def _roll_back(self) -> None:
        """Not by psycopg, which would deallocate what is prepared here."""
        self._pgconn.exec_(b"ROLLBACK")


def _numbered(text: str) -> tuple[str, list[str]]:
    """A named statement as libpq wants it: `%(name)s` becomes $1, $2, … in the order in which names first appear; and those names."""
    order: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%"
        if found[1] not in order:
            order.append(found[1])
        return f"${order.index(found[1]) + 1}"

    return re.sub(r"%(?:\((\w+)\)s|%)", number, text), order


def array(texts: Iterable[str]) -> str:
    """An array as text, of what needs no quotes. psycopg's own way of writing one asks each element what it is."""
    return "{" + ",".join(texts) + "}"


def quoted(text: str) -> str:
    """An element of an array, with quotes."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
