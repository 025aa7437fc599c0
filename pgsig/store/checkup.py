"""A check-up of a database and of what works on it: `pgsig doctor`. Statements: `sql/queries/cli.sql`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from pgsig.errors import PgsigError
from pgsig.settings import Settings
from pgsig.store.advice import Finding, advice
from pgsig.store.database import Connection, connect
from pgsig.store.metrics import collect
from pgsig.store.migrate import OLDEST_SERVER, api_digest
from pgsig.store.reading import row, rows
from pgsig.store.revision import check

NEWEST_SERVER = 18
HEARD_WITHIN = 3.0  # seconds that a notification may take
SKEW_NOTED, SKEW_REFUSED = 0.5, 5.0  # seconds between this machine's clock and the database's


Check = Callable[[Connection, Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one finding after the other. Raises Unavailable when the database cannot be
    reached.

    What cannot be looked at is a problem of its own; without the right schema there is nothing further to
    look at.
    """
    with connect(settings.database_url, name="doctor") as connection:
        for look in (_server, _clock, _notifications):
            yield from _tried(look, connection, settings)
        schema = list(_tried(_schema, connection, settings))
        yield from schema
        if any(finding.state == "problem" for finding in schema):
            return
        for look in (_functions, _processes, _storage, _pools, _roles):
            yield from _tried(look, connection, settings)


def _tried(look: Check, connection: Connection, settings: Settings) -> Iterator[Finding]:
    try:
        yield from look(connection, settings)
    except (psycopg.Error, PgsigError) as error:
        reason = str(error).strip().partition("\n")[0]
        yield Finding(look.__name__.strip("_"), "problem", f"could not be looked at: {reason}")


def _server(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    found = _one(connection, "check_server")
    if found["number"] < OLDEST_SERVER:
        yield Finding("server", "problem", f"Postgres {found['version']} is too old", "use Postgres 15 to 18")
    elif found["number"] // 10000 > NEWEST_SERVER:
        yield Finding("server", "warning", f"Postgres {found['version']} is newer than what pgsig was tested with")
    else:
        yield Finding("server", "ok", f"Postgres {found['version']}, as {found['login']}")
    if not found["durable"]:
        detail = "a crash of the server may lose commits"
        yield Finding("durability", "warning", detail, "set fsync and synchronous_commit to on")


def _clock(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    before = datetime.now(UTC)
    theirs: datetime = _one(connection, "check_server")["now"]
    after = datetime.now(UTC)
    skew = (theirs - (before + (after - before) / 2)).total_seconds()
    detail = f"the database's clock is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) < SKEW_NOTED:
        yield Finding("clock", "ok", detail)
    else:
        state: Literal["warning", "problem"] = "problem" if abs(skew) >= SKEW_REFUSED else "warning"
        yield Finding(
            "clock", state, detail, "run NTP on both: periodic triggers follow the clock of the clock processes"
        )


def _notifications(connection: Connection, settings: Settings) -> Iterator[Finding]:
    channel = f"pgsig_doctor_{secrets.token_hex(6)}"
    with connect(settings.direct_url, name="doctor (listen)") as listener:
        listener.execute(f"LISTEN {channel}".encode())
        sent = datetime.now(UTC)
        connection.execute("SELECT pg_notify(%s, '')", [channel])
        heard = any(True for _ in listener.notifies(timeout=HEARD_WITHIN, stop_after=1))
        delay = (datetime.now(UTC) - sent).total_seconds() * 1000
    if heard:
        yield Finding("notifications", "ok", f"heard after {delay:.1f} ms")
    else:
        detail = f"LISTEN heard nothing within {HEARD_WITHIN:g} s: everything works, but waits for the next poll"
        fix = "a pooler in transaction mode drops LISTEN: set PGSIG_LISTEN_URL to the server's own address"
        yield Finding("notifications", "problem", detail, fix)


def _schema(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    try:
        check(connection)
    except PgsigError as error:
        yield Finding("schema", "problem", error.message, error.fix)
    else:
        yield Finding("schema", "ok", "at this version's revision")


def _functions(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    if _one(connection, "check_digest")["digest"] == api_digest():
        yield Finding("functions", "ok", "those of this version")
    else:
        yield Finding(
            "functions", "problem", "the functions in the database are of another version", "run: pgsig migrate"
        )


def _processes(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    for found in rows(connection, "check_alive"):
        name, count = found["role"], found["alive"]
        plural = name if name == "web" else f"{name}s"
        if count or not found["needed"]:
            yield Finding(plural, "ok", f"{count} alive")
        else:
            yield Finding(plural, "problem", "none is alive, and there is work for one", f"run: pgsig {name}")


def _storage(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    yield from advice(collect(connection))


def _pools(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    found = rows(connection, "check_pools")
    for item in found:
        detail = f"{item['runs']} runs wait in pool {item['pool']}, which no runner serves"
        yield Finding("pools", "problem", detail, f"run: pgsig runner --pools {item['pool']}")
    if not found:
        yield Finding("pools", "ok", "every run that waits has a runner that may take it")


def _roles(connection: Connection, settings: Settings) -> Iterator[Finding]:  # noqa: ARG001
    found = _one(connection, "check_roles")
    if found["missing"]:
        detail = f"missing: {', '.join(found['missing'])}"
        yield Finding("roles", "warning", detail, "let somebody who may create roles run: pgsig migrate")
    elif not found["may_serve"]:
        yield Finding(
            "roles",
            "warning",
            "this login may read, but not run a worker, runner, clock or web",
            "grant pgsig_service to it",
        )
    else:
        yield Finding("roles", "ok", "all there, and this login may do everything")


def _one(connection: Connection, name: str) -> dict[str, Any]:
    found = row(connection, name)
    if found is None:
        raise PgsigError("nothing was answered", code="PS560", where=name)
    return found
