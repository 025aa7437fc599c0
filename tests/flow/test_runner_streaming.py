"""Streaming runs: restarted when they end, reloaded on the fly, replaced without a gap."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsig.runner.loop import Runner
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import Connection


@pytest.fixture
def runner(database: str, tmp_path: Path) -> Iterator[Runner]:
    with do.running(do.settings(database, tmp_path)) as found:
        yield found


def first_process(runner: Runner, run: int) -> int:
    """The process id of a run's job."""
    return int(runner.jobs[run].handle.identity.split()[0])


def emit(connection: Connection, key: str, value: str) -> int:
    (found,) = connection.execute("SELECT pgsig.emit(%s, %s::jsonb)", [key, value]).fetchone() or (0,)
    return int(found)


def reload_state(connection: Connection, reload: int) -> tuple[object, ...]:
    found = connection.execute("SELECT state, reason FROM pgsig_private.reload WHERE id = %s", [reload]).fetchone()
    return found or ()


def test_a_job_that_is_killed_is_restarted(connection: Connection, runner: Runner) -> None:
    run = do.start(connection, do.operator(connection, "forever", "streaming", command=["sleep", "600"]))
    do.wait_state(connection, run, "running", attempt=1)
    os.kill(first_process(runner, run), signal.SIGKILL)
    row = do.wait_state(connection, run, "running", attempt=2, timeout=5)
    assert row["epoch"] == 3
    # Ready as soon as it runs, each time anew.
    wait_for(lambda: do.states(connection, run).count("ready") == 2)
    assert do.states(connection, run) == ["starting", "running", "ready", "retrying", "starting", "running", "ready"]
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped")


def test_restart_never_means_that_its_end_is_its_end(connection: Connection, runner: Runner) -> None:
    good = do.start(connection, do.operator(connection, "good", "streaming", command=["true"], restart="on_failure"))
    bad = do.start(connection, do.operator(connection, "bad", "streaming", command=["false"], restart="never"))
    do.wait_state(connection, good, "succeeded")
    do.wait_state(connection, bad, "failed")


def test_a_job_follows_signals(connection: Connection, runner: Runner) -> None:
    operator = do.operator(connection, "listen", "streaming", python="tests.runner_jobs:listen")
    emit(connection, "config.before", "0")
    run = do.start(connection, operator)
    wait_for(lambda: "listening" in do.output(connection, run))
    with connection.transaction():
        emit(connection, "config.changed", '{"a": 1}')
        emit(connection, "other.thing", "1")
        emit(connection, "config", "2")
    wait_for(lambda: do.output(connection, run).count("heard") == 2, about="both signals")
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped", timeout=5)
    assert do.output(connection, run) == "listening\nheard config.changed {'a': 1}\nheard config 2\ndone listening\n"


def test_reload_by_api(connection: Connection, runner: Runner) -> None:
    run = do.start(connection, do.operator(connection, "serve", "streaming", python="tests.runner_jobs:serve"))
    do.wait_state(connection, run, "running")
    done = do.reload(connection, run, [emit(connection, "config.changed", '"good"')])
    wait_for(lambda: reload_state(connection, done) == ("acknowledged", None), about="the acknowledgement")
    wait_for(lambda: "reloading with ['good']" in do.output(connection, run))
    # What the handler raises is the reason of the RESTART that follows.
    failed = do.reload(connection, run, [emit(connection, "config.changed", '"bad"')])
    wait_for(lambda: reload_state(connection, failed) == ("failed", "ValueError: a bad configuration"))
    (order,) = connection.execute("SELECT value FROM pgsig.signals WHERE key = 'manual.w.serve'").fetchone() or ({},)
    assert (order["action"], order["reason"]) == ("RESTART", "reload failed: ValueError: a bad configuration")
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped")


def test_reloads_one_after_the_other(connection: Connection, runner: Runner) -> None:
    run = do.start(connection, do.operator(connection, "hear", "streaming", python="tests.runner_jobs:hear_reloads"))
    do.wait_state(connection, run, "running")
    reloads = [do.reload(connection, run, [emit(connection, f"config.n{n}", "1")]) for n in range(3)]
    wait_for(lambda: all(reload_state(connection, one)[0] == "acknowledged" for one in reloads[:2]))
    wait_for(lambda: do.output(connection, run).count("reload") == 3)
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped", timeout=5)


def test_a_reload_waits_for_a_beginning_and_for_no_poll(connection: Connection, database: str, tmp_path: Path) -> None:
    operator = do.operator(connection, "hear", "streaming", python="tests.runner_jobs:hear_reloads")
    with do.running(do.settings(database, tmp_path, poll_seconds=60)):
        with connection.transaction():
            run = do.start(connection, operator)
            reload = do.reload(connection, run, [])
        wait_for(lambda: reload_state(connection, reload)[0] != "pending", about="the reload's delivery")


def test_a_reload_that_nobody_acknowledges_fails(connection: Connection, runner: Runner) -> None:
    operator = do.operator(connection, "deaf", "streaming", command=["sleep", "600"], reload_timeout="200ms")
    run = do.start(connection, operator)
    do.wait_state(connection, run, "running")
    reload = do.reload(connection, run, [])
    wait_for(lambda: reload_state(connection, reload) == ("failed", "not acknowledged within 200ms"))
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped")


def test_reload_by_a_unix_signal(connection: Connection, runner: Runner, tmp_path: Path) -> None:
    script = """trap 'cat "$PGSIG_RUN_DIR/reload"; echo' HUP; echo up; while :; do sleep 0.05; done"""
    run = do.start(
        connection, do.operator(connection, "hup", "streaming", command=["sh", "-c", script], reload_by="HUP")
    )
    wait_for(lambda: "up" in do.output(connection, run))
    reload = do.reload(connection, run, [emit(connection, "config.changed", '"new"')])
    wait_for(lambda: reload_state(connection, reload) == ("acknowledged", None))
    wait_for(lambda: '"new"' in do.output(connection, run), about="the handler's output")
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped")


def test_a_job_ignores_nothing_that_its_runner_was_told_to(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    """A runner under nohup, in the background of a script: its jobs can be reloaded by HUP all the same, however they start."""
    script = """trap 'echo reloaded; exit 0' HUP; grep SigIgn /proc/self/status; while :; do sleep 0.05; done"""
    target = "tests.engine_jobs:ignores"
    with do.runner_process(do.settings(database, tmp_path), ignoring="HUP INT QUIT USR1") as process:
        by_hup = do.start(
            connection, do.operator(connection, "hup", "streaming", command=["sh", "-c", script], reload_by="HUP")
        )
        others = []
        for n in range(3):  # one after the other: for the later ones the fork server is ready
            others.append(do.start(connection, do.operator(connection, f"python{n}", python=target, warm=n > 0)))
            do.wait_state(connection, others[-1], "succeeded", timeout=30)
        wait_for(lambda: "SigIgn" in do.output(connection, by_hup), 30)
        for run in (by_hup, *others):
            mask = int(do.output(connection, run).split()[1], 16)
            assert [number for number in (1, 2, 3, 10) if mask >> (number - 1) & 1] == [], do.output(connection, run)
        do.reload(connection, by_hup, [])
        wait_for(lambda: "reloaded" in do.output(connection, by_hup), 30)
        # And the runner itself goes on ignoring them.
        process.send_signal(signal.SIGHUP)
        do.stop(connection, by_hup)
        do.wait_state(connection, by_hup, "stopped", timeout=30)
        assert process.poll() is None


def test_a_handover_waits_until_the_new_one_is_ready(connection: Connection, runner: Runner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    operator = do.operator(
        connection, "serve", "streaming", python="tests.runner_jobs:serve", ready="api", handover="start_first", env={"GATE": str(gate)},
    )  # fmt: skip
    gate.touch()
    old = do.start(connection, operator, slots=2)
    wait_for(lambda: do.run_row(connection, old)["ready_at"])
    gate.unlink()
    new = do.start(connection, operator, slots=2, handover_of=old, generation=2)
    do.wait_state(connection, new, "running")
    assert do.run_row(connection, new)["ready_at"] is None
    assert do.run_row(connection, old)["desired"] == "run"
    gate.touch()
    do.wait_state(connection, old, "stopped", timeout=5)
    row = do.run_row(connection, new)
    assert row["state"] == "running"
    assert row["ready_at"] < do.run_row(connection, old)["ended_at"]
    do.stop(connection, new)
    do.wait_state(connection, new, "stopped")
