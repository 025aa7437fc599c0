"""Connections. Long-lived processes open one or two of their own; whoever serves requests borrows from SQLAlchemy's pool."""

from __future__ import annotations

import re
import select
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg

from pgsig.errors import Conflict, InvalidInput, NotFound, PgsigError, Problem, Unavailable
from pgsig.paths import room

Connection = psycopg.Connection[Any]

# The database cannot be worked with now: wait, and try again on another connection. One that may only be read was demoted, or locked.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction, Unavailable)

# A peer that vanished without a word is noticed within about ten seconds, in both directions.
PATIENCE = {
    "connect_timeout": "10", "keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}  # fmt: skip
SERVER_PATIENCE = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "client_connection_check_interval": 1000, "idle_in_transaction_session_timeout": 15000,
        # The server's end of the wire. Both: keepalives do not see an answer that nobody takes.
        "tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3, "tcp_user_timeout": 10000,
    }.items()
)  # fmt: skip


@contextmanager
def reachable() -> Iterator[None]:
    """Turn psycopg's refusal to connect into the error that tells people what to do."""
    try:
        yield
    except psycopg.OperationalError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unavailable(
            f"the database cannot be reached: {reason}", code="PS010", fix="set DATABASE_URL, or the PG* variables"
        ) from error


def connect(url: str, *, name: str, **options: Any) -> Connection:
    """Open a connection in autocommit mode: a transaction is always a visible `with connection.transaction()`.

    name: shown in pg_stat_activity. pooled: whether a pooler is between us and the server; None, the default, finds out. Raises
    Unavailable.
    """
    pooled = options.pop("pooled", None)
    given = {"application_name": f"pgsig {name}", "options": SERVER_PATIENCE, **PATIENCE, **options}
    with reachable():
        try:
            connection = psycopg.connect(url, autocommit=True, **given)
        except psycopg.OperationalError as error:
            if not _REFUSED.search(str(error)):
                raise
            # A pooler knows few of the settings that a session may begin with. What is left out is patience only.
            pooled = True
            connection = psycopg.connect(url, autocommit=True, **{**given, "options": ""})
        if pooled is None:
            pooled = behind_a_pooler(connection)
    if pooled:
        # The next statement may come to another server connection, where a prepared one is unknown.
        connection.prepare_threshold = None
    return connection


def behind_a_pooler(connection: Connection) -> bool:
    """Whether somebody answers on behalf of the server: then the process id that we were greeted with is not the one that answers."""
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return row is not None and row[0] != connection.info.backend_pid


class Database:
    """A pool for request/response work. `with database.transaction() as connection:` commits at its end or not at all."""

    def __init__(self, url: str, *, name: str = "web", size: int = 8) -> None:
        # Here, so that a worker, which has no pool, does not carry it.
        from sqlalchemy import URL, create_engine, event
        from sqlalchemy.pool import QueuePool

        self.url = url
        self.engine = create_engine(
            URL.create("postgresql+psycopg"), creator=lambda: _for_pool(url, name), poolclass=QueuePool,
            pool_size=size, max_overflow=0, pool_timeout=10,
        )  # fmt: skip
        event.listen(self.engine, "checkout", _look)

    @classmethod
    def from_env(cls, *, name: str = "tool", size: int = 2) -> Database:
        from pgsig.settings import Settings

        return cls(Settings.from_env().database_url, name=name, size=size)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Borrow a connection for one transaction. SQL errors that pgsig raised come out as PgsigError."""
        with reachable_pool(self.engine) as borrowed:
            connection: Connection = borrowed.driver_connection
            with translated(), connection.transaction():
                yield connection

    @contextmanager
    def statement(self) -> Iterator[Connection]:
        """Borrow a connection for one statement, which is a transaction by itself: two journeys less. Errors as in `transaction`."""
        with reachable_pool(self.engine) as borrowed, translated():
            yield borrowed.driver_connection

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def reachable_pool(engine: Any) -> Iterator[Any]:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    try:
        borrowed = engine.raw_connection()
    except PoolTimeout as error:
        raise Unavailable(
            "every database connection of this process is in use", code="PS011", fix="try again"
        ) from error
    except DBAPIError as error:
        raise Unavailable("the database cannot be reached", code="PS010", fix="try again") from error
    try:
        yield borrowed
    finally:
        borrowed.close()


def _look(connection: Connection, *_: Any) -> None:
    """Have a connection replaced that its server has ended, without a journey to ask: it said so, or it is asked what it said."""
    from sqlalchemy.exc import DisconnectionError

    poll = select.poll()
    if not connection.closed:
        poll.register(connection.fileno(), select.POLLIN)
        if not poll.poll(0):
            return
    try:
        connection.execute("SELECT 1", prepare=False)
    except psycopg.Error as error:
        raise DisconnectionError("the server has ended the connection") from error


def _for_pool(url: str, name: str) -> Connection:
    return connect(url, name=name)


_REFUSED = re.compile("unsupported startup parameter")
LINE = re.compile(r"^(?P<code>PS\d{3}) (?P<where>\S*): (?P<message>.*?)(?: \((?P<fix>[^()]*)\))?$")


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the database refused under a `PS…` code as the PgsigError that it means."""
    try:
        yield
    except psycopg.Error as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error


def translate(error: psycopg.Error) -> PgsigError | None:
    """The PgsigError behind a psycopg error, or None where pgsig did not raise it. PS201 is NotFound, PS109 Conflict."""
    state = error.sqlstate or ""
    message = error.diag.message_primary or str(error)
    if state in ("22P02", "22P05", "22030", "22032", "54001"):
        return InvalidInput(
            [Problem("PS112", f"not a value that Postgres can keep: {message}", "/value", "send valid JSON")]
        )
    if isinstance(
        error, (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.OperationalError)
    ) and not state.startswith("PS"):
        return Unavailable(f"the database cannot do it now: {message}", code="PS012", fix="try again")
    if not state.startswith("PS"):
        return None
    fix = error.diag.message_hint or ""
    if state == "PS109":
        detail = f": {error.diag.message_detail}" if error.diag.message_detail else ""
        return Conflict(f"{message}{detail}", code=state, where="/event_id", fix=fix)
    if state == "PS108":
        return InvalidInput([Problem(state, message, "/run_id", fix)], subject="the signal")
    problems = [
        Problem(**{k: v or "" for k, v in found.groupdict().items()})
        for line in message.splitlines()
        if (found := LINE.match(line))
    ]
    if not problems:
        return PgsigError(message, code=state, fix=fix)
    if problems[0].code == "PS201" and len(problems) == 1:
        only = problems[0]
        return NotFound(only.message, code=only.code, where=only.where, fix=only.fix)
    return InvalidInput(problems)


@cache
def queries() -> dict[str, str]:
    """Every named statement of `sql/queries`: `-- name: what` begins one, comment lines below say what it is for."""
    found: dict[str, str] = {}
    for path in sorted((room("sql") / "queries").glob("*.sql")):
        for block in re.split(r"^-- name: ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            name, _, text = block.partition("\n")
            if name.strip() in found:
                raise RuntimeError(f"two queries are named {name.strip()}")
            found[name.strip()] = (
                "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip().rstrip(";")
            )
    return found


def query(name: str) -> str:
    return queries()[name]
