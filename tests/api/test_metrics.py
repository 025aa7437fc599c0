"""GET /metrics and /api/v1/metrics: numbers for machines, with the API's token."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from flask.testing import FlaskClient

from tests.webapp import define, emit, serving, start

Connection = psycopg.Connection[Any]
LINE = re.compile(r'[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\.)*"(,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})? -?([0-9.e+-]+|NaN|\+Inf)')


def samples(text: str) -> dict[str, float]:
    """The samples of a text in Prometheus' form, which is checked on the way."""
    found: dict[str, float] = {}
    described: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# "):
            word, name = line.split()[1:3]
            assert word in ("HELP", "TYPE")
            described.add(name)
            continue
        assert LINE.fullmatch(line), line
        name, _, value = line.rpartition(" ")
        assert name.partition("{")[0] in described
        assert name not in found
        found[name] = float(value)
    return found


def test_prometheus(client: FlaskClient, connection: Connection) -> None:
    ids = define(connection)
    start(connection, ids["evaluate"], emit(connection, "a"))
    emit(connection, "b")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.text)
    assert found["pgsig_signals_total"] == 2
    assert sum(value for name, value in found.items() if name.startswith("pgsig_signals_waiting")) == 2
    assert found['pgsig_runs{state="queued"}'] == 1
    assert found['pgsig_processes{role="worker"}'] == 0
    assert 0 <= found['pgsig_table_oldest_seconds{table="signals"}'] < 600
    assert found['pgsig_table_bytes{table="run"}'] > 0
    assert found["pgsig_partitions"] == 3
    assert 6 * 86400 < found["pgsig_partitions_ahead_seconds"] < 22 * 86400
    assert found["pgsig_notification_queue_ratio"] < 0.1


def test_names_of_others_cannot_break_a_line(client: FlaskClient, database: str) -> None:
    with psycopg.connect(database, application_name='a"} 1\nb\\') as other:
        other.execute("SELECT pg_current_xact_id()")
        assert samples(client.get("/metrics").text)
        horizon = (client.get("/api/v1/metrics").json or {})["horizon"]
        [holder] = [one for one in horizon if one["detail"].startswith(f"pid {other.info.backend_pid},")]
        assert holder["kind"] == "session"
        assert holder["transactions"] >= 0


def test_who_holds_the_horizon_is_named(client: FlaskClient, connection: Connection, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("BEGIN; SET LOCAL pgsig.bell = 'off'; SELECT pgsig.emit('a'); PREPARE TRANSACTION 'pgsig left'")
        try:
            horizon = (client.get("/api/v1/metrics").json or {})["horizon"]
            kinds = {one["kind"]: one["name"] for one in horizon}
            assert kinds["prepared transaction"] == "pgsig left"
        finally:
            other.execute("ROLLBACK PREPARED 'pgsig left'")


def test_json_has_the_findings(client: FlaskClient) -> None:
    body = client.get("/api/v1/metrics").json
    assert body is not None
    assert {finding["check"] for finding in body["findings"]} >= {
        "lag",
        "partitions",
        "queue",
        "vacuum",
        "freeze",
        "horizon",
    }
    assert {table["name"] for table in body["tables"]} >= {"signals", "outcome", "run", "cursor"}
    assert body["days"]["retention_days"] == 28


def test_the_token_is_needed(database: str) -> None:
    with serving(database, api_token="t" * 20) as client:
        for path in ("/metrics", "/api/v1/metrics"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.content_type.startswith("application/problem+json")
            assert client.get(path, headers={"Authorization": "Bearer " + "t" * 20}).status_code == 200
