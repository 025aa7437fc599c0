"""`pgsig calendar`, `trigger` and `backfill`, and `act` on a workflow, as a person uses them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgsig.cli import cli, explain
from pgsig.store.definitions import apply
from tests.support import wait_for

Connection = psycopg.Connection[Any]
WORKFLOW = {
    "workflow": "w",
    "operators": {
        "night": {"batch": {"command": ["true"]}, "start": {"cron": "30 2 * * *", "tz": "Europe/Berlin"}},
        "hour": {"batch": {"command": ["true"]}, "start": {"every": "1h"}},
    },
}


@pytest.fixture
def run(database: str, monkeypatch: pytest.MonkeyPatch, connection: Connection) -> Any:
    monkeypatch.setenv("DATABASE_URL", database)
    apply(connection, WORKFLOW)

    def call(*args: str) -> Result:
        result = CliRunner().invoke(cli, list(args))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            explain(result.exception)  # type: ignore[arg-type]
        return result

    return call


def test_the_calendar_tells_utc_and_local_time(run: Any) -> None:
    told = run("calendar", "w.night", "-n", "3").stdout
    assert told.count("Europe/Berlin") == 6
    assert "every day at 02:30 Europe/Berlin" in told
    found = json.loads(run("calendar", "w.night", "-n", "400", "-o", "json").stdout)
    dues = [datetime.fromisoformat(one["due"]) for one in found]
    assert all(later > sooner for sooner, later in itertools.pairwise(dues))
    assert {one["note"] for one in found} >= {
        None,
        "the clocks jump over 02:30: due at 03:30",
        "02:30 comes twice: due the first time",
    }
    both = json.loads(run("calendar", "w", "-o", "json").stdout)
    assert len(both) == 10
    assert {one["operator"] for one in both} >= {"hour"}


def test_a_time_is_skipped_and_the_calendar_knows(run: Any) -> None:
    before = json.loads(run("calendar", "w.hour", "-n", "2", "-o", "json").stdout)
    assert run("trigger", "skip", "w.hour").exit_code == 0
    (after,) = json.loads(run("calendar", "w.hour", "-n", "1", "-o", "json").stdout)
    assert after["due"] == before[1]["due"]
    assert "1 skipped" in run("trigger", "list", "w.hour").stdout


def test_a_busy_trigger_does_not_hide_the_others(run: Any, connection: Connection) -> None:
    busy = {"batch": {"command": ["true"]}, "start": {"every": "1s"}}
    apply(connection, {"workflow": "busy", "operators": {"o": busy}})
    shown = [one["operator"] for one in json.loads(run("calendar", "-o", "json").stdout)]
    assert sorted(set(shown)) == ["hour", "night", "o"]
    assert shown[:4] == ["o"] * 4
    assert len(json.loads(run("calendar", "busy", "-o", "json").stdout)) == 10


def test_a_target_that_there_is_not_is_refused(
    run: Any, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    apply(connection, {"workflow": "plain", "operators": {"o": {"batch": {"command": ["true"]}}}})
    for command in (["calendar"], ["trigger", "list"]):
        for target in ("nobody", "w.nobody"):
            result = run(*command, target)
            assert result.exit_code == 1
            assert f'PS201 /target: there is no workflow or operator "{target}"' in capsys.readouterr().err
        assert run(*command, "plain").exit_code == 0


def test_a_trigger_of_ones_own_is_asked_here_or_said_to_be_known_to_the_clocks(
    run: Any, connection: Connection
) -> None:
    own = {"batch": {"command": ["true"]}, "start": {"trigger": "tests.pure.test_definition_apscheduler:OWN"}}
    elsewhere = {"batch": {"command": ["true"]}, "start": {"trigger": "not.here:Odd"}}
    apply(connection, {"workflow": "own", "operators": {"mine": own, "theirs": elsewhere}})
    result = run("calendar", "own", "-o", "json")
    assert {one["operator"] for one in json.loads(result.stdout)} == {"mine"}
    assert (
        "own.theirs: as not.here:Odd says: that cannot be asked here, the clocks know" in run("calendar", "own").stderr
    )


def test_what_was_left_out_by_hand_says_by_whom(run: Any, connection: Connection) -> None:
    assert run("trigger", "skip", "w.hour", "--reason", "holiday").exit_code == 0
    found = connection.execute("SELECT by_whom = session_user, reason FROM pgsig_private.gap").fetchall()
    assert found == [(True, "holiday")]
    assert "LAST_TICK" not in run("trigger", "list", "w.hour").stdout
    assert run("trigger", "fire", "w.hour").exit_code == 0


def test_dry_runs_say_and_do_nothing(run: Any, connection: Connection) -> None:
    would = "would START w.hour by start: recorded: a new run"
    assert run("trigger", "fire", "w.hour", "--dry-run").stdout.startswith(would)
    told = run("act", "w", "start", "--dry-run").stdout.splitlines()
    assert [line.partition(": ")[0] for line in told] == ["would START w.hour", "would START w.night"]
    assert connection.execute("SELECT count(*) FROM pgsig.signals").fetchone() == (0,)


def test_a_backfill_is_planned_begun_listed_and_cancelled(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    span = ("--from", (now - timedelta(hours=5)).isoformat(), "--to", now.isoformat())
    assert len(run("backfill", "start", "w.hour", *span, "--dry-run").stdout.splitlines()) == 5
    number = run("backfill", "start", "w.hour", *span, "--reason", "why not").stdout.strip()
    assert "why not" in run("backfill", "list").stdout
    assert run("backfill", "cancel", number).exit_code == 0
    assert "cancelled" in run("backfill", "follow", number).stdout
    assert run("backfill", "cancel", number).exit_code == 1
    capsys.readouterr()
    for wrong, said in (
        (("soon", "later"), ["PS208 /first: ", "PS208 /last: "]),
        (("2999-01-01", "2999-02-01"), ["PS208 /last: 2999-01-01 00:00:00 UTC is not past"]),
    ):
        assert run("backfill", "start", "w.hour", "--from", wrong[0], "--to", wrong[1]).exit_code == 1
        assert [
            line[: len(start)] for line, start in zip(capsys.readouterr().err.splitlines(), said, strict=True)
        ] == said


def test_validate_warns_of_times_that_a_change_of_clocks_moves(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(WORKFLOW))
    result = run("validate", str(file))
    assert result.exit_code == 0
    assert "note: w.night: every day at 02:30 Europe/Berlin: on " in result.stderr
    assert "the clocks jump over 02:30: due at 03:30" in result.stderr
    assert "w.hour" not in result.stderr


def test_paused_and_resumed_by_command(run: Any, connection: Connection) -> None:
    assert run("trigger", "pause", "w.hour", "--mode", "drop").exit_code == 0
    assert "paused (drop) since" in run("calendar", "w").stderr
    assert run("trigger", "resume", "w.hour").exit_code == 0
    assert connection.execute("SELECT count(*) FROM pgsig.triggers WHERE paused IS NOT NULL").fetchone() == (0,)


SECONDLY = """
from datetime import UTC, datetime, timedelta
from apscheduler.triggers.base import BaseTrigger

class Secondly(BaseTrigger):
    def get_next_fire_time(self, previous, now):
        return datetime.fromtimestamp(int(now.timestamp()) + 1, UTC)
"""


def test_a_clock_finds_triggers_of_ones_own_in_its_folder(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "own_of_test_clock.py").write_text(SECONDLY)
    own = {"batch": {"command": ["true"]}, "start": {"trigger": "own_of_test_clock:Secondly"}}
    apply(connection, {"workflow": "own", "operators": {"o": own}})
    program = [str(Path(sys.executable).with_name("pgsig")), "clock"]
    process = subprocess.Popen(program, cwd=tmp_path, env={**os.environ, "DATABASE_URL": database})
    try:
        wait_for(lambda: connection.execute("SELECT 1 FROM pgsig_private.tick").fetchone())
    finally:
        process.terminate()
        process.wait(10)
