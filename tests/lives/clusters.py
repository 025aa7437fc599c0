"""Clusters beside the one that the tests share, and the programs that move databases between them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsig.embedded import EmbeddedPostgres, find_binaries
from pgsig.embedded.identity import choose_identity, environment, through_helper
from tests.support import wait_for
from tests.support_core import one

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


def beside(data: Path, server: EmbeddedPostgres) -> Path:
    """Where a copy of a cluster has to lie for an embedded server."""
    data.mkdir(mode=0o700)
    (data / "lock").touch()
    shutil.copy(server.data_dir / "password", data / "password")
    return data / "cluster"


def base_backup(target: Path, dsn: str, *options: str) -> None:
    """A copy of a cluster's files while it works, with the log that it takes to use it."""
    run(
        "pg_basebackup", "-D", str(target), "-d", without_password(dsn), "-X", "stream", "-c", "fast", *options, dsn=dsn
    )


@contextmanager
def recovered(backup: Path, **settings: str) -> Iterator[tuple[str, Callable[..., None]]]:
    """A backup that is to go on, from a target on. Gives the address that it is going to have, and what starts it. told: with
    `recovery.signal`."""
    port = free_port()
    server = EmbeddedPostgres(backup.parent, port=port, fsync=False, settings={**SMALL, **settings})

    def recover(told: bool = True) -> None:
        if told:
            (backup / "recovery.signal").touch()
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:  # it may be read before it has recovered
            wait_for(lambda: one(connection, "SELECT NOT pg_is_in_recovery()"), 30)

    try:
        yield address(backup.parent, port), recover
    finally:
        server.stop("immediate")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def address(data: Path, port: int) -> str:
    password = (data / "password").read_text().strip()
    return make_conninfo(host="127.0.0.1", port=port, user="pgsig", password=password, dbname="postgres")


@contextmanager
def standby(data: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A replica that follows. Gives its address, and what promotes it. An embedded server waits until it accepts writes."""
    port = free_port()
    server = EmbeddedPostgres(data, port=port, fsync=False, settings={**SMALL, "hot_standby": "on"})
    thread = threading.Thread(target=server.start)
    thread.start()
    dsn = address(data, port)

    def answers() -> bool:
        try:
            with psycopg.connect(dsn) as connection:
                return bool(one(connection, "SELECT pg_is_in_recovery()"))
        except psycopg.OperationalError:
            return False

    def promote() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        thread.join(30)

    try:
        wait_for(answers, 30)
        yield dsn, promote
    finally:
        if thread.is_alive():
            promote()
        server.stop("immediate")
