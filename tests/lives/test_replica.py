"""A web process on a hot standby: it shows everything, as of what was replayed, and does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient

from pgsig.store.definitions import apply
from pgsig.store.migrate import migrate
from tests.api.test_tail import Listener, end
from tests.lives.clusters import beside, cluster, folder, run, standby, without_password
from tests.lives.story import emit, go_on
from tests.support import wait_for
from tests.support_core import one
from tests.webapp import serving

WORKFLOW = {
    "workflow": "w",
    "operators": {
        "a": {"batch": {"command": ["true"]}, "start": {"any": [{"signal": "a"}, {"every": "1h", "anchor": "2026-01-01T00:00:00Z"}]}},
        "b": {"batch": {"command": ["true"]}, "start": {"all": [{"signal": "b"}, {"signal": "c"}]}},
    },
}  # fmt: skip
PLACES = {"workflow": "w", "operator": "a", "name": "a"}
STREAMS = {"/live", "/api/v1/signals/tail"}
NO_DATABASE = {"/login", "/logout"}
BODIES = {
    "emit": {"key": "a"}, "act": {"action": "START"}, "act_on_workflow": {"action": "START"}, "pause_operator": {"mode": "hold"},
    "pause_workflow": {"mode": "hold"}, "begin_backfill": {"first": "2026-01-01T00:00:00Z", "last": "2026-01-01T02:00:00Z"},
}  # fmt: skip
FORMS = {
    "emit": {"key": "a", "value": "null"}, "act": {"action": "START"}, "act_on_workflow": {"action": "START"}, "pause": {"mode": "hold"},
    "pause_workflow": {"mode": "hold"}, "order_trigger": {"first": "2026-01-01", "last": "2026-01-01", "together": "1"},
}  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, str]]:
    """A primary in the middle of its life and a standby that follows."""
    with cluster(wal_level="replica", max_wal_senders="4") as primary, folder() as path:
        dsn = primary.dsn()
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            apply(connection, WORKFLOW)
            emit(connection, *"aab")
        go_on(dsn)
        with serving(dsn) as client:
            trigger = client.get("/api/v1/triggers").get_json()["triggers"][0]["trigger"]
            began = client.post(f"/api/v1/operators/w.a/triggers/{trigger}/backfills", json=BODIES["begin_backfill"])
            assert began.status_code == 201
        replica = beside(path / "replica", primary)
        run(
            "pg_basebackup",
            "-D",
            str(replica),
            "-d",
            without_password(dsn),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            dsn=dsn,
        )
        with standby(Path(replica).parent) as (other, _):
            yield dsn, other


def test_every_page_and_list_is_served(pair: tuple[str, str]) -> None:
    _, replica = pair
    with serving(replica) as client:
        seen = {}
        for path in addresses(client, "GET"):
            answer = client.get(path, follow_redirects=True)
            seen[path] = answer.status_code
        assert {path: status for path, status in seen.items() if status != 200} == {}
        assert len(seen) > 30
        assert [found["key"] for found in client.get("/api/v1/signals?key=b").get_json()["signals"]] == ["b"]


def test_whatever_writes_is_refused(pair: tuple[str, str]) -> None:
    primary, replica = pair
    with psycopg.connect(primary) as connection:
        before = one(connection, "SELECT max(id) FROM pgsig.signals")
    with serving(replica) as client:
        found = re.search(r'name="csrf" value="(\w+)"', client.get("/operators/w/a").text)
        assert found is not None
        said = {}
        for path, name in addresses(client, "POST").items():
            kind = name.partition(".")[2]
            if name.startswith("api."):
                answer = client.post(path, json={} if path.endswith("/resume") else BODIES.get(kind, {}))
                said[path] = answer.status_code, answer.get_json().get("code")
            else:
                answer = client.post(path, data={"csrf": found[1], "namespace": "default", **FORMS.get(kind, {})})
                said[path] = answer.status_code, "PS012" if "PS012" in answer.text else answer.text[-2000:]
        assert {path: what for path, what in said.items() if what != (503, "PS012")} == {}
        assert len(said) > 20
    with psycopg.connect(primary) as connection:
        assert one(connection, "SELECT max(id) FROM pgsig.signals") == before


def test_a_stream_goes_by_its_poll(pair: tuple[str, str]) -> None:
    """No notification comes out of a standby."""
    primary, replica = pair
    with serving(replica) as client, psycopg.connect(primary, autocommit=True) as connection:
        listener = Listener(client, "/api/v1/signals/tail?key=news.*")
        try:
            wait_for(listener.open)
            emit(connection, "news.first", "news.second")
            wait_for(lambda: listener.keys() == ["news.first", "news.second"])
        finally:
            end(client, listener)


def addresses(client: FlaskClient, method: str) -> dict[str, str]:
    """Every address of the application that answers a method, with something that is there in its places; to the name of its view."""
    listed = client.get("/api/v1/triggers").get_json()["triggers"]
    ids = {
        "api.one_backfill": 1, "api.cancel_backfill": 1, "pages.cancel_backfill": 1,
        **{name: client.get("/api/v1/signals?key=a").get_json()["signals"][0]["id"]
           for name in ("api.one_signal", "api.why_signal", "pages.signal")},
        **{name: client.get("/api/v1/actions").get_json()["actions"][0]["id"] for name in ("api.one_action", "pages.action")},
        **{name: client.get("/api/v1/runs").get_json()["runs"][0]["id"] for name in ("api.one_run", "api.log", "pages.run")},
    }  # fmt: skip
    found = {}
    for rule in client.application.url_map.iter_rules():
        if method not in (rule.methods or ()) or str(rule) in STREAMS | NO_DATABASE or rule.endpoint == "static":
            continue
        orders = re.search(r"<any\((.*?)\):order>", str(rule))
        for order in orders[1].split(", ") if orders else [""]:
            path = re.sub(r"<any\(.*?\):order>", order, str(rule))
            path = path.replace("<position:id>", str(ids.get(rule.endpoint, 0))).replace(
                "<trigger>", listed[0]["trigger"]
            )
            for place, name in PLACES.items():
                path = path.replace(f"<{place}>", name)
            assert "<" not in path, path
            found[path] = rule.endpoint
    return found
