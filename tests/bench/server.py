"""The server that is measured: one of the benchmark's own with fsync on, or the one that `PGSIG_BENCH_DSN` names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from pgsig.embedded import EmbeddedPostgres, find_binaries
from pgsig.store.migrate import migrate
from tests.bench.facts import disk

Connection = psycopg.Connection[tuple[Any, ...]]
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}
# No texts: those are names, places and addresses.
CHANGED = """
SELECT name, current_setting(name) FROM pg_settings
 WHERE source NOT IN ('default', 'override', 'client', 'session') AND setting IS DISTINCT FROM boot_val AND name <> 'port'
   AND (vartype <> 'string' OR name = 'shared_preload_libraries') ORDER BY name
"""
# Its folder, where one may know it; and whether the server is on this machine.
DATA = """
SELECT (SELECT setting FROM pg_settings WHERE name = 'data_directory'),
       coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)
"""


class Server:
    """Gives out migrated databases, one for each benchmark."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._numbers = count(1)

    @contextmanager
    def database(self, *, bare: bool = False) -> Iterator[str]:
        """The address of a database, dropped in the end. bare: nothing is in it, for what makes its own tables."""
        name = f"pgsig_bench_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.address, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
            address = make_conninfo(self.address, dbname=name)
            try:
                if not bare:
                    migrate(address)
                yield address
            finally:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def facts(self) -> dict[str, str]:
        """Its version, its settings as far as they are not the defaults, and what its data lies on."""
        with psycopg.connect(self.address) as connection:
            (number, fsync), *_ = connection.execute(
                "SELECT current_setting('server_version'), current_setting('fsync')"
            )
            settings = ", ".join(f"{name} = {value}" for name, value in connection.execute(CHANGED))
            (folder, here), *_ = connection.execute(DATA)
        beside = here and folder is not None and Path(folder).exists()
        return {
            "postgres": f"{number}, fsync {fsync}",
            "settings": settings or "all as they come",
            "data folder": disk(Path(folder)) if beside else "not known",
        }


@contextmanager
def server() -> Iterator[Server]:
    given = os.environ.get("PGSIG_BENCH_DSN")
    if given:
        yield Server(given)
        return
    folder = Path(tempfile.mkdtemp(prefix="pgsig-bench-"))
    folder.chmod(0o711)
    try:
        with EmbeddedPostgres(folder / "postgres", fsync=True, settings=SETTINGS) as postgres:
            yield Server(postgres.dsn())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def program(name: str) -> str:
    """A program that belongs to Postgres, from where the embedded server's come from, or from the machine."""
    beside = find_binaries().directory / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing: it is part of Postgres' own client programs")
    return found


def connect(address: str) -> Connection:
    return psycopg.connect(address, autocommit=True)
