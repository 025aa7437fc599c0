"""The live streams: nothing is skipped, whatever the order of commits; places are limited; everything ends with the process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from pgsig.api.tail import to_text
from pgsig.store.reading import Cursor
from tests.store.bygone import unheard
from tests.support import wait_for
from tests.webapp import emit, serving


class Listener:
    """Reads a stream in a thread of its own and keeps its events."""

    def __init__(self, client: FlaskClient, path: str, **headers: str) -> None:
        self.response = client.application.test_client().get(path, headers=headers, buffered=False)
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.open = threading.Event()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        for chunk in self.response.iter_encoded():
            for line in chunk.decode().splitlines():
                if line.startswith("id: "):
                    self.ids.append(line[4:])
                elif line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))
            self.open.set()
        self.response.close()

    def keys(self) -> list[str]:
        return [event["key"] for event in self.events]


@pytest.fixture
def streams(client: FlaskClient) -> Iterator[FlaskClient]:
    """The client; its streams are ended, and their threads with them, before anything else is taken down."""
    yield client
    client.application.extensions["pgsig.live"].close()


def end(client: FlaskClient, *listeners: Listener) -> None:
    client.application.extensions["pgsig.live"].close()
    for listener in listeners:
        listener.thread.join(10)
        assert not listener.thread.is_alive()


def test_a_late_commit_is_not_skipped(streams: FlaskClient, database: str, connection: psycopg.Connection[Any]) -> None:
    listener = Listener(streams, "/api/v1/signals/tail?key=t.*")
    wait_for(listener.open)
    with psycopg.connect(database) as slow:
        emit(slow, "t.slow")
        emit(connection, "t.fast")
        emit(connection, "other")
        wait_for(lambda: listener.keys() == ["t.fast"])
        slow.commit()
    wait_for(lambda: listener.keys() == ["t.fast", "t.slow"])
    resumed = Listener(streams, "/api/v1/signals/tail?key=t.*", **{"Last-Event-ID": listener.ids[1]})
    emit(connection, "t.last")
    wait_for(lambda: resumed.keys() == ["t.slow", "t.last"])
    end(streams, listener, resumed)


def test_resuming_within_a_large_window(streams: FlaskClient, connection: psycopg.Connection[Any]) -> None:
    first = Listener(streams, "/api/v1/signals/tail")
    wait_for(first.open)
    connection.execute("INSERT INTO pgsig.signals (key, value) SELECT 'n', to_jsonb(i) FROM generate_series(1, 1200) i")
    wait_for(lambda: len(first.events) == 1200)
    assert [event["value"] for event in first.events] == list(range(1, 1201))
    again = Listener(streams, "/api/v1/signals/tail", **{"Last-Event-ID": first.ids[700]})
    wait_for(lambda: len(again.events) == 500)
    assert [event["value"] for event in again.events] == list(range(701, 1201))
    end(streams, first, again)


@pytest.mark.parametrize("last", ["x", "MXwyfDM", "MTox|", "A" * 20_000])
def test_an_id_that_is_not_ours_is_400(client: FlaskClient, last: str) -> None:
    assert client.get("/api/v1/signals/tail", headers={"Last-Event-ID": last}).status_code == 400


def test_who_comes_back_too_late_is_told_how_to_begin_anew(
    streams: FlaskClient, connection: psycopg.Connection[Any]
) -> None:
    last = {"Last-Event-ID": to_text(Cursor(unheard(connection, "t.dropped")))}
    emit(connection, "t.left")
    answer = streams.get("/api/v1/signals/tail", headers=last)
    assert answer.status_code == 422
    assert answer.json is not None
    assert answer.json["errors"] == [
        {
            "code": "PS409",
            "message": "signals that came after this cursor were dropped, as they were past retention_days",
            "fix": "begin anew: after=here from now on, after=oldest with what is left",
        }
    ]
    anew = Listener(streams, "/api/v1/signals/tail?after=oldest")
    wait_for(lambda: anew.keys() == ["t.left"])
    other = Listener(streams, "/api/v1/signals/tail?key=other&after=here", **last)  # it has missed nothing of that
    emit(connection, "other")
    wait_for(lambda: other.keys() == ["other"])
    assert streams.get("/api/v1/signals/tail?after=nowhere").status_code == 422
    end(streams, anew, other)


def test_a_page_hears_what_changed(streams: FlaskClient, connection: psycopg.Connection[Any]) -> None:
    listener = Listener(streams, "/live")
    wait_for(lambda: len(listener.events) == 1)
    id = emit(connection, "model.trained")
    connection.execute("NOTIFY pgsig_changes")
    wait_for(lambda: listener.events[-1]["signals"] == id)
    assert listener.events[-1]["keys"] == ["model.trained"]
    end(streams, listener)


def test_streams_are_capped_and_places_come_back(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgsig.web.STREAMS", 1)
    with serving(database) as client:
        listener = Listener(client, "/live")
        wait_for(listener.open)
        answer = client.get("/api/v1/signals/tail")
        assert answer.status_code == 429
        assert answer.headers["Retry-After"]
        end(client, listener)
        live = client.application.extensions["pgsig.live"]
        with live.watching():
            pass
