"""Lists with filters and cursors, single rows, orders by hand."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from tests.webapp import define, emit, start, write_log

Connection = psycopg.Connection[Any]


def get(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json  # type: ignore[assignment]
    return document


@pytest.fixture
def some(connection: Connection) -> list[int]:
    keys = ["a.one", "a.two", "b.one", "a.one.deep", "a"]
    return [
        emit(connection, keys[i % 5], i, subject=f"s{i % 3}", source="even" if i % 2 == 0 else "odd") for i in range(50)
    ]


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("", lambda i: True), ("key=a.one", lambda i: i % 5 == 0), ("key=a.*", lambda i: i % 5 in (0, 1)),
        ("key=a.**", lambda i: i % 5 != 2), ("key=*.one", lambda i: i % 5 in (0, 2)), ("subject=s1", lambda i: i % 3 == 1),
        ("source=odd&key=a", lambda i: i % 2 == 1 and i % 5 == 4), ("namespace=other", lambda i: False), ("key=**", lambda i: True),
    ],
)  # fmt: skip
def test_a_list_walked_by_its_links_is_complete(client: FlaskClient, some: list[int], query: str, fits: Any) -> None:
    path: str | None = f"/api/v1/signals?limit=7&{query}"
    found: list[int] = []
    while path:
        answer = client.get(path)
        assert answer.json is not None
        found += [item["id"] for item in answer.json["signals"]]
        assert "total" not in answer.json
        link = answer.headers.get("Link")
        assert (link is None) == (answer.json["next"] is None)
        path = link[1:].split(">")[0] if link else None
    assert found == [id for i, id in reversed(list(enumerate(some))) if fits(i)]


def test_after_goes_forwards(client: FlaskClient, some: list[int]) -> None:
    newest = get(client, "/api/v1/signals?limit=40")
    forwards = get(client, f"/api/v1/signals?after={newest['next']}&limit=10")
    assert [item["id"] for item in forwards["signals"]] == some[11:21]
    for query in ("", "&key=a.**"):
        assert get(client, f"/api/v1/signals?after={newest['newest']}{query}")["signals"] == []


@pytest.mark.parametrize("budget", [0.0, 600.0])  # one window a page; windows that grow
def test_windows_do_not_lose_rows(
    client: FlaskClient, some: list[int], monkeypatch: pytest.MonkeyPatch, budget: float
) -> None:
    monkeypatch.setattr("pgsig.store.reading.WINDOW", 4)
    monkeypatch.setattr("pgsig.store.reading.BUDGET", budget)
    for side, want in (("", some[::-1]), ("after=cDE6MA&", some)):
        path: str | None = f"/api/v1/signals?{side}limit=3&key=a.one"
        found: list[int] = []
        while path:
            answer = client.get(path)
            assert answer.json is not None, path
            found += [item["id"] for item in answer.json["signals"]]
            link = answer.headers.get("Link")
            path = link[1:].split(">")[0] if link else None
        assert found == [id for id in want if some.index(id) % 5 == 0]


def test_a_page_of_large_values_is_cut_and_goes_on(client: FlaskClient, connection: Connection) -> None:
    ids = [emit(connection, "big", "x" * 250_000) for _ in range(20)]
    for query in ("limit=100", "limit=100&key=big", "limit=100&key=b*g.**".replace("b*g.**", "big.**")):
        first = client.get(f"/api/v1/signals?{query}")
        assert first.json is not None
        assert 10 <= len(first.json["signals"]) < 20
        link = first.headers["Link"][1:].split(">")[0]
        rest = get(client, link)
        assert [item["id"] for item in [*first.json["signals"], *rest["signals"]]] == ids[::-1]


def test_a_signal_tells_what_it_caused(client: FlaskClient, connection: Connection) -> None:
    operators = define(connection)
    signal = emit(connection, "model.trained", {"auc": 0.9})
    action, run = start(connection, operators["evaluate"], signal)
    found = get(client, f"/api/v1/signals/{signal}")
    assert found["value"] == {"auc": 0.9}
    assert [(item["rule"], item["outcome"], item["action_id"]) for item in found["outcomes"]] == [
        ("start", "consumed", action)
    ]
    assert [(item["id"], item["run_id"]) for item in found["actions"]] == [(action, run)]
    assert get(client, f"/api/v1/actions/{action}")["signals"][0]["id"] == signal
    assert get(client, f"/api/v1/runs/{run}")["cause"][0]["key"] == "model.trained"


def test_the_oldest_run_of_all_is_found_by_its_state(
    client: FlaskClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that has been running since before a long history, and a failure among many that ended well."""
    operators = define(connection)
    (_, old), (_, failed), *_ = (
        start(connection, operators["train"], emit(connection, "x"), subject=f"s{number}") for number in range(30)
    )
    connection.execute("ALTER TABLE pgsig_private.run DISABLE TRIGGER USER")
    connection.execute("UPDATE pgsig_private.run SET state = 'running', runner_id = 1, slot = 0 WHERE id = %s", [old])
    connection.execute(
        "UPDATE pgsig_private.run SET state = CASE id WHEN %s THEN 'failed' ELSE 'succeeded' END, ended_at = now() WHERE id <> %s",
        [failed, old],
    )
    monkeypatch.setattr("pgsig.store.reading.WINDOW", 1)  # so that 30 runs are a long history
    monkeypatch.setattr("pgsig.store.reading.BUDGET", 0.0)
    for query in (
        "state=running",
        "state=running,retrying&workflow=recommender",
        "state=running&subject=s0&namespace=default",
    ):
        found = get(client, f"/api/v1/runs?{query}")
        assert ([item["id"] for item in found["runs"]], found["next"]) == ([old], None), query
    assert get(client, "/api/v1/runs?state=running&after=cDE6MA")["runs"][0]["id"] == old
    assert get(client, "/api/v1/runs?state=running&subject=none")["runs"] == []
    assert get(client, "/api/v1/runs?state=queued")["runs"] == []
    monkeypatch.setattr("pgsig.store.reading.BUDGET", 600.0)
    assert [run["id"] for run in get(client, "/api/v1/runs?state=failed,lost")["runs"]] == [failed]


def test_runs_and_actions_are_filtered(client: FlaskClient, connection: Connection) -> None:
    operators = define(connection)
    runs = {name: start(connection, operators[name], emit(connection, "x"), subject=name) for name in operators}
    for query, names in (
        ("", ["serve", "evaluate", "train"]), ("operator=train", ["train"]),
        ("workflow=recommender&state=queued", ["serve", "evaluate", "train"]),
        ("state=failed,lost", []), ("operator=nothing", []), ("subject=serve", ["serve"]), ("operator=recommender.train", ["train"]),
        ("operator=recommender.train&workflow=recommender&state=queued", ["train"]), ("operator=other.train", []),
        ("operator=recommender.train&workflow=other", []), ("state=queued,running&operator=serve", ["serve"]),
    ):  # fmt: skip
        assert [item["operator"] for item in get(client, f"/api/v1/runs?{query}")["runs"]] == names, query
    for query, names in (
        ("action=START", ["serve", "evaluate", "train"]),
        ("result=skipped", []),
        ("operator=evaluate", ["evaluate"]),
    ):
        assert [item["operator"] for item in get(client, f"/api/v1/actions?{query}")["actions"]] == names, query
    assert client.get("/api/v1/runs?state=dancing").status_code == 422
    assert (
        get(client, f"/api/v1/runs?before={get(client, '/api/v1/runs?limit=1')['next']}")["runs"][0]["id"]
        == runs["evaluate"][1]
    )


def test_an_operator_with_its_rules(client: FlaskClient, connection: Connection) -> None:
    define(connection)
    assert [item["operator"] for item in get(client, "/api/v1/operators")["operators"]] == [
        "train",
        "evaluate",
        "serve",
    ]
    found = get(client, "/api/v1/operators/recommender/serve")
    assert [rule["action"] for rule in found["rules"]] == ["RELOAD", "RESTART"]
    assert get(client, "/api/v1/operators/recommender.serve") == found
    assert get(client, "/api/v1/workflows")["workflows"][0]["operators"] == 3
    assert len(get(client, "/api/v1/lag")["lanes"]) == 4
    assert client.get("/api/v1/operators/recommender/serve?namespace=other").status_code == 404


def test_an_order_becomes_a_manual_signal(client: FlaskClient, connection: Connection) -> None:
    define(connection)
    url = "/api/v1/operators/recommender.train/actions"
    answer = client.post(url, json={"action": "RESTART", "params": {"rows": 5}, "reason": "new data", "subject": "eu"})
    assert answer.status_code == 202
    signal = get(client, answer.headers["Location"])
    assert (signal["key"], signal["subject"], signal["kind"]) == ("manual.recommender.train", "eu", "manual")
    assert signal["value"] == {"action": "RESTART", "params": {"rows": 5}, "reason": "new data"}
    assert client.post("/api/v1/operators/recommender.nobody/actions", json={"action": "STOP"}).status_code == 404
    bad = client.post(url, json={"action": "EXPLODE", "params": [], "why": "?", "subject": 3})
    assert bad.status_code == 422
    assert bad.json is not None
    assert {error["where"] for error in bad.json["errors"]} == {"/action", "/params", "/why", "/subject"}
    assert client.post(url, json={"action": "STOP", "subject": "é" * 150}).status_code == 422
    assert client.post(url, json=[]).status_code == 422


def test_a_log_is_text_and_can_be_followed(client: FlaskClient, connection: Connection) -> None:
    operators = define(connection)
    _, run = start(connection, operators["train"], emit(connection, "x"))
    write_log(connection, run, "one\nt", "wo\n", "\x1b[31mthree\x1b[0m\n")
    answer = client.get(f"/api/v1/runs/{run}/log")
    assert answer.text == "one\ntwo\n\x1b[31mthree\x1b[0m\n"
    assert answer.content_type.startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    position = answer.headers["Pgsig-Log-Position"]
    write_log(connection, run, "four\n")
    assert client.get(f"/api/v1/runs/{run}/log?after={position}").text == "four\n"


def test_ready_means_this_schema(client: FlaskClient, connection: Connection) -> None:
    assert client.get("/readyz").json == {"status": "ready"}
    connection.execute("UPDATE pgsig_private.schema_version SET version_num = '9999'")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json is not None
    assert "pgsig migrate" in answer.json["errors"][0]["fix"]
