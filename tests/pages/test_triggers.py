"""The calendar, and triggers on the page of their operator."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from pgsig.store.definitions import apply

Connection = psycopg.Connection[Any]
PAGE = "/operators/w/night"


@pytest.fixture(autouse=True)
def workflow(connection: Connection) -> None:
    night = {"batch": {"command": ["true"]}, "start": {"cron": "30 2 * * *", "tz": "Europe/Berlin", "missed": "all"}}
    apply(connection, {"workflow": "w", "operators": {"night": night}})
    connection.execute("UPDATE pgsig_private.trigger SET created_at = %s", [datetime.now(UTC) - timedelta(days=9)])


def send(client: FlaskClient, path: str, **fields: str) -> Any:
    page = client.get(PAGE).text
    token = re.search(r'name="csrf" value="([^"]*)"', page)
    assert token is not None
    return client.post(path, data={"csrf": token[1], **fields})


def trigger_path(client: FlaskClient) -> str:
    found = re.search(r'action="(/operators/w/night/triggers/[^"/]*)/pause"', client.get(PAGE).text)
    assert found is not None
    return found[1]


def test_the_calendar_and_the_operator_tell_what_is_to_come(client: FlaskClient) -> None:
    calendar = client.get("/calendar").text
    assert calendar.count("02:30:00 Europe/Berlin") >= 50 - 2
    page = client.get(PAGE).text
    assert "every day at 02:30 Europe/Berlin" in page
    assert "missed times: all" in page
    assert "The next 10" in page
    (heading,) = re.findall(r'<div class="rule trigger"><h3>(.*?)</h3>', page)
    assert re.sub("<.*?>", "", heading).split() == ["START", "every", "day", "at", "02:30", "Europe/Berlin"]


def test_orders_by_hand_are_done_and_told(client: FlaskClient, connection: Connection) -> None:
    path = trigger_path(client)
    for order, said in (
        ("fire", "The trigger has ticked"),
        ("skip", "The next due time is left out"),
        ("pause", "The trigger is paused"),
    ):
        answer = send(client, f"{path}/{order}", reason="a test", mode="hold")
        assert answer.status_code == 303
        assert said in client.get(answer.headers["Location"]).text
    assert "paused (hold)" in client.get("/calendar").text
    assert "skipped by web: a test" in client.get(PAGE).text
    assert "The trigger goes on" in client.get(send(client, f"{path}/resume").headers["Location"]).text
    assert connection.execute("SELECT count(*) FROM pgsig.signals WHERE kind = 'manual'").fetchone() == (3,)


def test_what_firing_would_do_is_told_and_not_done(client: FlaskClient, connection: Connection) -> None:
    page = send(client, f"{trigger_path(client)}/fire", dry_run="1").text
    assert re.search(r"Would <strong>START</strong> by start", page)
    assert "Nothing was done." in page
    page = send(client, f"{PAGE}/act", action="STOP", dry_run="1").text
    assert "nothing lives" in page
    assert connection.execute("SELECT count(*) FROM pgsig.signals").fetchone() == (0,)


def test_a_backfill_is_begun_shown_and_cancelled(client: FlaskClient) -> None:
    path = trigger_path(client)
    day = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    assert (
        send(client, f"{path}/backfill", first=day, last=datetime.now(UTC).date().isoformat(), together="2").status_code
        == 303
    )
    assert "0 of 3" in client.get("/calendar").text.replace("0 of 4", "0 of 3")
    assert send(client, "/backfills/1/cancel").status_code == 303
    assert "cancelled" in client.get("/calendar?part=backfills").text
    for fields in ({"first": "x", "last": "y", "together": "1"}, {"first": day, "last": day, "together": "many"}):
        answer = send(client, f"{path}/backfill", **fields)
        assert answer.status_code == 422
        assert "PS208" in answer.text


def test_a_trigger_is_fired_with_parameters_and_they_are_checked(client: FlaskClient, connection: Connection) -> None:
    path = trigger_path(client)
    for params, said in (("nonsense", "not JSON"), ("[1]", "PS203")):
        answer = send(client, f"{path}/fire", params=params)
        assert answer.status_code == 422
        assert said in answer.text
        assert 'data-at="/operators/w/night"' in answer.text
    assert send(client, f"{path}/fire", params='{"rows": 7}', reason="a look").status_code == 303
    found = connection.execute("SELECT value->'params', value->>'reason' FROM pgsig.signals WHERE kind = 'tick'")
    assert found.fetchall() == [({"rows": 7}, "a look")]


def test_which_times_a_backfill_would_have_is_told_and_not_done(client: FlaskClient, connection: Connection) -> None:
    day = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    answer = send(client, f"{trigger_path(client)}/backfill", first=day, last=day, together="1", dry_run="1")
    assert answer.status_code == 200
    assert "Would have 1 due time as ticks" in answer.text
    assert "Nothing was done." in answer.text
    assert connection.execute("SELECT count(*) FROM pgsig.backfills").fetchone() == (0,)


def test_a_whole_workflow_is_ordered_on_the_overview(client: FlaskClient, connection: Connection) -> None:
    client.get("/")
    assert 'action="/workflows/w/act"' in client.get("/?workflow=w").text
    page = send(client, "/workflows/w/act", action="START", reason="all up", dry_run="1").text
    assert re.search(r"Would <strong>START</strong> .*night", page)
    assert "Nothing was done." in page
    assert 'data-at="/?workflow=w"' in page
    assert connection.execute("SELECT count(*) FROM pgsig.signals").fetchone() == (0,)
    for wrong, said in (({"action": "FLY"}, "PS202"), ({"action": "START", "params": "x"}, "not JSON")):
        answer = send(client, "/workflows/w/act", **wrong)
        assert answer.status_code == 422
        assert said in answer.text
    assert send(client, "/workflows/nobody/act", action="START").status_code == 404
    answer = send(client, "/workflows/w/act", action="STOP", reason="all down")
    assert answer.headers["Location"] == "/actions?workflow=w"
    found = connection.execute(
        "SELECT key, value->>'reason', source FROM pgsig.signals WHERE kind = 'manual'"
    ).fetchall()
    assert ("manual.w.night", "all down", "web") in found
