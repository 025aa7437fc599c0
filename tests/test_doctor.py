"""`pgsig doctor` and `pgsig migrate`: what is wrong is found, named, and has a way out."""

from __future__ import annotations

import json
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


def test_a_database_without_the_schema_says_what_to_do(
    pgsig: Pgsig,
    connection: Connection,
) -> None:
    connection.execute("DROP SCHEMA pgsig CASCADE; DROP SCHEMA pgsig_private CASCADE")
    for argv in (["ps"], ["emit", "a.b"], ["plan", "workflow.yaml"], ["runs"]):
        code, _, err = pgsig(*argv)
        assert code == 1
        assert "run: pgsig migrate" in err
