"""Every page renders, empty and full; headers, forms and hostile values."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from pgsig.engine import Engine
from pgsig.paths import room
from pgsig.store.database import connect
from tests.webapp import define, emit, serving, start, write_log

Connection = psycopg.Connection[Any]
LISTS = ("/", "/operators", "/signals", "/runs", "/actions", "/processes", "/storage")
HOSTILE = "<script>alert(1)</script>\u202e\u200b\"'><img src=x onerror=alert(2)>"


def csrf(client: FlaskClient, path: str = "/signals") -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get(path).text)
    assert found is not None
    return found[1]


class Scan(HTMLParser):
    """Collects what a page must not have."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (
                name.startswith("on")
                or name == "style"
                or (name in ("href", "src", "action") and (value or "").startswith("javascript:"))
            ):
                self.wrong.append(f"{tag} {name}")
            if name == "id" and value:
                self.ids.append(value)
        if tag == "script" and not dict(attrs).get("src"):
            self.wrong.append("inline script")
        if tag in ("style", "img", "iframe", "base"):
            self.wrong.append(tag)


def check(client: FlaskClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text[:2000]
    scan = Scan()
    scan.feed(answer.text)
    assert not scan.wrong, path
    assert len(scan.ids) == len(set(scan.ids)), sorted(scan.ids)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.text


def test_empty_pages_tell_what_to_do(client: FlaskClient) -> None:
    for path, words in zip(
        LISTS,
        ("pgsig apply", "pgsig apply", "pgsig.emit(", "pgsig act", "pgsig worker", "pgsig runner", "3 of the log"),
        strict=True,
    ):
        assert words in check(client, path), path
    assert "No signal fits" in check(client, "/signals?key=nothing.*")


def test_full_pages_render_and_so_do_their_parts(client: FlaskClient, connection: Connection) -> None:
    operators = define(connection)
    signal = emit(connection, "model.trained", {"auc": 0.9}, subject="m-1")
    explanation = {"text": "model.trained", "met": True, "have": 1, "need": 1, "evidence": [signal]}
    action, run = start(connection, operators["evaluate"], signal, subject="m-1", explanation=explanation)
    write_log(connection, run, "hello\n")
    connection.execute(
        "SELECT pgsig_private.join_processes('runner', 'r1', 'host', 1, '0', '{default}', 4, interval '1 min')"
    )
    paths = (*LISTS, "/operators/recommender/serve", "/operators/recommender/evaluate?subject=m-1",
             f"/signals/{signal}", f"/runs/{run}",
             f"/actions/{action}", "/runs?state=queued&operator=evaluate", "/actions?action=START",
             "/signals?key=model.**&subject=m-1")  # fmt: skip
    for path in paths:
        page = check(client, path)
        for part in re.findall(r'data-part="([a-z_]+)"', page):
            fragment = client.get(f"{path}{'&' if '?' in path else '?'}part={part}")
            assert fragment.status_code == 200
            assert "<html" not in fragment.text
    assert 'class="node streaming' in client.get("/").text
    assert "✓" in client.get(f"/actions/{action}").text
    assert "hello" in client.get(f"/runs/{run}").text
    assert client.get(f"/runs/{run}?part=log&after=1").text.strip() == ""


def test_no_template_trusts_a_value() -> None:
    for path in Path(room("web") / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "|safe" not in text.replace(" ", ""), path
        assert "autoescape" not in text, path
        assert not re.search(r"\sstyle=|\son[a-z]+=", text), path


def test_hostile_values_are_inert(client: FlaskClient, connection: Connection) -> None:
    operators = define(connection)
    signal = emit(connection, "evil", {"v": HOSTILE}, subject=HOSTILE, source="=cmd()" + HOSTILE)
    explanation = {"text": HOSTILE, "met": True, "label": HOSTILE, "seen": HOSTILE}
    action, run = start(connection, operators["train"], signal, subject=HOSTILE, explanation=explanation)
    write_log(connection, run, HOSTILE + "\x1b[31m" + HOSTILE + "\x1b]8;;javascript:alert(1)\x07x\n")
    paths = ("/", "/operators", "/operators/recommender/train", "/signals", f"/signals/{signal}", "/runs",
             f"/runs/{run}", "/actions",
             f"/actions/{action}", "/signals?subject=%3Cscript%3E%E2%80%AE",
             "/operators/recommender/train?subject=%22%3E%3Cscript%3E")  # fmt: skip
    for path in paths:
        page = check(client, path)
        assert "<script>alert" not in page, path
        assert not {"\u202e", "\u200b"} & set(page), path
    assert "U+202E" in client.get(f"/signals/{signal}").text


def test_a_form_emits_a_signal(client: FlaskClient, connection: Connection) -> None:
    form = {"csrf": csrf(client), "key": "model.trained", "value": '{"auc": 0.10000000000000000001}', "subject": "m"}
    answer = client.post("/signals/emit", data=form)
    assert answer.status_code == 303
    row = connection.execute("SELECT key, value::text, subject, source FROM pgsig.signals").fetchone()
    assert row == ("model.trained", '{"auc": 0.10000000000000000001}', "m", "pages")
    page = client.get(answer.headers["Location"]).text
    assert "SELECT pgsig.emit(&#39;model.trained&#39;" in page
    wrong = client.post("/signals/emit", data={**form, "key": "Bad Key", "value": "passed"})
    assert wrong.status_code == 422
    assert "a text goes in quotes" in wrong.text
    assert 'value="Bad Key"' in wrong.text
    wrong = client.post("/signals/emit", data={**form, "key": "Bad Key", "value": ""})
    assert "PS101" in wrong.text


def test_a_form_orders_an_action(client: FlaskClient, connection: Connection) -> None:
    define(connection)
    path = "/operators/recommender/train"
    form = {"csrf": csrf(client, path), "action": "RESTART", "params": '{"rows": 5}', "reason": "because"}
    answer = client.post(f"{path}/act", data=form)
    assert answer.status_code == 303
    row = connection.execute("SELECT key, value FROM pgsig.signals").fetchone()
    assert row == ("manual.recommender.train", {"action": "RESTART", "params": {"rows": 5}, "reason": "because"})
    assert "Ordered as signal" in client.get(answer.headers["Location"]).text
    for bad in ({"params": "["}, {"params": "[]"}, {"action": "DANCE"}, {"subject": "s" * 300}):
        wrong = client.post(f"{path}/act", data={**form, **bad})
        assert wrong.status_code == 422
        assert 'role="alert"' in wrong.text
        assert "because" in wrong.text
    assert client.post("/operators/recommender/nobody/act", data=form).status_code == 404


@pytest.mark.parametrize("path", ["/signals/emit", "/operators/recommender/train/act", "/login", "/logout"])
def test_a_post_without_its_token_is_refused(client: FlaskClient, path: str) -> None:
    assert client.post(path, data={"key": "a"}).status_code == 400
    token = csrf(client)
    assert (
        client.post(path, data={"key": "a", "csrf": token[:-1] + ("0" if token[-1] != "0" else "1")}).status_code == 400
    )
    foreign = client.post(path, data={"key": "a", "csrf": token}, headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403


def test_the_cookie_is_for_us_alone(client: FlaskClient) -> None:
    cookie = client.get("/signals").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_errors_are_pages(client: FlaskClient) -> None:
    for path, status in (("/nothing", 404), ("/signals/99", 404), ("/runs/99", 404), ("/actions/99", 404), ("/operators/a/b", 404),
                         ("/signals?before=x", 400), ("/signals?key=..", 422), ("/runs?state=x", 422)):  # fmt: skip
        assert "<h1>" in check(client, path, status)
    assert client.put("/signals").status_code == 405


def test_with_a_token_one_signs_in(database: str) -> None:
    with serving(database, api_token="s3cret") as client:
        for path in LISTS:
            answer = client.get(path)
            assert answer.status_code == 303
            assert answer.headers["Location"].startswith("/login?next=/")
        assert client.get("/live").status_code == 401
        assert client.get("/?part=graph").status_code == 401
        with client.get("/static/pgsig.css") as style:
            assert style.status_code == 200
        token = csrf(client, "/login")
        wrong = client.post("/login", data={"csrf": token, "token": "guess"})
        assert wrong.status_code == 401
        right = client.post("/login", data={"csrf": token, "token": "s3cret", "next": "//evil.example"})
        assert (right.status_code, right.headers["Location"]) == (303, "/")
        page = client.get("/signals")
        assert page.status_code == 200
        assert "s3cret" not in page.text + right.headers["Set-Cookie"]
        assert client.post("/logout", data={"csrf": csrf(client)}).status_code == 303
        assert client.get("/").status_code == 303


def test_why_stands_on_the_operators_page(client: FlaskClient, connection: Connection) -> None:
    define(connection)
    emit(connection, "model.trained", {"auc": "<b>0.4</b>"})
    page = check(client, "/operators/recommender/evaluate")
    assert "predicate type error" in page
    assert "<b>0.4" not in page
    assert "What would make it happen" in page
    assert "SELECT pgsig.emit(&#39;model.trained&#39;, &#39;{&#34;auc&#34;: 0.6}&#39;);" in page


def test_a_signal_that_nobody_waits_for_says_so(client: FlaskClient, connection: Connection) -> None:
    define(connection)
    page = check(client, f"/signals/{emit(connection, 'model.traind')}")
    assert "No rule is interested in this key" in page
    assert "model.trained" in page
    assert "does not satisfy" in check(client, f"/signals/{emit(connection, 'model.trained', {'auc': 0.1})}")


def test_pausing_from_the_pages(client: FlaskClient, connection: Connection, database: str) -> None:
    define(connection)
    form = {"csrf": csrf(client, "/operators/recommender/train")}
    answer = client.post("/operators/recommender/train/pause", data={**form, "mode": "hold", "reason": "night"})
    assert answer.status_code == 303
    emit(connection, "data.ready")
    with connect(database, name="engine") as other:
        while Engine(other).step().taken:
            pass
    said = connection.execute("SELECT source, value->>'reason' FROM pgsig.signals WHERE kind = 'manual'").fetchone()
    assert said == ("web", "night")
    for path in ("/", "/operators", "/operators/recommender/train"):
        assert "paused (hold), 1 held" in check(client, path), path
    assert client.post("/operators/recommender/train/pause", data={**form, "mode": "sleep"}).status_code == 422
    assert client.post("/workflows/recommender/resume", data=form).headers["Location"] == "/?workflow=recommender"
    assert client.post("/workflows/nobody/resume", data=form).status_code == 404
