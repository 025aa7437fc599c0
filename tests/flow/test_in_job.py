"""All that a job can do, in two languages: what `pgsig.run` does in Python is done over HTTP and files in any other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import support_jobs as do
from tests.support import needs, wait_for
from tests.support_jobs import Connection

JOBS = do.ROOT / "tests" / "jobs"
SLOW = 40


def emit(connection: Connection, key: str, value: Any) -> int:
    (found,) = connection.execute("SELECT pgsig.emit(%s, %s::jsonb)", [key, json.dumps(value)]).fetchone() or (0,)
    return int(found)


def reloaded(connection: Connection, reload: int) -> tuple[Any, ...] | None:
    return connection.execute(
        "SELECT state, reason FROM pgsig_private.reload WHERE id = %s AND ended_at IS NOT NULL", [reload]
    ).fetchone()


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_job_that_does_all_of_it(connection: Connection, database: str, tmp_path: Path, language: str) -> None:
    line = [needs("node"), str(JOBS / "job.mjs")] if language == "node" else [sys.executable, str(JOBS / "job.py")]
    operator = do.operator(
        connection, "all", "streaming", command=line, ready="api", live={"heartbeat": "30s"}, params={"a": 1}
    )
    with do.running(do.settings(database, tmp_path)) as runner:
        cause = emit(connection, "data.ready", {"rows": 5})
        run = do.start(connection, operator, "eu", evidence=[cause])
        wait_for(lambda: do.run_row(connection, run)["ready_at"], SLOW, about="its word that it serves")
        wait_for(lambda: "heard 0 before" in do.output(connection, run), SLOW)
        assert do.output(connection, run).splitlines() == [
            'w.all attempt 1 of generation 1 for "eu"',
            'params {"a":1} cause [["data.ready",{"rows":5}]]',
            "emitted true",
            "heard 0 before",
        ]
        said = connection.execute(
            "SELECT key, value, subject, source, depth FROM pgsig.signals WHERE run_id = %s AND kind = 'user' ORDER BY id",
            [run],
        ).fetchall()
        assert said == [("node.said", {"n": 1}, "eu", "w.all", 1), ("node.said", 2, "", "w.all", 1)]
        assert do.run_row(connection, run)["progress"] == {"done": 1, "total": 2, "text": "half of it"}
        assert runner.jobs[run].session.heard_at > 0

        good = do.reload(connection, run, [emit(connection, "config.first", "good")])
        assert wait_for(lambda: reloaded(connection, good), SLOW) == ("acknowledged", None)
        bad = do.reload(connection, run, [emit(connection, "other", "bad")])
        failed = wait_for(lambda: reloaded(connection, bad), SLOW)
        assert failed is not None
        assert failed[0] == "failed"
        assert "a bad configuration" in failed[1]

        # It dies in the middle, and goes on behind the last signal that it had handled: none is lost, none comes twice.
        emit(connection, "config.second", "crash")
        for number in range(3):
            emit(connection, f"config.n{number}", number)
        do.wait_state(connection, run, "running", attempt=2, timeout=SLOW)
        wait_for(lambda: "heard config.n2 2" in do.output(connection, run), SLOW, about="what came meanwhile")
        do.stop(connection, run)
        row = do.wait_state(connection, run, "stopped", timeout=SLOW)
    heard = [line for line in do.output(connection, run).splitlines() if line.startswith("heard")]
    assert heard == [
        "heard 0 before", 'heard config.first "good"', 'heard config.second "crash"', "heard 2 before",
        "heard config.n0 0", "heard config.n1 1", "heard config.n2 2",
    ]  # fmt: skip
    assert do.output(connection, run).splitlines()[-1] == "ended in good order"
    assert (row["exit_code"], row["result"]) == (0, {"heard": 5})
    assert row["checkpoint"]["heard"] == 5
