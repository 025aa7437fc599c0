"""Bad requests: each is refused with its status and a document, and nothing of our inside is shown."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from pgsig.errors import InvalidInput
from pgsig.settings import Settings
from pgsig.web import name_of, serve
from tests.webapp import serving

URL = "/api/v1/signals"


def check(answer: Any, status: int) -> dict[str, Any]:
    """The answer is a problem document of this status that tells nothing about how we work."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    document: dict[str, Any] = answer.json
    assert document["status"] == status
    assert document["errors"]
    for word in ("Traceback", "psycopg", "SELECT", "pgsig_private", 'File "'):
        assert word not in answer.text
    return document


@pytest.mark.parametrize(
    "body",
    [
        "{", "", "{'key': 1}", '{"key": "a"} x', '{"key": "a", "key": "b"}', '{"key": "a", "value": NaN}', '{"value": -Infinity}',
        '{"value": 1e400}', '{"value": ' + "9" * 401 + "}", '{"value": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"value": ' + "[" * 70 + "]" * 70 + "}", b'\xff\xfe{"key": "a"}',
    ],
)  # fmt: skip
def test_what_is_not_json_is_400(client: FlaskClient, body: str | bytes) -> None:
    check(client.post(URL, data=body, content_type="application/json"), 400)


@pytest.mark.parametrize(
    "body",
    ['{"key": "a", "value": "\\u0000"}', '{"key": "a", "value": "\\ud800"}', '{"key": "a", "subject": "\\u0000"}'],
)
def test_characters_that_postgres_cannot_keep_are_422(client: FlaskClient, body: str) -> None:
    check(client.post(URL, data=body, content_type="application/json"), 422)


def test_another_content_type_is_415(client: FlaskClient) -> None:
    check(client.post(URL, data='{"key": "a"}', content_type="text/plain"), 415)
    check(client.post(URL, data={"key": "a"}), 415)
    bomb = gzip.compress(b" " * 10_000_000)
    check(client.post(URL, data=bomb, content_type="application/json", headers={"Content-Encoding": "gzip"}), 415)


def test_a_body_over_one_mebibyte_is_413_before_it_is_parsed(client: FlaskClient) -> None:
    check(client.post(URL, data=b"{" * (1024 * 1024 + 1), content_type="application/json"), 413)


def test_a_body_of_unknown_length_is_counted(client: FlaskClient) -> None:
    from io import BytesIO

    answer = client.post(
        URL, input_stream=BytesIO(b" " * (2 * 1024 * 1024)), content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )  # fmt: skip
    check(answer, 413)


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("limit=-1", ["?limit"]), ("limit=x&subjct=a", ["?subjct", "?limit"]), ("key=A..b", ["?key"]), ("key=a&key=b", ["?key"]),
        ("subject=%00", ["?subject"]), ("limit=0", ["?limit"]),
    ],
)  # fmt: skip
def test_a_query_that_is_not_understood_is_422(client: FlaskClient, query: str, places: list[str]) -> None:
    document = check(client.get(f"{URL}?{query}"), 422)
    assert [error["where"] for error in document["errors"]] == places


@pytest.mark.parametrize("query", ["before=xyz", "before=cDE6LTE", "after=%F0%9F%92%A9", "before=" + "A" * 3000])
def test_a_bad_cursor_is_400(client: FlaskClient, query: str) -> None:
    check(client.get(f"{URL}?{query}"), 400)


def test_a_large_limit_is_capped(client: FlaskClient) -> None:
    assert client.get(f"{URL}?limit=1000000000").status_code == 200


@pytest.mark.parametrize(
    "path", ["/api/v1/signals/99", "/api/v1/runs/99", "/api/v1/actions/99", "/api/v1/runs/99/log", "/api/v1/operators/a/b",
             "/api/v1/operators/a.b", "/api/v1/nothing", "/api/v1/signals/99999999999999999999", "/api/v1/signals/x",
             "/api/v1/operators/%00/b"],
)  # fmt: skip
def test_what_is_not_there_is_404(client: FlaskClient, path: str) -> None:
    check(client.get(path), 404)


def test_a_wrong_method_is_405_and_names_the_right_ones(client: FlaskClient) -> None:
    answer = client.delete(URL)
    check(answer, 405)
    assert {"GET", "POST"} <= set(answer.headers["Allow"].replace(",", " ").split())


def test_a_host_that_is_not_ours_is_400(client: FlaskClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", ""):
        check(client.get(URL, headers={"Host": host}), 400)
    for host in ("localhost:7420", "127.0.0.1", "[::1]:7420", "LOCALHOST"):
        assert client.get(URL, headers={"Host": host}).status_code == 200
    assert client.get(URL, headers={"Host": "localhost", "X-Forwarded-Host": "evil.example"}).status_code == 200
    assert client.get("/livez", headers={"Host": "10.0.0.7:7420"}).status_code == 200


def test_a_write_from_another_origin_is_403(client: FlaskClient) -> None:
    for origin in ("http://evil.example", "null", "http://localhost.evil.example", "http://localhost:9"):
        check(client.post(URL, json={"key": "a"}, headers={"Origin": origin}), 403)
    assert client.post(URL, json={"key": "a"}, headers={"Origin": "http://localhost"}).status_code == 201


def test_the_token_is_needed_when_one_is_set(database: str) -> None:
    with serving(database, api_token="s3cret") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}, {"Authorization": "Bearer "},
                        {"Authorization": "Bearer \udcff"}):  # fmt: skip
            answer = client.get(URL, headers=headers)
            check(answer, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert client.get(URL, headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_the_api_ignores_cookies(database: str) -> None:
    with serving(database, api_token="s3cret") as client:
        page = client.get("/login").text
        csrf = page.split('name="csrf" value="')[1].split('"')[0]
        assert client.post("/login", data={"csrf": csrf, "token": "s3cret"}).status_code == 303
        assert client.get("/").status_code == 200
        check(client.get(URL), 401)


def test_a_database_that_is_gone_is_503() -> None:
    with serving("postgresql://nobody@127.0.0.1:1/nothing") as client:
        for answer in (client.get(URL), client.get("/readyz"), client.post(URL, json={"key": "a"})):
            document = check(answer, 503)
            assert answer.headers["Retry-After"]
            assert "127.0.0.1" not in json.dumps(document)
        assert client.get("/livez").status_code == 200
        page = client.get("/signals")
        assert page.status_code == 503
        assert "<html" in page.text


def test_without_a_token_only_loopback_is_served() -> None:
    with pytest.raises(InvalidInput) as caught:
        serve(Settings(host="0.0.0.0"))
    assert caught.value.problems[0].code == "PS003"
    assert "PGSIG_API_TOKEN" in str(caught.value)


def test_a_host_header_without_its_port() -> None:
    given = ("a:1", "a", "[::1]:80", "[::1]", "A.b:80", "::1")
    assert [name_of(host) for host in given] == ["a", "a", "[::1]", "[::1]", "a.b", "::1"]
