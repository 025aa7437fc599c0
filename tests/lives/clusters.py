"""Clusters beside the one that the tests share, and the programs that move databases between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsig.embedded import EmbeddedPostgres, find_binaries
from pgsig.embedded.identity import choose_identity, environment, through_helper

SMALL = {"shared_buffers": "16MB", "max_connections": "40"}


@contextmanager
def cluster(**settings: str) -> Iterator[EmbeddedPostgres]:
    """A cluster of its own, in a folder that goes with it."""
    with folder() as path:
        server = EmbeddedPostgres(path / "data", fsync=False, settings={**SMALL, **settings})
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@contextmanager
def folder() -> Iterator[Path]:
    """In memory where there is room, and open to the user as whom Postgres runs."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    path = Path(tempfile.mkdtemp(prefix="pgsig-lives-", dir=memory if roomy else None))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def run(program: str, *arguments: str, dsn: str = "", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """One of Postgres' programs, as whom Postgres runs, with the password of an address."""
    binaries = find_binaries()
    argv = through_helper(
        choose_identity(binaries), [str(binaries.directory / program), *arguments], parent=os.getpid()
    )
    env = {**environment(), **({"PGPASSWORD": str(conninfo_to_dict(dsn)["password"])} if dsn else {})}
    done = subprocess.run(argv, env=env, capture_output=True, timeout=120, check=False, **options)
    assert done.returncode == 0, (program, done.stderr.decode(), done.stdout.decode()[-2000:])
    return done


def without_password(dsn: str) -> str:
    """An address for an argument list."""
    parts: dict[str, Any] = conninfo_to_dict(dsn)
    parts.pop("password")
    return make_conninfo(**parts)


def dump(dsn: str) -> bytes:
    """A dump in pg_dump's own format."""
    return run("pg_dump", "-Fc", "-d", without_password(dsn), dsn=dsn).stdout


def restore(archive: bytes, server_dsn: str, name: str) -> str:
    """Restore it into a new database. Returns the address of that."""
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    dsn = make_conninfo(server_dsn, dbname=name)
    run("pg_restore", "-d", without_password(dsn), "--no-owner", "--no-acl", dsn=dsn, input=archive)
    return dsn


def burn(dsn: str, transactions: int) -> None:
    """Let a cluster grow older."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"DO $$ BEGIN FOR i IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$".encode()
        )
