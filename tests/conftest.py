"""One server for the whole run, one migrated template in it, one clone of that for each test.

The server is embedded, or the one that `PGSIG_TEST_DSN` names; `PGSIG_PG_BIN` chooses the embedded one's
programs. It is started by the process that was called, before any worker of pytest-xdist, and reaches them by
environment.

Fixtures: `database` is the DSN of the test's own database, `connection` an autocommit connection to it. After
each test nothing that it started may be left: threads, processes, sessions of its database, advisory locks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from pgsig.embedded import EmbeddedPostgres
from pgsig.errors import PgsigError
from tests.support import wait_for

SERVER = "PGSIG_TEST_DSN"
PROBLEM = "PGSIG_TEST_SERVER_PROBLEM"  # why there is no server; tests that need none run all the same
MEMORY_WANTED = (4 << 30) + int(os.environ.get("PGSIG_PLAN_ROWS", "0")) * 1024  # bytes free in /dev/shm
LEFTOVERS_END_WITHIN = 3.0  # seconds: what was told to end may need a moment

EMBEDDED: pytest.StashKey[EmbeddedPostgres] = pytest.StashKey()

Connection = psycopg.Connection[tuple[Any, ...]]


# ── the server ──


def pytest_configure(config: pytest.Config) -> None:
    """Start the server, unless one is given or nothing will run, and tell pytest-postgresql its address."""
    # A shell gives background jobs an ignored SIGINT, nohup an ignored SIGHUP, and whatever they start inherits that: neither Ctrl-C nor a
    # reload by signal could be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    is_worker = hasattr(config, "workerinput")
    will_run = not (config.option.collectonly or config.option.help or config.option.version)
    if will_run and not is_worker and SERVER not in os.environ:
        start_server(config)
    if SERVER in os.environ:
        address = conninfo_to_dict(os.environ[SERVER])
        config.option.postgresql_host = address.get("host", "127.0.0.1")
        config.option.postgresql_port = str(address.get("port", 5432))
        config.option.postgresql_user = address.get("user", "postgres")
        config.option.postgresql_password = address.get("password")
        config.option.postgresql_maintenance_dbname = address.get("dbname", "postgres")


def start_server(config: pytest.Config) -> None:
    """Start an embedded server without durability, in a folder that any user can pass through.

    In memory where there is room: a clone of the template takes 20 ms there, and 300 ms on some disks.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_WANTED
    folder = Path(tempfile.mkdtemp(prefix="pgsig-tests-", dir=memory if roomy else None))
    folder.chmod(0o711)
    server = EmbeddedPostgres(
        folder / "postgres", fsync=False, settings={"max_prepared_transactions": "20", "max_connections": "400"}
    )
    try:
        server.start()
    except PgsigError as problem:
        shutil.rmtree(folder)
        os.environ[PROBLEM] = str(problem)
        return
    config.stash[EMBEDDED] = server
    os.environ[SERVER] = server.dsn()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started here, and remove its folder."""
    server = config.stash.get(EMBEDDED, None)
    if server is not None:
        server.stop("immediate")
        shutil.rmtree(server.data_dir.parent)
        del os.environ[SERVER]
    os.environ.pop(PROBLEM, None)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which server the tests use."""
    if SERVER not in os.environ:
        return f"postgres: none; {os.environ.get(PROBLEM, 'not needed')}"
    server = config.stash.get(EMBEDDED, None)
    return f"postgres: {'embedded ' + server.version if server else 'given by ' + SERVER}"


# ── the databases ──


def migrate_template(**where: Any) -> None:
    """Bring pytest-postgresql's template database to the newest schema.

    One worker at a time: roles belong to the whole server, and advisory locks to one database.
    """
    from pgsig.store.migrate import migrate

    with psycopg.connect(os.environ[SERVER], autocommit=True) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(hashtext('pgsig.tests.template'))")
        migrate(
            make_conninfo(
                host=where["host"],
                port=where["port"],
                user=where["user"],
                password=where["password"],
                dbname=where["dbname"],
            )
        )


template_server = factories.postgresql_noproc(dbname="pgsig_test_", load=[migrate_template])


@pytest.fixture(scope="session")
def server_dsn() -> str:
    """The address of the server's maintenance database, as a superuser."""
    if SERVER not in os.environ:
        pytest.fail(f"no Postgres to test with: {os.environ.get(PROBLEM)}")
    return os.environ[SERVER]


@pytest.fixture(scope="session")
def admin(server_dsn: str) -> Iterator[Connection]:
    """A connection from which databases are looked at without being in them."""
    with psycopg.connect(server_dsn, autocommit=True, application_name="pgsig-tests-admin") as connection:
        yield connection


@pytest.fixture(scope="session")
def template(server_dsn: str, request: pytest.FixtureRequest) -> NoopExecutor:
    """The server with its migrated template database."""
    executor: NoopExecutor = request.getfixturevalue("template_server")
    return executor


@pytest.fixture
def database(template: NoopExecutor, admin: Connection, no_leaks: None) -> Iterator[str]:
    """The DSN of a migrated database that belongs to this test alone."""
    name, source = sql.Identifier(template.dbname), sql.Identifier(template.template_dbname)
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
    admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(name, source))
    yield make_conninfo(
        host=template.host,
        port=template.port,
        user=template.user,
        password=template.password,
        dbname=template.dbname,
    )
    try:
        fail_if_left("database sessions", lambda: sessions(admin, template.dbname))
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    """An autocommit connection to the test's database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


# ── what a test must not leave ──


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads or processes. What a wider fixture started before the test may stay."""
    test = request.node.nodeid
    threads_before, processes_before = set(threading.enumerate()), processes(test)
    yield
    fail_if_left(
        "threads",
        lambda: [
            thread.name
            for thread in threading.enumerate()
            if thread not in threads_before and not thread.daemon and thread.is_alive()
        ],
    )
    fail_if_left(
        "processes",
        lambda: [f"{pid} {command}" for pid, command in processes(test).items() if pid not in processes_before],
    )


def fail_if_left(what: str, leftovers: Any) -> None:
    """Give what remains a moment to end, then fail with its names."""
    seen: list[str] = []

    def ended() -> bool:
        seen[:] = leftovers()
        return not seen

    with contextlib.suppress(pytest.fail.Exception):
        wait_for(ended, LEFTOVERS_END_WITHIN)
    if seen:
        pytest.fail(f"the test left {what}: " + "; ".join(seen), pytrace=False)


def processes(test: str) -> dict[int, str]:
    """Live children of this process, and orphans whose environment says that this test started them."""
    found = {}
    me, mark = os.getpid(), f"\0PYTEST_CURRENT_TEST={test} (".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state == "Z" or int(folder.name) == me:
                continue
            if int(parent) == me or mark in b"\0" + (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = command.strip()[:120]
    return found


def sessions(admin: Connection, dbname: str) -> list[str]:
    """Sessions of a database, each with the advisory locks that it holds."""
    rows = admin.execute(
        """
        SELECT format('%%s %%s, %%s, advisory locks held: %%s, last query: %%s',
                      activity.pid, activity.application_name, activity.state,
                      (SELECT count(*) FROM pg_locks AS held
                       WHERE held.pid = activity.pid AND held.locktype = 'advisory'),
                      left(activity.query, 100))
        FROM pg_stat_activity AS activity
        WHERE activity.datname = %s AND activity.backend_type = 'client backend'
        """,
        (dbname,),
    )
    return [row[0] for row in rows]
