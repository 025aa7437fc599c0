"""Batch runs on a runner: real processes, a real database."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsig.runner.loop import Runner
from tests import support_jobs as do
from tests.store.bygone import unheard
from tests.support import needs, wait_for
from tests.support_jobs import Connection


@pytest.fixture
def runner(database: str, tmp_path: Path) -> Iterator[Runner]:
    with do.running(do.settings(database, tmp_path)) as found:
        yield found


def test_a_command_that_ends_well(connection: Connection, runner: object) -> None:
    run = do.start(connection, do.operator(connection, "hello", command=["sh", "-c", "echo out; echo err >&2"]))
    row = do.wait_state(connection, run, "succeeded")
    assert (row["exit_code"], row["reason"], row["epoch"], row["attempt"]) == (0, None, 1, 1)
    # The output was there before the end was.
    assert do.output(connection, run) == "out\nerr\n"
    assert do.states(connection, run) == ["starting", "running", "succeeded"]


def test_what_a_job_finds_in_its_environment(connection: Connection, runner: object, tmp_path: Path) -> None:
    (signal,) = connection.execute("""SELECT pgsig.emit('a.b', '{"x": [1, null]}', 'me')""").fetchone() or (0,)
    target = tmp_path / "seen"
    operator = do.operator(
        connection, "env", command=["sh", "-c", f'env > {target}; cat "$PGSIG_RUN_FILE" > {target}.json'],
        env={"OWN": "1"}, params={"a": 1, "b": 2},
    )  # fmt: skip
    run = do.start(connection, operator, "me", evidence=[signal], params={"b": 3})
    do.wait_state(connection, run, "succeeded")
    env = dict(line.split("=", 1) for line in target.read_text().splitlines())
    assert (env["PGSIG_RUN_ID"], env["PGSIG_SUBJECT"], env["OWN"]) == (str(run), "me", "1")
    assert json.loads(env["PGSIG_PARAMS"]) == {"a": 1, "b": 3}
    # Nothing of the runner's own environment that is not needed, and the token nowhere but in the file.
    assert not {"DATABASE_URL", "PGSIG_API_TOKEN", "PYTEST_CURRENT_TEST"} & set(env)
    about = json.loads(Path(f"{target}.json").read_text())
    assert about["cause"][0]["value"] == {"x": [1, None]}
    assert about["token"] not in target.read_text()


def test_a_failure_is_tried_again_and_each_attempt_sees_the_checkpoint(connection: Connection, runner: object) -> None:
    run = do.start(
        connection,
        do.operator(connection, "flaky", python="tests.runner_jobs:counted", retries=2, retry_delay="10ms"),
    )
    row = do.wait_state(connection, run, "succeeded", "failed")
    assert (row["state"], row["attempt"], row["epoch"]) == ("succeeded", 3, 5)
    assert do.output(connection, run).splitlines() == [f"attempt {n} checkpoint {n}" for n in (1, 2, 3)]
    assert do.states(connection, run) == [*["starting", "running", "retrying"] * 2, "starting", "running", "succeeded"]  # fmt: skip


def test_a_failure_without_attempts_left_keeps_its_exit_code(connection: Connection, runner: object) -> None:
    run = do.start(connection, do.operator(connection, "bad", command=["sh", "-c", "exit 7"]))
    row = do.wait_state(connection, run, "failed")
    assert (row["exit_code"], row["reason"]) == (7, "exit code 7")


def test_a_timeout_ends_it(connection: Connection, runner: object) -> None:
    run = do.start(
        connection,
        do.operator(connection, "slow", command=["sleep", "600"], timeout="300ms", retries=1, retry_delay="10ms"),
    )
    row = do.wait_state(connection, run, "failed")
    assert (row["attempt"], row["reason"]) == (2, "timed out after 300ms")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"command": ["no-such-program"]}, "could not be started: No such file or directory: no-such-program"),
        ({"command": ["sh"], "cwd": "/no/such"}, "could not be started: No such file or directory: /no/such"),
        ({}, "could not be started: the operator names neither a command"),
        ({"command": ["sh"], "timeout": "soon"}, "could not be started: "),
    ],
)
def test_what_cannot_be_started_fails_with_the_reason(
    connection: Connection, runner: object, spec: dict[str, Any], reason: str
) -> None:
    run = do.start(connection, do.operator(connection, "broken", retries=3, **spec))
    assert do.wait_state(connection, run, "failed")["reason"].startswith(reason)


def test_a_callable_that_is_not_there_is_named(connection: Connection, runner: object) -> None:
    run = do.start(connection, do.operator(connection, "gone", python="tests.runner_jobs:nothing"))
    assert do.wait_state(connection, run, "failed")["exit_code"] == 1
    assert "there is no function nothing in tests.runner_jobs" in do.output(connection, run)


def test_a_job_emits_and_leaves_its_result(connection: Connection, runner: object, database: str) -> None:
    (cause,) = connection.execute("SELECT pgsig.emit('data.ready', '5')").fetchone() or (0,)
    operator = do.operator(connection, "tell", python="tests.runner_jobs:tell", env={"WHERE": database})
    run = do.start(connection, operator, evidence=[cause], params={"p": "q"})
    row = do.wait_state(connection, run, "succeeded", "failed")
    assert row["state"] == "succeeded", do.output(connection, run)
    assert row["progress"] == {"done": 3, "total": 10, "text": "on the way"}
    assert row["checkpoint"] == {"at": 7}
    said = connection.execute(
        "SELECT id, key, value, subject, source, depth FROM pgsig.signals WHERE run_id = %s AND kind = 'user' ORDER BY id",
        [run],
    ).fetchall()
    assert [(key, value, subject) for _, key, value, subject, _, _ in said] == [
        ("job.said", {"n": 1}, "s"), ("job.said", 2, ""), ("job.said", 3, ""), ("job.kept", None, ""),
    ]  # fmt: skip
    assert {(source, depth) for *_, source, depth in said} == {("w.tell", 1)}
    assert row["result"] == {"emitted": [said[0][0], said[1][0], said[2][0]]}
    (value,) = connection.execute("SELECT value FROM pgsig.signals WHERE key = 'run.w.tell.succeeded'").fetchone() or (
        0,
    )
    assert value == row["result"]
    assert "cause [('data.ready', 5)] params {'p': 'q'}" in do.output(connection, run)


def test_a_shell_job_speaks_http(connection: Connection, runner: object) -> None:
    script = """
        ask() { curl -sK "$PGSIG_RUN_DIR/curl" "$(cat "$PGSIG_RUN_DIR/url")$1" -d "$2"; }
        ask /emit '{"key": "shell.said", "value": {"a": 1}}'
        ask /emit '[{"key": "Bad Key"}, {"key": "also bad"}]'
        ask /progress '{"done": 1}'
        ask /nowhere '{}'
        ask /emit 'no json'
        curl -s "$(cat "$PGSIG_RUN_DIR/url")/emit" -d '{"key": "no.token"}'
        ask /emit '{"key": "run.forged"}'
        ask /emit '[{"key": "run.forged"}]'
    """
    needs("curl")
    run = do.start(connection, do.operator(connection, "shell", command=["sh", "-c", script]))
    do.wait_state(connection, run, "succeeded")
    answers = [json.loads(line) for line in do.output(connection, run).splitlines()]
    emitted = connection.execute(
        "SELECT id, key, value FROM pgsig.signals WHERE run_id = %s AND kind = 'user'", [run]
    ).fetchall()
    assert emitted == [(answers[0]["ids"][0], "shell.said", {"a": 1})]
    problems = [answer["error"]["errors"] for answer in (answers[1], *answers[6:])]
    assert [[(one["code"], one["where"]) for one in found] for found in problems] == [
        [("PS101", "/0/key"), ("PS101", "/1/key")], [("PS102", "/key")], [("PS102", "/0/key")],
    ]  # fmt: skip
    assert answers[2] == {"ok": True}
    refused = [answer["error"] for answer in answers[3:6]]
    assert [error["code"] for error in refused] == ["PS404", "PS405", "PS403"]
    assert all(error["fix"] for error in refused)


def test_a_listener_that_comes_too_late_is_told_how_to_begin_anew(connection: Connection, runner: object) -> None:
    cursor = unheard(connection, "config.dropped")
    connection.execute("SELECT pgsig.emit('config.left')")
    operator = do.operator(connection, "anew", python="tests.runner_jobs:listen_anew", env={"CURSOR": cursor})
    run = do.start(connection, operator)
    do.wait_state(connection, run, "succeeded")
    told, *heard = do.output(connection, run).splitlines()
    assert told == (
        "PS409 /after: signals that came after this cursor were dropped, as they were past retention_days"
        " (begin anew: after=here from now on, after=oldest with what is left)"
    )
    assert heard == ["heard config.left", "heard config.last"]
    needs("curl")
    script = f"""
        ask() {{ curl -sK "$PGSIG_RUN_DIR/curl" "$(cat "$PGSIG_RUN_DIR/url")/signals?pattern=config.**&after=$1" -w '%{{http_code}}\n'; }}
        ask '{cursor}'
        ask here
        ask nowhere
    """
    run = do.start(connection, do.operator(connection, "shell", command=["sh", "-c", script]))
    do.wait_state(connection, run, "succeeded")
    lines = do.output(connection, run).splitlines()
    assert lines[1::2] == ["422", "200", "422"]
    late, anew, nowhere = (json.loads(line) for line in lines[::2])
    assert late["error"]["code"] == late["error"]["errors"][0]["code"] == "PS409"
    assert anew["signals"] == []
    assert nowhere["error"]["errors"][0]["fix"] == "give back what was answered, or here, or oldest"


def test_a_value_that_python_cannot_read_spoils_only_its_own_run(connection: Connection, runner: object) -> None:
    (poison,) = connection.execute("SELECT pgsig.emit('big.number', %s::jsonb)", ["9" * 5000]).fetchone() or (0,)
    operator = do.operator(connection, "any", command=["true"])
    bad = do.start(connection, operator, "bad", claimable=False)
    good = do.start(connection, operator, "good", evidence=[poison])
    connection.execute(
        "UPDATE pgsig_private.run SET params = %s::jsonb, claimable_at = clock_timestamp() WHERE id = %s",
        ['{"n": ' + "9" * 5000 + "}", bad],
    )

    def ended() -> list[tuple[object, ...]]:
        rows = connection.execute("SELECT state, reason FROM pgsig_private.run ORDER BY id").fetchall()
        return rows if all(state in do.FINAL for state, _ in rows) else []

    (spoilt, fine) = wait_for(ended, about="both runs to end")
    assert fine == ("succeeded", None)
    assert spoilt[0] == "failed"
    assert "its parameters cannot be used: it is JSON that Python cannot read" in str(spoilt[1])
    assert do.run_row(connection, good)["state"] == "succeeded"


def test_many_short_jobs(connection: Connection, runner: object) -> None:
    operator = do.operator(connection, "short", command=["true"])
    runs = [do.start(connection, operator, str(n)) for n in range(60)]
    for run in runs:
        do.wait_state(connection, run, "succeeded", timeout=30)


def test_what_a_run_has_used_is_kept(connection: Connection, runner: object) -> None:
    """Of all its attempts: processor time adds up, memory is the highest."""
    # A cold start is this very program for a moment: the job has to need more than it ever did.
    least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 100_000_000
    burns = do.operator(connection, "burns", python="tests.engine_jobs:burns", env={"BYTES": str(least)})
    run = do.start(connection, burns)
    row = do.wait_state(connection, run, "succeeded")
    assert 0.4 <= row["cpu_seconds"] < 3.0
    assert least < row["memory_peak"] < least + 200e6
