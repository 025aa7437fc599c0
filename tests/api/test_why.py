"""Why, and pauses, by HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from pgsig.store.database import connect
from tests.flow.workshop import Workshop
from tests.webapp import emit

Connection = psycopg.Connection[Any]


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


def test_why_is_the_text_of_the_database(client: FlaskClient, shop: Workshop) -> None:
    shop.apply(op={"signal": "a", "eq": 1})
    shop.emit("a", 2, "s")
    shop.evaluate()
    answer = client.get("/api/v1/operators/w/op/why?subject=s")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["text"] == shop.call("SELECT pgsig.why('w.op', subject => 's')")
    assert (answer.json["verdict"], answer.json["rules"][0]["missing"][0]["value"]) == ("predicate_false", 1)
    assert client.get("/api/v1/operators/w.op/why?subject=s").json == answer.json
    assert client.get("/api/v1/operators/w/no/why").status_code == 404
    assert client.get("/api/v1/operators/w/op/why?thing=1").status_code == 422


def test_why_of_a_signal(client: FlaskClient, shop: Workshop, connection: Connection) -> None:
    shop.apply(op={"signal": "a", "eq": 1})
    position = emit(connection, "a", 2)
    answer = client.get(f"/api/v1/signals/{position}/why")
    assert answer.json is not None
    assert [rule["text"] for rule in answer.json["rules"]] == ["it does not satisfy the predicate"]
    assert client.get("/api/v1/signals/999999/why").status_code == 404


@pytest.mark.parametrize("target", ["operators/w.op", "operators/w/op", "workflows/w"])
def test_pause_and_resume(client: FlaskClient, shop: Workshop, target: str) -> None:
    shop.apply(op={"signal": "a"})
    answer = client.post(f"/api/v1/{target}/pause", json={"mode": "collapse", "reason": "night"})
    assert answer.status_code == 202
    signal = client.get(answer.headers["Location"]).json
    assert signal is not None
    assert (signal["source"], signal["value"]) == ("api", {"action": "PAUSE", "mode": "collapse", "reason": "night"})
    shop.evaluate()
    found = client.get("/api/v1/operators").json
    assert found is not None
    assert found["operators"][0]["paused"] == "collapse"
    assert shop.call("SELECT paused FROM pgsig.operators") == "collapse"
    assert client.post(f"/api/v1/{target}/resume").status_code == 202
    shop.evaluate()
    assert shop.call("SELECT paused FROM pgsig.operators") is None


def test_bad_pauses_are_refused(client: FlaskClient, shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    for body, status in (
        ({"mode": "sleep"}, 422),
        ({"why": 1}, 422),
        ([], 422),
        ({"mode": 3}, 422),
        ({"reason": "x" * 1001}, 422),
    ):
        assert client.post("/api/v1/operators/w/op/pause", json=body).status_code == status, body
    assert client.post("/api/v1/operators/w/no/pause").status_code == 404
    assert client.post("/api/v1/workflows/no/resume").status_code == 404
    assert client.post("/api/v1/operators/w/op/resume", json={"mode": "hold"}).status_code == 422


def test_an_order_says_that_it_came_by_http(client: FlaskClient, shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    answer = client.post("/api/v1/operators/w/op/actions", json={"action": "START"})
    signal = client.get(answer.headers["Location"]).json
    assert signal is not None
    assert signal["source"] == "api"


def test_what_the_log_refuses_says_where(client: FlaskClient) -> None:
    answer = client.post("/api/v1/signals", json={"key": "a", "run_id": 999})
    assert answer.json is not None
    assert [(error["code"], error["where"]) for error in answer.json["errors"]] == [("PS108", "/run_id")]
    client.post("/api/v1/signals", json={"key": "a", "event_id": "e", "value": 1})
    again = client.post("/api/v1/signals", json={"key": "a", "event_id": "e", "value": 2})
    assert again.status_code == 409
    assert "first stored as signal" in again.text
