"""Orders by hand: whoever gives them they go one way, converge when they race, and say what they came to."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from pgsig import cli
from pgsig.client import Client
from pgsig.model import Json
from pgsig.store import doors, jobs
from pgsig.store.database import Connection
from tests import support_jobs as do
from tests.flow.hands import Hands
from tests.webapp import serving

PATH = "/operators/w/serve"


@pytest.fixture
def hands(connection: Connection, database: str) -> Iterator[Hands]:
    with psycopg.connect(database, autocommit=True) as other:
        yield Hands(connection, other)


@pytest.fixture
def client(database: str) -> Iterator[FlaskClient]:
    with serving(database) as found:
        yield found


@contextlib.contextmanager
def evaluated(hands: Hands) -> Iterator[None]:
    """A worker, as long as the block."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            hands.engine.step()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def service(**spec: Json) -> Json:
    return {
        "streaming": {"command": ["x"], **spec},
        **{action: {"signal": f"do.{action}"} for action in ("start", "stop", "restart", "reload")},
    }


def told(hands: Hands, operator: str, action: str) -> str:
    position = hands.call("SELECT pgsig.act(%s, %s)", operator, action)
    assert doors.effects(hands.connection, position) == []
    hands.evaluate()
    (effect,) = doors.effects(hands.connection, position)
    runs = [row[0] for row in hands.connection.execute("SELECT id FROM pgsig_private.run ORDER BY id")]
    # Numbers are reserved generously: here the runs are counted as there are.
    return re.sub(r"run (\d+)", lambda found: f"run {runs.index(int(found[1])) + 1}", str(effect["text"]))


def test_what_an_order_came_to_is_said_in_words(hands: Hands) -> None:
    batch = {"command": ["x"]}
    hands.apply(
        serve=service(), three=service(replicas=3), q={"batch": {**batch, "queue_limit": 1}}, skip={"batch": {**batch, "on_busy": "skip"}},
        merge={"batch": {**batch, "on_busy": "merge"}}, far={"batch": {**batch, "pool": "far"}},
    )  # fmt: skip

    def begins(operator: str) -> str:
        text = told(hands, operator, "START")
        hands.work()
        return text

    assert begins("w.serve") == "recorded: run 1"
    assert told(hands, "w.serve", "START") == "already_running: run 1"
    assert told(hands, "w.serve", "RELOAD") == "recorded: run 1 is asked to reload"
    assert told(hands, "w.serve", "RESTART") == "recorded: run 2"
    assert told(hands, "w.serve", "STOP") == "recorded: what lives is asked to end"
    hands.work()
    assert told(hands, "w.serve", "STOP") == "already_stopped: nothing lives"
    assert told(hands, "w.serve", "RELOAD") == "not_running: nothing lives that could reload"
    assert begins("w.three") == "recorded: run 3 and 2 beside it"
    assert begins("w.q") == "recorded: run 6"
    assert told(hands, "w.q", "START") == "queued behind run 6 (running): run 7"
    assert told(hands, "w.q", "START") == "skipped: its queue is full, run 6 is running"
    assert begins("w.skip") == "recorded: run 8"
    assert told(hands, "w.skip", "START") == "skipped: run 8 (running) is not over"
    assert begins("w.merge") == "recorded: run 9"
    assert told(hands, "w.merge", "START") == "queued behind run 9 (running): run 10"
    assert told(hands, "w.merge", "START") == "merged: run 10, which waits"
    assert told(hands, "w.far", "START") == "recorded: run 11; it is queued, and no living runner serves the pool far"


def fail_reloads(hands: Hands) -> None:
    """The runner says of all reloads that it was told of that they have failed."""
    for _, epoch, stop, reload, _ in hands.connection.execute(
        "SELECT * FROM pgsig_private.orders(%s)", [hands.runner]
    ).fetchall():
        assert stop or hands.call("SELECT pgsig_private.report_reload(%s, %s, 'failed', 'no')", reload, epoch) == "ok"


def test_a_reload_that_fails_restarts_its_run_once_and_never_what_is_stopped(hands: Hands) -> None:
    hands.apply(serve=service(), three=service(replicas=3))
    hands.send("do.start")

    hands.emit("do.reload")
    hands.evaluate()
    hands.emit("do.stop", subject="")  # before anybody knows that the reload fails, and evaluated after it
    fail_reloads(hands)
    hands.work()
    assert set(hands.states("w.serve") + hands.states("w.three")) == {"stopped"}
    words = [row[2:4] for row in hands.actions() if row[2] == "RESTART"]
    assert words == [("RESTART", "not_running")] * 4

    hands.send("do.start")
    hands.emit("do.reload")
    hands.evaluate()
    (failing,) = (row for row in hands.connection.execute(
        "SELECT * FROM pgsig_private.orders(%s)", [hands.runner]).fetchall() if row[0] == hands.live["w.serve"][0]["id"]
    )  # fmt: skip
    hands.emit("do.stop")
    hands.evaluate()  # it is asked to end, and its handler gives up meanwhile
    assert hands.call("SELECT pgsig_private.report_reload(%s, %s, 'failed', 'no')", failing[3], failing[1]) == "ok"
    hands.work()
    assert set(hands.states("w.serve")) == {"stopped"}

    hands.send("do.start")
    hands.emit("do.reload")
    hands.evaluate()
    before = len(hands.states("w.three"))
    fail_reloads(hands)
    hands.work()
    assert hands.states("w.three")[before - 3 :] == ["stopped"] * 3 + ["running"] * 3
    assert hands.states("w.serve")[-2:] == ["stopped", "running"]


def test_a_run_begins_with_what_the_one_before_failed_to_reload_with(hands: Hands) -> None:
    hands.apply(serve=service(params_from={"model": "$.id"}))
    hands.send("do.start", {"id": "old"})
    reload = hands.emit("do.reload", {"id": "new"})
    hands.evaluate()
    fail_reloads(hands)
    hands.work()
    params, evidence = hands.connection.execute(
        "SELECT params, evidence FROM pgsig.runs WHERE state = 'running'"
    ).fetchone() or (None, [])
    assert (params, evidence[0], len(evidence)) == ({"model": "new"}, reload, 2)


def test_a_reload_ends_with_what_it_was_for(hands: Hands) -> None:
    """Also where no runner ever had it."""
    hands.apply(serve=service())
    for action in ("START", "RELOAD", "STOP"):
        hands.call("SELECT pgsig.act('w.serve', %s)", action)
        hands.evaluate()
    assert hands.states("w.serve") == ["stopped"]
    found = hands.connection.execute("SELECT state, reason, ended_at IS NOT NULL FROM pgsig_private.reload").fetchall()
    assert found == [("failed", "the run ended", True)]


def test_starts_that_are_merged_bring_their_parameters(hands: Hands) -> None:
    hands.apply(op={"batch": {"command": ["x"], "on_busy": "merge", "params": {"own": 1}}})
    for given in ({}, {"a": 1}, {"a": 2, "b": 1}, {"b": None, "c": [3]}):
        hands.call("SELECT pgsig.act('w.op', 'START', params => %s::jsonb)", json.dumps(given))
        if not given:
            hands.work()
    hands.evaluate()
    merged = hands.call("SELECT params FROM pgsig_private.run WHERE state = 'queued'")
    assert merged == {"own": 1, "a": 2, "b": None, "c": [3]}


def test_a_limit_may_be_by_what_only_the_signals_tell(hands: Hands) -> None:
    limit = {"key": "model {params.model} of {subject}", "max": 1}
    train = {"command": ["x"], "on_busy": "parallel(9)", "params_from": {"model": "$.id"}, "concurrency": limit}
    hands.apply(train={"batch": train, "start": {"signal": "go"}})
    for value in ({"id": "a"}, {"id": "a"}, {"id": 7}, {}, {"id": "{params.model}"}):
        hands.send("go", value, None)
    rows = "SELECT state, limit_key, params FROM pgsig.runs ORDER BY id"
    assert hands.connection.execute(rows).fetchall() == [
        ("running", "default/model a of ", {"model": "a"}), ("queued", "default/model a of ", {}),
        ("running", "default/model 7 of ", {"model": 7}), ("running", "default/model  of ", {}),
        ("running", "default/model {params.model} of ", {"model": "{params.model}"}),
    ]  # fmt: skip
    hands.end("w.train")
    assert hands.states("w.train") == ["succeeded", *["running"] * 4]


def doors_of(database: str, client: FlaskClient, action: str) -> list[Callable[[], object]]:
    """Everybody who can give an order."""
    page = client.application.test_client()
    found = re.search(r'name="csrf" value="([^"]+)"', page.get(PATH).text)
    assert found is not None
    form = {"csrf": found[1], "action": action}

    def sql(text: str) -> None:
        with psycopg.connect(database, autocommit=True) as own:
            own.execute(text.encode())

    def python() -> None:
        with Client(database, size=1) as own:
            own.act("w.serve", action)

    return [
        lambda: sql(f"SELECT pgsig.act('w.serve', '{action}')"),
        lambda: sql(f"SELECT pgsig.emit('do.{action.lower()}')"),
        python,
        lambda: cli.run(["act", "w.serve", action, "--no-wait"]),
        lambda: client.application.test_client().post("/api/v1/operators/w.serve/actions", json={"action": action}),
        lambda: page.post(f"{PATH}/act", data=form),
    ]


def test_orders_from_everywhere_are_one_path_and_converge(
    hands: Hands, client: FlaskClient, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    hands.apply(serve=service())

    def race(action: str) -> list[str]:
        before = len(hands.actions())
        callers = [threading.Thread(target=order) for order in doors_of(database, client, action)]
        with evaluated(hands):
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
        hands.evaluate()
        return sorted(f"{done} {result}" for _, _, done, result, _ in hands.actions()[before:])

    assert race("START") == [*["START already_running"] * 5, "START recorded"]
    hands.work()
    assert hands.began == ["w.serve"]
    assert race("RELOAD") == ["RELOAD recorded"] * 6
    # Each RESTART replaces what the one before has only just ordered: one run is left in the end.
    assert race("RESTART") == ["RESTART recorded"] * 6
    hands.work()
    assert hands.call("SELECT count(*) FROM pgsig_private.run WHERE ended_at IS NULL") == 1
    assert race("STOP") == [*["STOP already_stopped"] * 5, "STOP recorded"]
    hands.work()
    assert hands.call("SELECT count(*) FROM pgsig_private.run WHERE ended_at IS NULL") == 0
    assert hands.call("SELECT observed FROM pgsig.operators") == "stopped"


def test_the_api_waits_if_it_is_asked_to(hands: Hands, client: FlaskClient) -> None:
    hands.apply(serve=service())
    url = "/api/v1/operators/w.serve/actions"
    with evaluated(hands):
        answer = client.post(f"{url}?wait=30", json={"action": "START"})
    assert answer.status_code == 200
    assert answer.json is not None
    assert [(one["result"], one["run_id"], one["text"]) for one in answer.json["actions"]] == [
        ("recorded", 1, "recorded: run 1")
    ]
    nobody = client.post(f"{url}?wait=1", json={"action": "START"})
    assert (nobody.status_code, nobody.json and nobody.json["actions"]) == (202, [])
    assert client.post(f"{url}?wait=long", json={"action": "START"}).status_code == 422


def test_the_command_and_the_page_say_what_came_of_it(
    hands: Hands,
    client: FlaskClient,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    hands.apply(serve=service())
    with evaluated(hands):
        assert cli.run(["act", "w.serve", "start"]) == 0
        assert capsys.readouterr().out == "recorded: run 1\n"
        assert cli.run(["act", "w.serve", "start", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["actions"][0]["text"] == "already_running: run 1"
        position = hands.call("SELECT pgsig.act('w.serve', 'STOP')")
        doors.wait_for_effects(lambda: doors.effects(hands.connection, position), 30, threading.Event().wait)
    assert "what lives is asked to end" in client.get(f"{PATH}?told={position}").text
    assert "what lives is asked to end" in client.get(f"{PATH}?told={position}&part=operator_told").text
    late = hands.call("SELECT pgsig.act('w.serve', 'STOP')")
    assert "what came of it stands here then" in client.get(f"{PATH}?told={late}").text


def test_why_a_run_is_not_claimed(hands: Hands, database: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    spec = {"command": ["x"], "concurrency": {"key": "tenant {subject}", "max": 1}, "on_busy": "parallel(9)"}
    hands.apply(
        keyed={"batch": spec}, other={"batch": spec}, gpu={"batch": {"command": ["x"], "labels": ["gpu", "big"]}},
        far={"batch": {"command": ["x"], "pool": "far"}},
    )  # fmt: skip

    def why(operator: str, subject: str = "") -> str:
        hands.call("SELECT pgsig.act(%s, 'START', %s)", operator, subject)
        hands.evaluate()
        jobs.claim(hands.connection, hands.runner, ["default"], 9)
        return str(hands.call("SELECT pgsig.why(%s, %s)", operator, subject)).splitlines()[1].strip()

    assert "by_hand" in why("w.keyed", "eu")
    assert why("w.other", "eu") == 'queued: run 2 waits for its concurrency key "tenant eu": 1 of 1 are alive'
    assert (
        why("w.gpu") == "no_runner: run 3 is queued, and no living runner of the pool default has the labels big, gpu"
    )
    assert why("w.far") == "no_runner: run 4 is queued, and no living runner serves the pool far"
    assert cli.run(["pools", "default", "--limit", "1"]) == 0
    assert "1" in capsys.readouterr().out.splitlines()[1].split()
    assert why("w.keyed", "us") == "queued: run 5 waits for the limit of the pool default: 1 of 1 are alive"

    hands.call("SELECT pgsig.limit_pool('default', NULL)")
    hands.connection.execute("UPDATE pgsig_private.process SET capacity = 1 WHERE id = %s", [hands.runner])
    full = "run 5 waits for a runner with room: 1 of 1 are alive on those that may have it"
    assert str(hands.call("SELECT pgsig.why('w.keyed', 'us')")).splitlines()[1].strip() == f"queued: {full}"
    position = hands.call("SELECT pgsig.act('w.keyed', 'START', 'asia')")
    hands.evaluate()
    (effect,) = doors.effects(hands.connection, position)
    assert effect["text"] == f"recorded: run 6; it {full.removeprefix('run 5 ')}"
    hands.call("SELECT pgsig.act('w.keyed', 'STOP', 'asia')")
    hands.evaluate()
    hands.connection.execute("UPDATE pgsig_private.process SET capacity = 1000 WHERE id = %s", [hands.runner])
    hands.call("SELECT pgsig.limit_pool('default', 1)")

    assert cli.run(["pools", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "default", "limit": 1, "alive": 1, "queued": 3, "blocked": 1, "runners": 1, "capacity": 1000},
        {"name": "far", "limit": None, "alive": 0, "queued": 1, "blocked": 0, "runners": 0, "capacity": 0},
    ]
    assert cli.run(["pools", "default", "--limit", "none"]) == 0
    assert "none" in capsys.readouterr().out
    assert cli.run(["pools", "Bad!", "--limit", "1"]) == 1
    assert capsys.readouterr().err.startswith("PS206")
    assert cli.run(["pools", "--limit", "1"]) == cli.run(["pools", "default", "--limit", "-1"]) == 2
    with serving(database) as client:
        assert "for a key" in client.get("/processes").text
        assert "at most 1 of" in client.get("/runs/2").text
    row = hands.connection.execute(
        "SELECT labels, limit_key, blocked, failures FROM pgsig.runs WHERE id IN (2, 3) ORDER BY id"
    ).fetchall()
    assert row == [([], "default/tenant eu", True, 0), (["big", "gpu"], None, False, 0)]
    assert do.run_row(hands.connection, 2)["state"] == "queued"
