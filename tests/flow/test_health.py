"""Ready and alive, as a runner finds it out of real jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsig.runner.loop import Runner
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import Connection

SLOW = 30  # seconds for a machine that has much else to do
URL = "http://127.0.0.1:{port}/health"


@pytest.fixture
def runner(database: str, tmp_path: Path) -> Iterator[Runner]:
    with do.running(do.settings(database, tmp_path / "spool")) as found:
        yield found


def test_a_service_is_ready_when_it_answers_and_restarted_when_it_does_not(
    connection: Connection, runner: Runner, tmp_path: Path
) -> None:
    status = tmp_path / "status"
    operator = do.operator(
        connection, "web", "streaming", python="tests.runner_jobs:web", env={"STATUS": str(status)},
        ready={"http": URL, "every": "100ms", "timeout": "5s"}, live={"http": URL, "every": "100ms", "timeout": "5s", "failures": 2},
    )  # fmt: skip
    run = do.start(connection, operator)
    wait_for(lambda: "status 503" in str(runner.jobs.get(run) and runner.jobs[run].health), SLOW, about="an answer")
    assert do.run_row(connection, run)["ready_at"] is None
    assert "ready" not in do.states(connection, run)
    status.write_text("200")
    wait_for(lambda: do.run_row(connection, run)["ready_at"], SLOW, about="ready")
    status.write_text("500")
    do.wait_state(connection, run, "retrying", "starting", "running", attempt=2, timeout=SLOW)
    said = [signal for signal in do.states(connection, run) if signal != "starting"]
    assert said[:3] == ["running", "ready", "retrying"]
    (why,) = connection.execute(
        "SELECT value->>'reason' FROM pgsig.signals WHERE run_id = %s AND key LIKE '%%retrying'", [run]
    ).fetchone() or ("",)
    assert why == "the probe failed 2 times: status 500"
    wait_for(lambda: "it is ended" in do.output(connection, run))
    text = do.output(connection, run)
    assert text.startswith("[pgsig: the probe failed, 1 of 2: status 500]\n")
    assert "answered again" not in text
    assert "\n[pgsig: it is ended: the probe failed 2 times: status 500]\n" in text
    status.write_text("200")
    wait_for(lambda: do.run_row(connection, run)["ready_at"], SLOW, about="the next attempt to be ready")
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped", timeout=SLOW)


def test_who_serves_before_its_runner_has_said_that_it_runs_is_ready_after_that(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    """A runner that is held up where it has just started a job: what the job says by then is neither refused nor told first."""
    operator = do.operator(connection, "quick", "streaming", python="tests.runner_jobs:serve", ready="api")
    settings = do.settings(database, tmp_path / "spool", lease_seconds=30.0)
    with do.runner_process(settings, failpoints="run.spawned=sleep=1"):
        run = do.start(connection, operator)
        wait_for(lambda: do.run_row(connection, run)["ready_at"], SLOW, about="ready")
        row = do.run_row(connection, run)
        assert (row["state"], row["attempt"]) == ("running", 1)
        assert do.states(connection, run) == ["starting", "running", "ready"]
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped", timeout=SLOW)


def test_who_is_not_ready_in_time_has_failed(connection: Connection, runner: Runner) -> None:
    mute = do.operator(
        connection, "mute", "streaming", command=["sleep", "600"], ready="api", ready_timeout="300ms", restart="never"
    )
    ill = do.operator(
        connection, "ill", "streaming", command=["sleep", "600"], restart="never", ready_timeout="1s",
        ready={"command": ["sh", "-c", "echo not yet; exit 4"], "every": "100ms", "timeout": "5s"},
    )  # fmt: skip
    runs = do.start(connection, mute), do.start(connection, ill)
    rows = [do.wait_state(connection, run, "failed", timeout=SLOW) for run in runs]
    assert rows[0]["reason"] == "not ready within 300ms"
    assert rows[1]["reason"] == "not ready within 1s; its last probe: exit code 4: not yet"
    assert [row["ready_at"] for row in rows] == [None, None]


def test_a_command_asks_in_the_environment_of_the_job(connection: Connection, runner: Runner, tmp_path: Path) -> None:
    probe = {"command": ["sh", "-c", 'test -e "$GATE/$PGSIG_RUN_ID"'], "every": "100ms", "timeout": "5s"}
    operator = do.operator(
        connection, "gate", "streaming", command=["sleep", "600"], ready=probe, env={"GATE": str(tmp_path)}
    )
    run = do.start(connection, operator)
    do.wait_state(connection, run, "running", timeout=SLOW)
    (tmp_path / str(run)).touch()
    wait_for(lambda: do.run_row(connection, run)["ready_at"], SLOW, about="ready")
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped", timeout=SLOW)


def test_a_batch_run_that_shows_no_sign_of_life_is_ended_and_tried_again(
    connection: Connection, runner: Runner
) -> None:
    script = "trap 'exit 0' TERM; test $PGSIG_ATTEMPT = 2 && exit 0; while :; do sleep 0.05; done"
    operator = do.operator(
        connection, "hung", command=["sh", "-c", script], live={"heartbeat": "1s"}, retries=1, retry_delay="10ms"
    )
    run = do.start(connection, operator)
    do.wait_state(connection, run, "succeeded", attempt=2, timeout=SLOW)
    # It obeyed and exited with 0: that is no success.
    assert "[pgsig: it is ended: no heartbeat for 1s]" in do.output(connection, run)


def test_what_is_a_sign_of_life(connection: Connection, runner: Runner, tmp_path: Path) -> None:
    operator = do.operator(
        connection, "beat", "streaming", python="tests.runner_jobs:beat", live={"heartbeat": "40s"}, env={"GATE": str(tmp_path)},
    )  # fmt: skip
    run = do.start(connection, operator)
    do.wait_state(connection, run, "running", timeout=SLOW)
    session = runner.jobs[run].session
    heard = [session.heard_at]
    for name in ("beat", "said", "waited"):
        (tmp_path / name).touch()
        wait_for((tmp_path / f"{name}.done").exists, SLOW, about=name)
        heard.append(session.heard_at)
    assert heard[0] < heard[1] < heard[2]
    # Somebody waits for a reload: that may be a thread beside the work, which shows nothing.
    assert heard[3] == heard[2]
    do.stop(connection, run)
    do.wait_state(connection, run, "stopped", timeout=SLOW)
