"""Replay: the same definition over the stored log does what was done; another one shows where it would differ; nothing is written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml

from pgsig import cli
from pgsig.definition import parse
from pgsig.errors import InvalidInput
from pgsig.model import Json
from pgsig.replay import Line, Replay
from pgsig.store.database import Connection, connect
from pgsig.store.replaying import Stored, snapshot
from tests.flow.workshop import Workshop
from tests.support import wait_for

Pgsig = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


@pytest.fixture
def pgsig(database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pgsig:
    monkeypatch.setenv("DATABASE_URL", database)

    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.run(argv)
        return code, *capsys.readouterr()

    return run


def workflow(**operators: Json) -> dict[str, Json]:
    whole = {
        n: b if "batch" in b or "streaming" in b else {"batch": {"command": ["true"]}, "start": b}
        for n, b in operators.items()
    }
    return {"workflow": "w", "operators": whole}


def replayed(connection: Connection, document: Json, page: int = 1000) -> list[Line]:
    definition = parse(document)
    with snapshot(connection):
        stored = Stored(connection, definition, page=page)
        span = stored.range()
        assert span is not None
        run = Replay(definition, ask=stored.ask, ask_function=stored.ask_function, alive=stored.alive(span.begins))
        return list(run.lines(stored.pages(span)))


MANY = workflow(
    pair={"all": [{"signal": "a"}, {"signal": "b"}]},
    busy={
        "batch": {"command": ["true"], "on_busy": "skip"},
        "start": {"signal": "a", "where": "$.x > 1"},
        "stop": {"signal": "halt"},
    },
    by={"signal": "b", "count": 2, "by": "$.model"},
    last={"all": [{"signal": "b", "latest": True}, {"signal": "a"}]},
)


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_the_same_definition_does_the_same(shop: Workshop, page: int) -> None:
    shop.apply(**MANY["operators"])
    for n in range(40):
        shop.emit("ab"[n % 3 % 2], {"x": n % 5, "model": f"m{n % 2}"}, ("", "s", "t")[n % 7 % 3])
        if n == 20:
            shop.call("SELECT pgsig.pause('w.pair')")
        if n == 30:
            shop.call("SELECT pgsig.resume('w.pair')")
            shop.emit("halt", None, "s")
        shop.evaluate()
    lines = replayed(shop.connection, MANY, page)
    assert len(lines) > 30
    assert [line for line in lines if line.diff != "same" or line.then is not None] == []


def test_another_definition_shows_where_it_differs(shop: Workshop) -> None:
    shop.apply(op={"signal": "a", "where": "$.x > 5"}, gone={"signal": "b"})
    low, high, other = shop.emit("a", {"x": 3}), shop.emit("a", {"x": 9}), shop.emit("b")
    shop.evaluate()
    lines = replayed(shop.connection, workflow(op={"signal": "a", "where": "$.x > 1"}, new={"signal": "b"}))
    assert [(line.diff, line.signal, line.operator, line.action, line.result) for line in lines] == [
        ("replay", low, "op", "START", "recorded"),
        ("same", high, "op", "START", "recorded"),
        ("replay", other, "new", "START", "recorded"),
        ("history", other, "gone", "START", "recorded"),
    ]


def test_timers_of_the_log_come_where_they_came(shop: Workshop) -> None:
    document = workflow(op={"signal": "a", "debounce": "1s", "max_wait": "1s"})
    shop.apply(**document["operators"])
    first = shop.emit("a")
    shop.evaluate()
    wait_for(lambda: shop.engine.fire_timers() is None, about="the timer")
    shop.evaluate()
    shop.emit("z")
    [line] = replayed(shop.connection, document, page=1)
    assert (line.diff, line.evidence, line.own_timer) == ("same", (first,), False)
    # A shorter wait has no timer in the log: it is told apart.
    mine, theirs = replayed(shop.connection, workflow(op={"signal": "a", "debounce": "500ms"}), page=1)
    assert (mine.diff, mine.signal, mine.own_timer, theirs.diff) == ("replay", first, True, "history")


def test_runs_are_what_the_log_says(shop: Workshop) -> None:
    document = workflow(op={"streaming": {"command": ["true"]}, "start": {"signal": "a"}})
    shop.apply(**document["operators"])
    shop.emit("a")
    shop.evaluate()
    shop.emit("a")
    shop.evaluate()
    shop.call("SELECT pgsig.act('w.op', 'STOP')")
    shop.evaluate()
    shop.emit("a")
    shop.evaluate()
    lines = replayed(shop.connection, document)
    assert [(line.diff, line.result, line.then) for line in lines] == [
        ("same", result, None) for result in ("recorded", "already_running", "recorded", "recorded")
    ]


def test_it_neither_writes_nor_waits_for_a_lane(shop: Workshop, database: str) -> None:
    shop.apply(op={"signal": "a", "count": 2})
    shop.emit("a")
    shop.emit("a")
    shop.evaluate()
    with closing(psycopg.connect(database)) as worker:  # a worker that is in the middle of something
        worker.execute("SELECT pgsig_private.take(1)")
        assert [line.diff for line in replayed(shop.connection, workflow(op={"signal": "a", "count": 2}))] == ["same"]
    assert shop.connection.read_only in (None, False)
    with snapshot(shop.connection), pytest.raises(psycopg.errors.ReadOnlySqlTransaction), shop.connection.transaction():
        shop.connection.execute("UPDATE pgsig_private.lane SET revision = 0")


def test_shadows_are_recorded_and_start_nothing(shop: Workshop) -> None:
    shop.apply(op={"signal": "a", "shadow": True}, real={"signal": "a"})
    position = shop.emit("a", 1, "x")
    shop.evaluate()
    assert sorted(shop.actions()) == [
        ("op", "x", "START", "shadow", [position]),
        ("real", "x", "START", "recorded", [position]),
    ]
    assert shop.connection.execute("SELECT operator FROM pgsig.runs").fetchall() == [("real",)]
    assert shop.outcomes(position) == ["consumed", "consumed"]
    # Replay says the same of it, and what it would be without the word.
    assert [
        line.result for line in replayed(shop.connection, workflow(op={"signal": "a"})) if line.operator == "op"
    ] == ["recorded"]


# ── the command ──


def test_the_command_on_stored_signals(shop: Workshop, pgsig: Pgsig, tmp_path: Path) -> None:
    shop.apply(op={"signal": "a", "where": "$ > 5"})
    low, high = shop.emit("a", 3), shop.emit("a", 9)
    shop.evaluate()
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump(workflow(op={"signal": "a", "where": "$ > 1"})))
    code, out, err = pgsig("replay", str(file), "--since", "1d")
    assert code == 0, err
    assert [line[:1] for line in out.splitlines()] == ["+", " "]
    assert "1 actions the same, 1 only in the replay (+), 0 only in history (-)" in err
    code, out, err = pgsig("replay", str(file), "--from", str(high), "-o", "json")
    told = [json.loads(line) for line in out.splitlines()]
    assert [(line["diff"], line["signal"]) for line in told[:-1]] == [("same", high)]
    assert told[-1]["summary"]["signals"] == 1
    code, out, err = pgsig("replay", str(file), "--to", str(low), "--only-differences")
    assert len(out.splitlines()) == 1
    assert "no signals" in pgsig("replay", str(file), "--from", "999999999")[2]
    for wrong in ([], ["--since", "1d", "--from", "1"], ["--from", "9", "--to", "1"]):
        assert "PS573" in pgsig("replay", str(file), *wrong)[2]
    assert pgsig("replay", str(file), "--since", "soon")[0] == 2


GIVEN = """
workflow: w
operators:
  evaluate: {batch: {command: ["true"]}, start: {signal: model.trained, where: "$.auc > 0.5"}}
  serve: {streaming: {command: ["true"]}, start: {signal: run.w.evaluate.succeeded}}
  quiet: {batch: {command: ["true"]}, start: {signal: model.trained, debounce: 10m}}
"""


def test_given_signals_need_no_database(pgsig: Pgsig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    (tmp_path / "w.yaml").write_text(GIVEN)
    signals = [
        {"key": "model.trained", "value": {"auc": 0.9}, "subject": "m1", "emitted_at": "2026-01-01T00:00:00Z"},
        {"key": "model.trained", "value": {"auc": 0.1}, "subject": "m1", "emitted_at": "2026-01-01T00:01:00Z"},
        {"key": "tick.w.evaluate", "emitted_at": "2026-01-01T00:20:00+00:00"}, {"key": "z", "namespace": "elsewhere"},
    ]  # fmt: skip
    text = "\n".join(map(json.dumps, signals))
    (tmp_path / "s.jsonl").write_text(text)
    code, out, err = pgsig("replay", str(tmp_path / "w.yaml"), "--file", str(tmp_path / "s.jsonl"))
    assert code == 0, err
    assert [line.split()[4:] for line in out.splitlines()] == [
        ["model.trained", "evaluate[m1]", "start", "START", "recorded"],
        ["run.w.evaluate.succeeded", "serve[m1]", "start", "START", "recorded"],
        ["timer.w.quiet", "quiet[m1]", "start", "START", "recorded"],
    ]
    assert "3 signals" in err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, _ = pgsig("replay", str(tmp_path / "w.yaml"), "--file", "-", "--runs", "told", "-o", "json")
    assert (code, [json.loads(line).get("operator") for line in out.splitlines()]) == (0, ["evaluate", "quiet", None])


def test_bad_lines_are_refused_all_at_once(pgsig: Pgsig, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(GIVEN)
    lines = [
        '{"key": "model.trained", "value": {"auc": 1}}',
        "{",
        '{"key": "A b"}',
        '{"keys": 1}',
        "[]",
        '{"key": "a", "emitted_at": "soon"}',
    ]
    (tmp_path / "s.jsonl").write_text("\n\n".join(lines))
    code, out, err = pgsig("replay", str(tmp_path / "w.yaml"), "--file", str(tmp_path / "s.jsonl"))
    assert (code, out) == (1, "")
    for number in (3, 5, 7, 9, 11):
        assert f"s.jsonl:{number}" in err
    assert "5 of 6 lines are bad" in err


def test_a_path_that_postgres_cannot_read_is_refused(shop: Workshop) -> None:
    shop.emit("a")
    with pytest.raises(InvalidInput, match="PS528"):
        replayed(shop.connection, workflow(op={"signal": "a", "where": "$.x >"}))
