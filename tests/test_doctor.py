"""`pgsig doctor` and `pgsig migrate`: what is wrong is found, named, and has a way out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgsig import cli

Connection = psycopg.Connection[Any]
Pgsig = Callable[..., tuple[int, str, str]]
WORKFLOW = "workflow: w\noperators: {a: {batch: {command: [x]}, start: {signal: a.b}}}\n"


@pytest.fixture
def pgsig(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pgsig:
    """Run a command in a folder with a workflow, on the test's database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)

    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.run(argv)
        return code, *capsys.readouterr()

    return run


def test_doctor_finds_what_is_wrong(pgsig: Pgsig, connection: Connection) -> None:
    code, out, _ = pgsig("doctor", "-o", "json")
    found = {finding["check"]: finding for finding in json.loads(out)}
    assert code == 0
    assert {name for name, finding in found.items() if finding["state"] == "problem"} == set()
    assert {
        "server",
        "clock",
        "notifications",
        "schema",
        "functions",
        "partitions",
        "workers",
        "lag",
        "queue",
        "horizon",
        "vacuum",
        "storage",
        "pools",
        "roles",
    } <= set(found)
    pgsig("apply", "workflow.yaml")
    connection.execute("UPDATE pgsig_private.setting SET value = '\"other\"' WHERE name = 'sql_digest'")
    code, out, _ = pgsig("doctor")
    assert code == 1
    assert "✗ functions" in out
    assert "→ run: pgsig migrate" in out
    assert "✗ workers" in out
    assert pgsig("migrate")[1].endswith(", functions and views re-applied\n")
    connection.execute("UPDATE pgsig_private.schema_version SET version_num = '9999'")
    code, out, _ = pgsig("doctor")
    assert code == 1
    assert "✗ schema" in out
    code, _, err = pgsig("migrate")
    assert (code, err.split()[0]) == (1, "PS021")


def test_doctor_shows_what_grows_when_all_is_well(pgsig: Pgsig, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO pgsig_private.process (role, name, host, pid, version, started_at, ended_at, lease_until)"
        " SELECT 'web', 'w', 'h', 1, '0', t, t, t FROM (SELECT now() - interval '5 days') v(t)"
    )
    connection.execute("SELECT pgsig.emit('a.b') FROM generate_series(1, 1500)")
    connection.execute("UPDATE pgsig_private.setting SET value = 'null' WHERE name = 'run_days'")
    connection.execute("SELECT pg_stat_force_next_flush()")
    code, out, _ = pgsig("doctor", "-o", "json")
    found = {finding["check"]: finding for finding in json.loads(out)}
    assert code == 0
    assert found["queue"]["detail"].endswith("% of the notification queue is in use")
    assert found["horizon"]["detail"].startswith("nothing keeps dead rows")
    assert "dead rows in" in found["vacuum"]["detail"]
    assert found["storage"]["detail"].endswith("the oldest row, in process, is 5 d old")
    tables = {table["name"]: table for table in found["storage"]["tables"]}
    assert set(tables) >= {"signals", "outcome", "action", "run", "log", "reload", "tick", "event", "process"}
    signals = tables["signals"]
    assert (signals["parts"], signals["rows"], signals["dead"], signals["days"]) == (3, 1500, 0, 28)
    assert signals["bytes"] > 0
    assert signals["index_bytes"] > 0
    assert signals["oldest_at"]
    assert (tables["run"]["oldest_at"], tables["run"]["days"], tables["run"]["goes_after"]) == (None, None, "never")
    code, out, _ = pgsig("doctor")
    assert code == 0
    lines = out.splitlines()
    for check in ("queue", "horizon", "vacuum", "storage"):
        assert [line.split()[0] for line in lines if line[2:].startswith(f"{check} ")] == ["✓"], check
    head = next(line for line in lines if line.startswith("TABLE"))
    assert " ".join(head.split()) == "TABLE ROWS DEAD SIZE INDEXES OLDEST ROW GOES AFTER VACUUMED"
    row = {line.split()[0]: line for line in lines[lines.index(head) + 1 :]}
    assert re.fullmatch(r"signals +1,500 +0 +[\d.]+ kB +[\d.]+ kB  (now|\d+s ago) +28 d( .*)?", row["signals"])
    assert re.fullmatch(r"process +\d +0 +\S+ k?B +\S+ kB  5d ago +7 d( .*)?", row["process"])
    assert row["run"].endswith(" never")
    ends = {len(re.match(rf"{word} +(?:\S+ +){{2}}\S+ k?B", line)[0]) for word, line in row.items()}  # type: ignore[index]
    assert len(ends) == 1  # numbers stand under each other


def test_a_database_without_the_schema_says_what_to_do(
    pgsig: Pgsig,
    connection: Connection,
) -> None:
    connection.execute("DROP SCHEMA pgsig CASCADE; DROP SCHEMA pgsig_private CASCADE")
    for argv in (["ps"], ["emit", "a.b"], ["plan", "workflow.yaml"], ["runs"]):
        code, _, err = pgsig(*argv)
        assert code == 1
        assert "run: pgsig migrate" in err
