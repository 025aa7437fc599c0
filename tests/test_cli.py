"""The command line: what it prints where, its exit codes, and that nobody sees a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgsig import cli
from pgsig.cli import output
from pgsig.cli.look import _Log
from pgsig.cli.output import cell, coloured, harmless
from pgsig.store import reading
from tests.store.bygone import unheard
from tests.support import wait_for

Connection = psycopg.Connection[Any]
Pgsig = Callable[..., tuple[int, str, str]]

WORKFLOW = """
workflow: shop
operators:
  train:
    batch: {command: [sh, -c, "echo trained"]}
    start: {signal: data.ready, where: "$.rows > 10"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in, without anybody's database settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PG") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def pgsig(folder: Path, capsys: pytest.CaptureFixture[str]) -> Pgsig:
    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.run(argv)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture
def here(database: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with a workflow, and DATABASE_URL."""
    (folder / "workflow.yaml").write_text(WORKFLOW)
    monkeypatch.setenv("DATABASE_URL", database)
    return folder


@contextlib.contextmanager
def program(*argv: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`pgsig` in a process of its own, which does not outlive the block."""
    path = str(Path(cli.__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    with subprocess.Popen(
        [sys.executable, "-m", "pgsig", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# ── usage ──


def test_help_names_every_command_and_imports_none(pgsig: Pgsig) -> None:
    code, out, _ = pgsig("--help")
    assert code == 0
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    heavy = "('psycopg', 'sqlalchemy', 'flask', 'apscheduler', 'yaml', 'alembic')"
    code_text = f"import sys; from pgsig import cli; cli.run(['--help']); sys.exit([m for m in {heavy} if m in sys.modules] or 0)"
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code_text], check=True, capture_output=True, env=env)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(pgsig: Pgsig, name: str) -> None:
    code, out, _ = pgsig(name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: pgsig {name}")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["emitt"], "Did you mean emit?"),
        (["ps", "--wach"], "--watch"),
        (["emit"], "Missing argument 'KEY'"),
        (["act", "w.o", "begin"], "'begin' is not one of"),
        (["act", "w.o", "start", "--params", "[1]"], "JSON object"),
        (["ps", "--database-url", "postgresql://me:hunter2@db/x"], "DATABASE_URL"),
        (["ps", "--database-url", "host=db password=hunter2"], ".pgpass"),
        (["ps", "--database-url", "::hunter2"], "not an address"),
        (["runs", "--state", "done"], "not a state"),
        (["logs", "x"], "give the number of a run, or workflow.operator"),
    ],
)
def test_wrong_usage_ends_with_2(pgsig: Pgsig, argv: list[str], said: str) -> None:
    code, out, err = pgsig(*argv)
    assert (code, out) == (2, "")
    assert said in err
    assert "hunter2" not in err


def test_a_database_that_cannot_be_reached_ends_with_75(pgsig: Pgsig) -> None:
    for argv in (["ps"], ["emit", "a.b"], ["doctor"], ["migrate"], ["tail"]):
        code, out, err = pgsig(*argv, "--database-url", "postgresql://nobody@127.0.0.1:1/none")
        assert (code, out) == (75, "")
        assert err.startswith("PS010 ")


# ── definitions ──


def test_from_nothing_to_a_workflow_in_force(pgsig: Pgsig, here: Path) -> None:
    assert pgsig("validate", "workflow.yaml", "--database")[:2] == (0, "shop: ok, 1 operators, 1 rules\n")
    code, out, _ = pgsig("plan", "workflow.yaml")
    assert code == 0
    assert out.splitlines()[:3] == [
        "workflow shop: new", "  + train (batch)",
        '      + start: {"signal": "data.ready", "where": "$.rows > 10"}',
    ]  # fmt: skip
    assert pgsig("ps")[1:] == ("", "no operators: pgsig apply workflow.yaml\n")
    assert pgsig("apply", "workflow.yaml", "--dry-run")[1] == out
    assert pgsig("apply", "workflow.yaml")[1].endswith("shop: version 1 is in force\n")
    assert pgsig("apply", "workflow.yaml")[1] == "shop: nothing changed, version 1 stays\n"
    code, out, _ = pgsig("ps")
    assert out.split() == [
        *("OPERATOR", "KIND", "DESIRED", "OBSERVED", "GENERATION"),
        *("shop.train", "batch", "stopped", "never_run", "0"),
    ]
    assert json.loads(pgsig("ps", "-o", "json")[1])[0]["operator"] == "train"
    assert json.loads(pgsig("plan", "workflow.yaml", "-o", "json")[1])["same"] is True


def test_every_mistake_of_every_file_is_named(pgsig: Pgsig, here: Path) -> None:
    (here / "bad.yaml").write_text(WORKFLOW.replace("batch", "bach").replace("signal", "signl"))
    (here / "worse.yaml").write_text("on: [")
    code, out, err = pgsig("validate", "bad.yaml", "worse.yaml", "workflow.yaml")
    assert (code, out) == (1, "")
    assert [line.split()[0] for line in err.splitlines()] == ["PS522", "PS523", "PS501", "PS520"]
    assert "bad.yaml:5 /operators/train/bach" in err
    code, out, _ = pgsig("validate", "bad.yaml", "-o", "json")
    assert code == 1
    assert [problem["code"] for problem in json.loads(out)["errors"]] == ["PS522", "PS523", "PS501"]
    (here / "path.yaml").write_text(WORKFLOW.replace("$.rows > 10", "$ ? (@.rows > 10)"))
    code, _, err = pgsig("apply", "path.yaml")
    assert code == 1
    assert "write the predicate alone" in err
    assert pgsig("ps")[1] == ""


def test_a_missing_file_ends_with_66(pgsig: Pgsig, here: Path) -> None:
    for argv in (["validate", "nope.yaml"], ["plan", "nope"], ["apply", str(here)], ["dev", "nope.yaml"]):
        code, out, err = pgsig(*argv)
        assert (code, out) == (66, "")
        assert err.startswith("PS520 ")


def test_a_workflow_in_python_is_applied_by_its_name(pgsig: Pgsig, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "jobs_of_test_cli.py").write_text(
        "from pgsig import Workflow, signal\nwf = Workflow('py')\n@wf.batch(start=signal('a.b'))\ndef job(): ...\n"
    )
    monkeypatch.syspath_prepend(str(here))
    assert pgsig("apply", "jobs_of_test_cli:wf")[0] == 0
    assert "py.job" in pgsig("ps")[1]
    for name, said in (("jobs_of_test_cli:job", "is not a Workflow"), ("no_such_module:wf", "cannot be imported")):
        code, _, err = pgsig("apply", name)
        assert code == 1
        assert said in err


def test_what_a_workflow_in_python_declares_wrong_is_said_as_such(
    pgsig: Pgsig, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "own_of_test_cli.py").write_text(
        "from pgsig import Workflow\nfrom tests.pure.test_definition_apscheduler import OWN\n"
        "wf = Workflow('py')\nwf.batch('job', command=['true'], start=OWN)\n"
    )
    monkeypatch.syspath_prepend(str(here))
    code, _, err = pgsig("validate", "own_of_test_cli:wf")
    assert code == 1
    assert err.startswith("PS516 EveryThirdHour is not a trigger of APScheduler itself")


def test_a_time_that_is_past_is_pointed_out(pgsig: Pgsig, here: Path) -> None:
    (here / "at.yaml").write_text(
        "workflow: w\noperators: {a: {batch: {command: [x]}, start: {at: 2020-01-01T00:00:00}}}"
    )
    assert "2020-01-01T00:00:00 UTC is past, it will not come" in pgsig("plan", "at.yaml")[2]


@pytest.mark.parametrize("kind", ["ml", "blank"])
def test_init_writes_an_example_that_is_valid_and_overwrites_nothing(pgsig: Pgsig, here: Path, kind: str) -> None:
    code, out, _ = pgsig("init", "new", "--template", kind)
    assert code == 0
    assert {Path(line).name for line in out.splitlines()} >= {"workflow.yaml", "README.md"}
    assert pgsig("validate", "new/workflow.yaml", "--database")[0] == 0
    for file in (here / "new").glob("*.py"):
        compile(file.read_text(), str(file), "exec")
    before = {path: path.read_text() for path in (here / "new").iterdir()}
    code, out, err = pgsig("init", "new", "--template", kind)
    assert (code, out) == (1, "")
    assert "has README.md" in err
    assert {path: path.read_text() for path in (here / "new").iterdir()} == before


# ── signals, by hand ──


def test_emit_and_tail(pgsig: Pgsig, here: Path) -> None:
    code, out, _ = pgsig("emit", "data.ready", '{"rows": 3}', "--subject", "eu", "--event-id", "1")
    assert (code, int(out) > 0) == (0, True)
    assert pgsig("emit", "data.ready", '{"rows": 3}', "--subject", "eu", "--event-id", "1")[1] == out
    pgsig("emit", "other.key")
    lines = [json.loads(line) for line in pgsig("tail", "data.*", "--no-follow", "-o", "json")[1].splitlines()]
    assert [(line["key"], line["subject"], line["value"]) for line in lines] == [("data.ready", "eu", {"rows": 3})]
    code, _, err = pgsig("emit", "Data*", "1")
    assert (code, err.split()[0]) == (1, "PS101")
    code, _, err = pgsig("emit", "data.ready", "passed")
    assert code == 1
    assert "a text needs its own quotes" in err
    code, _, err = pgsig("emit", "data.ready", '{"rows": 4}', "--subject", "eu", "--event-id", "1")
    assert (code, err.split()[0]) == (1, "PS109")


def test_act_and_why(pgsig: Pgsig, here: Path) -> None:
    pgsig("apply", "workflow.yaml")
    assert pgsig("act", "shop.train", "START", "--params", '{"n": 1}', "--reason", "by hand", "--no-wait")[0] == 0
    assert "manual.shop.train" in pgsig("tail", "manual.**", "--no-follow")[1]
    assert pgsig("why", "shop.train")[1].startswith("shop.train: wanted stopped")
    for argv in (["act", "shop.trian", "start"], ["why", "shop.trian"], ["logs", "7"]):
        code, _, err = pgsig(*argv)
        assert code == 1
        assert err.startswith("PS2")
    assert pgsig("runs")[2] == "no runs yet\n"


def test_values_cannot_steer_the_terminal(pgsig: Pgsig, here: Path) -> None:
    pgsig("emit", "a.b", json.dumps("\x1b[2J\u202egnp.exe"), "--subject", "\x1b]0;owned\x07")
    _, out, _ = pgsig("tail", "--no-follow")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out
    assert "\\x1b]0;owned\\x07" in out
    assert harmless("a\tb\n\x9b1m\u200b") == "a\\tb\\n\\x9b1m\\u200b"
    assert harmless("a\tb\n\x1b", lines=True) == "a\tb\n\\x1b"
    assert cell("x" * 100, 10) == "x" * 9 + "…"


def test_a_log_may_colour_a_terminal_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "\x1b[1;31mred\n\x1b[38;5;8mgrey\x1b[m\x1b[8mhidden\x1b]0;owned\x07\x9b2J\x1b[2J"
    shown = _Log()
    shown.write(log)
    assert capsys.readouterr().out == log  # not a terminal: as it is
    shown.end_line()
    shown.end_line()
    assert capsys.readouterr().out == "\n"
    monkeypatch.setattr(output, "colourful", lambda: True)
    hidden = "\\x1b[8mhidden\\x1b]0;owned\\x07\\x9b2J\\x1b[2J"
    assert coloured(log) == f"\x1b[1;31mred\x1b[0m\n\x1b[38;5;8mgrey\x1b[m{hidden}\x1b[0m"
    monkeypatch.setattr(output, "colourful", lambda: False)
    assert coloured(log) == f"red\ngrey{hidden}"


def test_tail_follows(here: Path, connection: Connection) -> None:
    with program("tail", "late.*", "-o", "json") as process:
        assert process.stdout is not None
        listening = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsig tool' AND state LIKE 'idle%'"
        wait_for(lambda: connection.execute(listening).fetchone() == (1,))
        with connection.transaction():
            connection.execute("SELECT pgsig.emit('late.one'), pgsig.emit('other.two')")
        assert json.loads(process.stdout.readline())["key"] == "late.one"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (130, "")


def test_tail_says_when_it_was_away_for_too_long(
    pgsig: Pgsig, here: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = reading.Cursor(unheard(connection, "a.b"))
    monkeypatch.setattr(reading, "here", lambda _: cursor)
    code, _, err = pgsig("tail")
    assert (code, err) == (
        1,
        "PS409 signals that came after this cursor were dropped, as they were past retention_days (start it again)\n",
    )


def test_a_closed_pipe_is_silent(here: Path) -> None:
    for name in ("a.b", "a.c"):
        assert cli.run(["emit", name]) == 0
    with program("tail") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert cli.run(["emit", "a.d"]) == 0
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_pause_resume_and_why_of_a_signal(pgsig: Pgsig, here: Path) -> None:
    pgsig("migrate")
    pgsig("apply", "workflow.yaml")
    assert pgsig("pause", "shop.train", "--mode", "collapse", "--reason", "night")[0] == 0
    assert pgsig("resume", "shop", "-o", "json")[1].startswith('{"id": ')
    code, _, err = pgsig("pause", "shop.trian")
    assert (code, err.split()[0]) == (1, "PS201")
    position = pgsig("emit", "data.redy")[1].strip()
    code, out, _ = pgsig("why", "--signal", position)
    assert out.splitlines()[1:] == ["  no rule is interested in this key", "  did you mean data.ready?"]
    assert pgsig("why")[0] == 2
    assert pgsig("why", "shop.train", "--signal", "1")[0] == 2
    assert pgsig("why", "--signal", "999999")[0] == 1
