"""POST /api/v1/signals: what is accepted, what a repetition answers, and that all problems are named at once."""

from __future__ import annotations

from typing import Any

import psycopg
from flask.testing import FlaskClient

URL = "/api/v1/signals"


def count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM pgsig.signals").fetchone()
    assert row is not None
    return int(row[0])


def test_one_signal_is_stored_as_it_came(client: FlaskClient, connection: psycopg.Connection[Any]) -> None:
    body = '{"key": "model.trained", "value": {"auc": 0.100000000000000000001}, "subject": "m-1"}'
    answer = client.post(URL, data=body, content_type="application/json")
    assert answer.status_code == 201
    assert answer.json is not None
    assert answer.json["new"] is True
    assert answer.headers["Location"] == f"{URL}/{answer.json['id']}"
    row = connection.execute("SELECT key, value::text, subject, source FROM pgsig.signals").fetchone()
    assert row == ("model.trained", '{"auc": 0.100000000000000000001}', "m-1", "http")
    assert '"value": {"auc": 0.100000000000000000001}' in client.get(answer.headers["Location"]).text


def test_many_are_stored_in_order_or_not_at_all(client: FlaskClient, connection: psycopg.Connection[Any]) -> None:
    answer = client.post(URL, json=[{"key": f"n.{i}"} for i in range(5)])
    assert answer.status_code == 201
    assert answer.json is not None
    ids = [item["id"] for item in answer.json["signals"]]
    assert ids == sorted(ids)
    answer = client.post(URL, json=[{"key": "good"}, {"key": "Bad Key"}])
    assert answer.status_code == 422
    assert count(connection) == 5


def test_a_repetition_answers_200_with_the_first_position(
    client: FlaskClient, connection: psycopg.Connection[Any]
) -> None:
    first = client.post(URL, json={"key": "paid", "value": 1, "event_id": "e1"})
    again = client.post(URL, json={"key": "paid", "value": 1, "event_id": "e1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json == {"id": first.json["id"], "new": False}  # type: ignore[index]
    other = client.post(URL, json={"key": "paid", "value": 2, "event_id": "e1"})
    assert other.status_code == 409
    assert other.json is not None
    assert other.json["code"] == "PS109"
    assert count(connection) == 1


def test_the_idempotency_key_fills_the_event_id(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "0b9e"}
    answers = [client.post(URL, json={"key": "paid", "value": value}, headers=headers) for value in (1, 1, 2)]
    assert [answer.status_code for answer in answers] == [201, 200, 409]
    assert answers[2].json is not None
    assert answers[2].json["errors"][0]["where"] == "Idempotency-Key"
    assert client.post(URL, json=[{"key": "a"}], headers=headers).status_code == 422


def test_every_problem_is_named_with_its_place(client: FlaskClient, connection: psycopg.Connection[Any]) -> None:
    answer = client.post(
        URL,
        json=[{"key": "Bad Key"}, {"key": "ok", "subject": 5}, {"kye": "x"}, "text", {"key": "a.*", "namespace": "No"}],
    )
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    found = {(error["code"], error["where"]) for error in answer.json["errors"]}
    assert found == {
        ("PS101", "/0/key"), ("PS111", "/1/subject"), ("PS111", "/2/kye"), ("PS101", "/2/key"), ("PS111", "/3"),
        ("PS101", "/4/key"), ("PS104", "/4/namespace"),
    }  # fmt: skip
    assert all(error["message"] and error["fix"] for error in answer.json["errors"])
    assert count(connection) == 0


def test_pointers_of_one_signal_are_into_that_signal(client: FlaskClient) -> None:
    answer = client.post(URL, json={"key": "run.mine", "extra/name": 1, "value": 2})
    assert answer.json is not None
    assert [error["where"] for error in answer.json["errors"]] == ["/extra~1name", "/key"]


def test_reserved_keys_and_large_values_are_refused(client: FlaskClient) -> None:
    for body, code in (
        ({"key": "manual.a.b"}, "PS102"),
        ({"key": "k" * 201}, "PS101"),
        ({"key": "big", "value": "x" * 300_000}, "PS103"),
        ({"key": "a", "subject": "s" * 201}, "PS105"),
    ):
        answer = client.post(URL, json=body)
        assert answer.status_code == 422, body["key"]
        assert answer.json is not None
        assert answer.json["code"] == code


def test_an_empty_array_is_refused(client: FlaskClient) -> None:
    assert client.post(URL, json=[]).status_code == 422


def test_a_run_that_is_not_there_is_the_callers_mistake(client: FlaskClient) -> None:
    answer = client.post(URL, json={"key": "a", "run_id": 77})
    assert answer.status_code == 422
    assert client.post(URL, json={"key": "a", "run_id": 10**30}).status_code == 422
