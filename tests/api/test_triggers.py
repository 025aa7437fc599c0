"""Triggers over HTTP: what is due, what people order, backfills; dry runs of everything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from pgsig.store.definitions import apply

Connection = psycopg.Connection[Any]
API = "/api/v1"
TRIGGER = f"{API}/operators/w.night/triggers/cron"


@pytest.fixture(autouse=True)
def workflow(connection: Connection) -> None:
    night = {"batch": {"command": ["true"]}, "start": {"cron": "30 2 * * *", "tz": "Europe/Berlin"}}
    apply(connection, {"workflow": "w", "operators": {"night": night, "other": {"batch": {"command": ["true"]}}}})
    connection.execute("UPDATE pgsig_private.trigger SET created_at = %s", [datetime.now(UTC) - timedelta(days=9)])


def signals(connection: Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM pgsig.signals").fetchone() or (0,)
    return int(count)


def test_what_is_due_is_told_in_utc_local_time_and_words(client: FlaskClient) -> None:
    found: Any = client.get(f"{API}/calendar?workflow=w&limit=3").json
    assert len(found["times"]) == 3
    assert found["times"][0]["words"] == "every day at 02:30 Europe/Berlin"
    assert found["times"][0]["local"].endswith("02:30:00 Europe/Berlin")
    (trigger,) = client.get(f"{API}/triggers").json["triggers"]  # type: ignore[index]
    assert (trigger["words"], trigger["paused"], len(trigger["next"]), trigger["gaps"]) == (
        found["times"][0]["words"],
        None,
        1,
        [],
    )
    assert len(client.get(f"{API}/operators/w.night").json["triggers"][0]["next"]) == 10  # type: ignore[index]
    assert client.get(f"{API}/calendar?limit=x").status_code == 422


def test_a_trigger_is_fired_skipped_paused_and_resumed(client: FlaskClient, connection: Connection) -> None:
    answer = client.post(f"{TRIGGER}/fire", json={"reason": "a look", "params": {"a": 1}})
    assert answer.status_code == 202
    told: Any = client.get(answer.headers["Location"]).json
    assert told["value"].items() >= {"by": "api", "reason": "a look", "params": {"a": 1}}.items()
    due = client.get(f"{API}/calendar").json["times"][0]["due"]  # type: ignore[index]
    answer = client.post(f"{TRIGGER}/skip")
    assert datetime.fromisoformat(answer.json["skipped"]) == datetime.fromisoformat(due)  # type: ignore[index]
    assert client.get(f"{API}/calendar").json["times"][0]["due"] > due  # type: ignore[index]
    assert client.post(f"{TRIGGER}/pause", json={"mode": "drop"}).status_code == 202
    assert client.get(f"{API}/calendar").json["times"] == []  # type: ignore[index]
    assert client.post(f"{TRIGGER}/resume", json={"reason": "on"}).status_code == 202


def test_dry_runs_change_nothing(client: FlaskClient, connection: Connection) -> None:
    before = signals(connection)
    (effect,) = client.post(f"{TRIGGER}/fire?dry_run=true").json["actions"]  # type: ignore[index]
    assert (effect["action"], effect["operator"], effect["rule"], effect["result"]) == (
        "START",
        "night",
        "start",
        "recorded",
    )
    found = client.post(f"{API}/workflows/w/actions?dry_run=true", json={"action": "START"}).json["actions"]  # type: ignore[index]
    assert [effect["operator"] for effect in found] == ["night", "other"]
    (effect,) = client.post(f"{API}/operators/w.night/actions?dry_run=true", json={"action": "STOP"}).json["actions"]  # type: ignore[index]
    assert effect["result"] == "already_stopped"
    span = {"first": (datetime.now(UTC) - timedelta(days=5)).isoformat(), "last": datetime.now(UTC).isoformat()}
    assert len(client.post(f"{TRIGGER}/backfills?dry_run=true", json=span).json["times"]) == 5  # type: ignore[index]
    assert signals(connection) == before


def test_a_whole_workflow_is_ordered(client: FlaskClient, connection: Connection) -> None:
    answer = client.post(f"{API}/workflows/w/actions", json={"action": "START", "reason": "all"})
    assert answer.status_code == 202
    assert len(answer.json["signal_ids"]) == signals(connection) == 2  # type: ignore[index]
    assert client.post(f"{API}/workflows/nothing/actions", json={"action": "START"}).status_code == 404


def test_a_backfill_is_begun_watched_and_cancelled(client: FlaskClient) -> None:
    span = {
        "first": (datetime.now(UTC) - timedelta(days=5)).date().isoformat(),
        "last": datetime.now(UTC).date().isoformat(),
    }
    answer = client.post(f"{TRIGGER}/backfills", json={**span, "together": 2, "reason": "late"})
    assert answer.status_code == 201
    found: Any = client.get(answer.headers["Location"]).json
    assert (found["state"], found["most"], found["ended"], found["by_whom"]) == ("running", 2, 0, "api")
    assert client.get(f"{API}/backfills").json["backfills"][0]["id"] == found["id"]  # type: ignore[index]
    assert client.post(f"{answer.headers['Location']}/cancel", json={"reason": "no"}).status_code == 202
    assert client.post(f"{answer.headers['Location']}/cancel").status_code == 422
    assert client.get(f"{API}/backfills/999").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (f"{TRIGGER}/fire", {"params": [1]}, 422, "PS622"),
        (f"{TRIGGER}/fire", {"mode": "hold"}, 422, "PS622"),
        (f"{TRIGGER}/pause", {"mode": "nap"}, 422, "PS204"),
        (f"{TRIGGER}/skip", {"reason": "x" * 1001}, 422, "PS622"),
        (f"{API}/operators/w.night/triggers/every/fire", {}, 422, "PS207"),
        (f"{API}/operators/w.other/triggers/every/fire", {}, 422, "PS207"),
        (f"{API}/operators/w.nobody/triggers/every/fire", {}, 404, "PS201"),
        (f"{TRIGGER}/backfills", {"first": "soon", "last": "later"}, 422, "PS208"),
        (f"{TRIGGER}/backfills", {"first": "2026-01-01", "last": "2925-01-01T00:00:00"}, 422, "PS208"),
        (f"{TRIGGER}/backfills", {"first": "1925-01-01", "last": "2025-01-01"}, 422, "PS208"),
        (f"{TRIGGER}/backfills", {"first": "2026-01-01", "last": "2026-01-02", "together": 10**9}, 422, "PS208"),
        (f"{TRIGGER}/backfills", {"first": "2026-01-01"}, 422, "PS622"),
    ],
)
def test_what_cannot_be_is_refused_with_code_place_and_remedy(
    client: FlaskClient, connection: Connection, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    document: Any = answer.json
    errors = document.get("errors") or [document]
    assert {error["code"] for error in errors} == {code}
    assert all(error.get("fix") for error in errors)
    assert signals(connection) == 0
