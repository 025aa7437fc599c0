"""Work for a runner without a worker: operators and runs written directly, as a worker would have recorded them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgsig.runner.engine import Engine
from pgsig.runner.loop import Runner
from pgsig.settings import Settings
from tests.support import wait_for

Connection = psycopg.Connection[tuple[Any, ...]]
ROOT = Path(__file__).resolve().parents[1]
FINAL = ("succeeded", "failed", "stopped", "lost")


def operator(connection: Connection, name: str, kind: str = "batch", **spec: Any) -> int:
    """An operator of workflow `w`; the id. Jobs get the checkout on their PYTHONPATH."""
    spec["env"] = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **spec.get("env", {})}
    with connection.transaction():
        (workflow,) = connection.execute(
            "INSERT INTO pgsig_private.workflow AS w (namespace, name, version) VALUES ('default', 'w', 1)"
            " ON CONFLICT (namespace, name) DO UPDATE SET version = 1 RETURNING id"
        ).fetchone() or (0,)
        (found,) = connection.execute(
            "INSERT INTO pgsig_private.operator (workflow_id, name, kind, spec) VALUES (%s, %s, %s, %s) RETURNING id",
            [workflow, name, kind, Jsonb(spec)],
        ).fetchone() or (0,)
        connection.execute(
            "INSERT INTO pgsig_private.operator_version (operator_id, version, kind, spec) VALUES (%s, 1, %s, %s)",
            [found, kind, Jsonb(spec)],
        )
    return int(found)


def start(connection: Connection, operator_id: int, subject: str = "", **run: Any) -> int:
    """Record a START of an operator; the run's id. run: other columns of the run, evidence, params, slots, handover_of."""
    with connection.transaction():
        (run_id, action_id) = connection.execute(
            "SELECT nextval('pgsig_private.run_id'), nextval('pgsig_private.action_id')"
        ).fetchone() or (0, 0)
        row = {
            "id": run_id, "operator_id": operator_id, "subject": subject, "generation": 1, "version": 1, "action_id": action_id,
            "depth": 1, "pool": "default", "priority": 0, "slots": 1, "handover_of": None, "params": {}, "evidence": [],
            "claimable": True, **run,
        }  # fmt: skip
        action = {
            "id": action_id, "operator_id": operator_id, "rule_id": 0, "subject": subject, "action": "START", "result": "recorded",
            "version": 1, "cause_id": action_id, "nth": 0, "depth": 1, "evidence": row["evidence"], "explanation": {}, "run_id": run_id,
        }  # fmt: skip
        instance = {
            "operator_id": operator_id,
            "subject": subject,
            "desired": "running",
            "generation": 1,
            "run_id": run_id,
        }
        connection.execute(
            "SELECT FROM pgsig_private.lock_instances(ARRAY[%s]::bigint[], ARRAY[%s])", [operator_id, subject]
        )
        connection.execute(
            "SELECT pgsig_private.record(%s)", [Jsonb({"actions": [action], "runs": [row], "instances": [instance]})]
        )
    return int(run_id)


def stop(connection: Connection, run_id: int) -> None:
    """Record a STOP of a run."""
    connection.execute("SELECT pgsig_private.record(%s)", [Jsonb({"stops": [run_id]})])


def reload(connection: Connection, run_id: int, evidence: list[int]) -> int:
    """Record a RELOAD of a run; the reload's id."""
    row = {"run_id": run_id, "action_id": 1, "evidence": evidence}
    connection.execute("SELECT pgsig_private.record(%s)", [Jsonb({"reloads": [row]})])
    (found,) = connection.execute(
        "SELECT max(id) FROM pgsig_private.reload WHERE run_id = %s", [run_id]
    ).fetchone() or (0,)
    return int(found)


def run_row(connection: Connection, run_id: int) -> dict[str, Any]:
    """A run, all columns."""
    row = connection.execute("SELECT to_jsonb(r) FROM pgsig_private.run r WHERE id = %s", [run_id]).fetchone()
    return dict(row[0]) if row else {}


def wait_state(
    connection: Connection, run_id: int, *states: str, timeout: float = 15, **columns: Any
) -> dict[str, Any]:
    """The run, once it is in one of `states` and has these columns."""

    def there() -> dict[str, Any] | None:
        row = run_row(connection, run_id)
        good = row["state"] in states and all(row[name] == value for name, value in columns.items())
        return row if good else None

    return wait_for(there, timeout, about=f"run {run_id} to be {' or '.join(states)}") or {}


def states(connection: Connection, run_id: int) -> list[str]:
    """The states that a run went through, as its signals tell."""
    rows = connection.execute(
        "SELECT key FROM pgsig.signals WHERE run_id = %s AND kind = 'state' ORDER BY id", [run_id]
    ).fetchall()
    return [row[0].rpartition(".")[2] for row in rows]


def output(connection: Connection, run_id: int) -> str:
    """What is kept of a run's output."""
    rows = connection.execute("SELECT text FROM pgsig_private.log WHERE run_id = %s ORDER BY seq", [run_id]).fetchall()
    return "".join(row[0] for row in rows)


def settings(database: str, spool: Path, **given: Any) -> Settings:
    """Settings of a runner that is quick to notice things."""
    return Settings(**{"database_url": database, "spool": spool, "poll_seconds": 0.3, "lease_seconds": 4.0, **given})


@contextlib.contextmanager
def running(chosen: Settings, name: str = "here", engine: Engine[Any] | None = None) -> Iterator[Runner]:
    """A runner in a thread of this process; it has ended in good order when the block is left."""
    runner = Runner(chosen, name=name, engine=engine)
    problem: list[BaseException] = []

    def work() -> None:
        try:
            runner.run()
        except BaseException as error:  # noqa: BLE001 - raised again below
            problem.append(error)

    thread = threading.Thread(target=work, name="pgsig-runner")
    thread.start()
    try:
        wait_for(lambda: problem or (runner.link and runner.link.process), about="the runner to join")
        yield runner
    finally:
        runner.stop()
        thread.join(30)
        assert not thread.is_alive(), "the runner did not end"
        if problem:
            raise problem[0]


@contextlib.contextmanager
def runner_process(chosen: Settings, *, ignoring: str = "", failpoints: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A runner in a process of its own, for whoever wants to kill it. ignoring: signals, as a shell names them, that it has to ignore.
    failpoints: see `pgsig.failpoints`."""
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": chosen.database_url, "PGSIG_SPOOL": str(chosen.spool),
        "PGSIG_POLL_SECONDS": str(chosen.poll_seconds), "PGSIG_LEASE_SECONDS": str(chosen.lease_seconds),
        "PGSIG_CAPACITY": str(chosen.capacity), "PGSIG_FAILPOINTS": failpoints,
    }  # fmt: skip
    line = ["sh", "-c", f"trap '' {ignoring}; exec \"$@\"", "sh"] if ignoring else []
    process = subprocess.Popen([*line, sys.executable, "-m", "pgsig.runner"], env=env, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    from pgsig.runner.tree import look

    found = look(pid)
    return found is not None and not found.zombie
