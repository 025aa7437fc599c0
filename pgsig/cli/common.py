"""What several commands share: the options for the database and the output, and a connection."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pgsig.settings import Settings
    from pgsig.store.database import Connection

# libpq's variables that say where the database is.
ADDRESS = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE", "PGUSER")
F = TypeVar("F", bound=Callable[..., Any])


def find_modules_here() -> None:
    """Have modules of the working folder found, as the runner does for jobs: the program `pgsig` lies elsewhere."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def _without_password(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    if not value:
        return None
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(value)
    except psycopg.Error as error:
        # libpq's words repeat the value, which may hold a password.
        raise click.BadParameter("not an address: write postgresql://user@host:5432/name") from error
    if parts.get("password"):
        raise click.BadParameter(
            "a password on the command line is shown to every user of this machine: put the address into "
            "DATABASE_URL, or the password into ~/.pgpass or PGPASSFILE"
        )
    return value


database_option = click.option(
    "--database-url",
    metavar="URL",
    callback=_without_password,
    help="Database, without a password. Default: DATABASE_URL, else libpq's PG* variables.",
)
namespace_option = click.option("--namespace", default="default", show_default=True, help="Namespace.")
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or JSON for machines.",
)


def settings_of(database_url: str | None = None, *, find: bool = True, **given: Any) -> Settings:
    """The settings of the environment; what is given and not None goes first. Raises InvalidInput.

    find: where nothing says which database, take the one that `pgsig dev` runs in this folder, if it does.
    """
    from dataclasses import replace

    from pgsig.settings import Settings

    settings = Settings.from_env(database_url=database_url, **given)
    if not find or settings.database_url or any(os.environ.get(name) for name in ADDRESS):
        return settings
    folder = settings.spool / "postgres"
    if not (folder / "port").exists():
        return settings
    from pgsig.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(folder)
    return replace(settings, database_url=server.dsn()) if server.pid else settings


@contextmanager
def connected(database_url: str | None = None) -> Iterator[Connection]:
    """A connection for one command, in autocommit mode. Raises Unavailable."""
    import logging

    from pgsig.store.database import connect

    # Ctrl-C in the middle of a query is no news to whoever pressed it.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    with connect(settings_of(database_url).database_url, name="tool") as connection:
        yield connection
