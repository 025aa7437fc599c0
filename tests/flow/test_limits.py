"""Limits, labels and parameters as definitions say them: signals, a worker, and two runners that both want everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import support_jobs as do
from tests.flow.test_replicas import walk
from tests.flow.workshop import Workshop
from tests.support import wait_for
from tests.support_jobs import Connection

RUNS, MOST = 24, 3
SLOW = 90


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with psycopg.connect(database, autocommit=True) as other:
        yield Workshop(connection, other)


def test_two_runners_keep_to_a_key_to_labels_and_to_a_pools_limit(
    shop: Workshop, database: str, tmp_path: Path
) -> None:
    limited = {
        "command": ["sh", "-c", "echo $PGSIG_PARAMS"], "concurrency": {"key": "tenant {params.tenant}", "max": MOST},
        "params": {"tenant": "eu"}, "params_from": {"rows": "$.rows"},
    }  # fmt: skip
    start = {"signal": "go"}
    shop.apply(
        first={"batch": limited, "start": start}, second={"batch": limited, "start": start},
        gpu={"batch": {"command": ["true"], "labels": ["gpu"]}, "start": {"signal": "train"}},
        pooled={"batch": {"command": ["true"], "pool": "small"}, "start": {"signal": "many"}},
    )  # fmt: skip
    shop.call("SELECT pgsig.limit_pool('small', 1)")
    for number in range(RUNS // 2):
        shop.emit("go", {"rows": number}, f"s{number}")
    for number in range(4):
        shop.emit("many", None, f"s{number}")
    shop.emit("train")
    shop.evaluate()

    def left() -> int:
        return int(shop.call("SELECT count(*) FROM pgsig_private.run WHERE ended_at IS NULL"))

    pools = ("default", "small")
    assert left() == RUNS + 5
    with (
        do.running(do.settings(database, tmp_path / "one", pools=pools), "one"),
        do.running(do.settings(database, tmp_path / "two", pools=pools, labels=("gpu",)), "two"),
    ):
        wait_for(lambda: not left(), SLOW, about="all runs to end")
    rows = shop.connection.execute(
        "SELECT r.id, r.operator, r.state, r.params->>'tenant', p.name FROM pgsig.runs r JOIN pgsig_private.process p ON p.id = r.runner_id"
    ).fetchall()
    assert {state for _, _, state, _, _ in rows} == {"succeeded"}
    assert [runner for _, operator, _, _, runner in rows if operator == "gpu"] == ["two"]
    keyed = {run for run, operator, *_ in rows if operator in ("first", "second")}
    alive, _ = walk(shop, keyed)
    # As many as may be were alive together, and never more.
    assert max(alive) == MOST
    assert max(walk(shop, {run for run, operator, *_ in rows if operator == "pooled"})[0]) == 1
    found = sorted(json.loads(do.output(shop.connection, run))["rows"] for run in keyed)
    assert found == sorted([*range(RUNS // 2)] * 2)
