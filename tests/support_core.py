"""What tests of the core share: operators written straight into the tables, worker processes, and steps of two connections."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from pgsig.store.definitions import told
from tests.support import wait_for

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]
ROOT = Path(__file__).resolve().parents[1]

WORKER = """
import logging, signal
from pgsig.settings import Settings
from pgsig.worker import Worker
logging.basicConfig(level="WARNING")
worker = Worker(Settings.from_env())
signal.signal(signal.SIGTERM, lambda *_: worker.stop())
worker.run()
"""


def one(connection: Connection, statement: str, *parameters: Any) -> Any:
    """The first column of the first row, None where there is no row."""
    row = connection.execute(statement.encode(), parameters or None).fetchone()
    return row[0] if row else None


def operator(
    connection: Connection, name: str, *rules: tuple[str, Any], kind: str = "batch", by: str = "subject", **spec: Any
) -> int:
    """An operator `w.<name>` of namespace `default` with rules as (action, condition), as an apply would have left it. Its id."""
    body = json.dumps({"command": ["true"], **spec})
    with connection.transaction():
        workflow = one(
            connection,
            "INSERT INTO pgsig_private.workflow AS w (namespace, name, version) VALUES ('default', 'w', 1)"
            " ON CONFLICT (namespace, name) DO UPDATE SET version = 1 RETURNING id",
        )
        operator_id = one(
            connection,
            "INSERT INTO pgsig_private.operator (workflow_id, name, kind, spec) VALUES (%s, %s, %s, %s) RETURNING id",
            *(workflow, name, kind, body),
        )
        connection.execute(
            "INSERT INTO pgsig_private.operator_version (operator_id, version, kind, spec) VALUES (%s, 1, %s, %s)",
            [operator_id, kind, body],
        )
        for ordinal, (action, condition) in enumerate(rules):
            words = told(condition, f"w.{name}", {})
            connection.execute(
                "INSERT INTO pgsig_private.rule (operator_id, name, action, ordinal, condition, by, told, digest, added_in)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, '', 1)",
                [
                    operator_id,
                    f"{action.lower()}.{ordinal}",
                    action,
                    ordinal,
                    json.dumps(condition),
                    by,
                    Jsonb(words) if words else None,
                ],
            )
        announce_all(connection)
    return int(operator_id)


def announce_all(connection: Connection) -> None:
    """Have definitions that were written past any apply read anew."""
    connection.execute("UPDATE pgsig_private.lane SET revision = revision + 1")
    connection.execute(
        "UPDATE pgsig_private.workflow w SET revision = l.revision FROM pgsig_private.lane l WHERE l.lane = w.lane"
    )


class WorkerProcess:
    """A real worker in a process of its own. settings: environment variables without their `PGSIG_`."""

    def __init__(self, url: str, *, failpoints: str = "", **settings: object) -> None:
        extra = {f"PGSIG_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={
                **os.environ,
                **extra,
                "DATABASE_URL": url,
                "PGSIG_FAILPOINTS": failpoints,
                "PYTHONPATH": str(ROOT),
            },
            stderr=subprocess.DEVNULL,
        )

    def wait_until_ready(self, connection: Connection) -> None:
        """Return once it has announced itself."""
        wait_for(
            lambda: one(connection, "SELECT 1 FROM pgsig_private.process WHERE pid = %s", self.process.pid),
            20,
            about="a worker to join",
        )

    def kill(self) -> None:
        """SIGKILL, as a machine that fails would."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not obey."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@contextlib.contextmanager
def workers(url: str, count: int = 1, **settings: Any) -> Iterator[list[WorkerProcess]]:
    """Worker processes that are ready, and are stopped at the end."""
    started = [WorkerProcess(url, **settings) for _ in range(count)]
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            for worker in started:
                worker.wait_until_ready(connection)
        yield started
    finally:
        for worker in started:
            worker.stop()


class Rings:
    """How often emitters have rung for a worker. url: of a database."""

    def __init__(self, url: str) -> None:
        self._listener = psycopg.connect(url, autocommit=True)
        for channel in ("pgsig_signals", "test_end"):
            self._listener.execute(f"LISTEN {channel}".encode())

    def since(self) -> int:
        """Those since the last call. Notifications come in the order of commits, so one of our own ends the wait."""
        self._listener.execute("NOTIFY test_end")
        for rung, heard in enumerate(self._listener.notifies(timeout=30)):
            if heard.channel == "test_end":
                return rung
        raise AssertionError("the listener's own notification did not arrive")

    def __enter__(self) -> Rings:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


@contextlib.contextmanager
def awake(url: str, worker: WorkerProcess) -> Iterator[None]:
    """Signals without end, each in a transaction of its own, that keep the only worker of a database from falling asleep."""
    done = threading.Event()

    def emitter() -> None:
        with psycopg.connect(url, autocommit=True) as mine:
            while not done.wait(0.002):
                mine.execute("SELECT pgsig.emit('load')")

    emits = Background(emitter)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            wait_for(lambda: one(connection, AWAKE, worker.process.pid) == [AWAKE_LOCK], about="the worker to be awake")
        yield
    finally:
        done.set()
        emits.result()


AWAKE_LOCK = 1002
AWAKE = """
    SELECT array_agg(k.objid::integer) FROM pg_locks k
      JOIN pg_stat_activity a ON a.pid = k.pid JOIN pgsig_private.process p ON a.application_name = 'pgsig worker ' || p.name || ' (bell)'
     WHERE p.pid = %s AND k.locktype = 'advisory' AND k.granted AND k.objid <> 1005
"""


class Background(Generic[T]):
    """A call in a thread: how a test lets one connection wait for another."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self._error = error

    def result(self, timeout: float = 10) -> T:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the call did not return"
        if self._error is not None:
            raise self._error
        return self._value[0]


def wait_until_blocked(watcher: Connection, blocked: Connection) -> None:
    """Return once the backend of `blocked` waits for a lock."""
    pid = blocked.info.backend_pid
    wait_for(
        lambda: one(watcher, "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted", pid),
        about=f"backend {pid} to wait for a lock",
    )


def many_rules(connection: Connection, workflows: int, each: int) -> None:
    """Workflows with so many operators each, every one with a rule that waits for a key of its own."""
    connection.execute(
        "INSERT INTO pgsig_private.workflow (namespace, name, version) SELECT 'default', 'w' || i, 1 FROM generate_series(1, %s) i",
        [workflows],
    )
    connection.execute(
        """
        INSERT INTO pgsig_private.operator (workflow_id, name, kind, spec)
        SELECT w.id, 'o' || i, 'batch', '{"command": ["true"]}' FROM pgsig_private.workflow w, generate_series(1, %s) i
        """,
        [each],
    )
    connection.execute(
        """
        INSERT INTO pgsig_private.rule (operator_id, name, action, ordinal, condition, digest, added_in)
        SELECT o.id, 'start.0', 'START', 0, jsonb_build_object('signal', format('k%s.done', o.id)), '', 1 FROM pgsig_private.operator o;
        ANALYZE pgsig_private.workflow, pgsig_private.operator, pgsig_private.rule
        """
    )
