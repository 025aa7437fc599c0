"""Several runs of one streaming operator beside each other, as a worker orders them and a runner carries them out."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgsig.runner.loop import Runner
from tests import support_jobs as do
from tests.flow.workshop import Workshop
from tests.support import wait_for
from tests.support_jobs import Connection

SLOW = 40
LOOP = "trap 'echo reloaded' HUP; echo up; while :; do sleep 0.05; done"
SERVICE = {
    "command": ["sh", "-c", LOOP], "replicas": 3, "handover": "start_first", "reload_by": "HUP", "grace": "5s",
    "ready": {"command": ["true"], "every": "100ms", "timeout": "20s"},
}  # fmt: skip


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with psycopg.connect(database, autocommit=True) as other:
        yield Workshop(connection, other)


@pytest.fixture
def runner(database: str, tmp_path: Path) -> Iterator[Runner]:
    with do.running(do.settings(database, tmp_path)) as found:
        yield found


def order(shop: Workshop, action: str) -> None:
    shop.call("SELECT pgsig.act('w.serve', %s)", action)
    shop.evaluate()


def ready(shop: Workshop) -> list[int]:
    """The runs that serve, once there are exactly three and none beside them."""
    rows = shop.connection.execute(
        "SELECT id, ready_at IS NOT NULL AND desired = 'run' FROM pgsig_private.run"
        " WHERE state IN ('queued', 'starting', 'running', 'retrying') ORDER BY id"
    ).fetchall()
    return [row[0] for row in rows] if len(rows) == 3 and all(row[1] for row in rows) else []


def walk(shop: Workshop, runs: set[int] | None = None) -> tuple[list[int], list[int]]:
    """How many were alive, and how many of them ready, after each state that was recorded. runs: which count, None for all."""
    alive: set[int] = set()
    serving: set[int] = set()
    counts: tuple[list[int], list[int]] = ([], [])
    rows = shop.connection.execute(
        "SELECT run_id, split_part(key, '.', 4) FROM pgsig.signals WHERE kind = 'state' ORDER BY id"
    ).fetchall()
    for run, state in rows:
        if runs is not None and run not in runs:
            continue
        (alive.add if state in ("starting", "running", "ready") else alive.discard)(run)
        (serving.add if state == "ready" else serving.discard)(run)
        counts[0].append(len(alive))
        counts[1].append(len(serving))
    return counts


def test_the_life_of_three_replicas(shop: Workshop, runner: Runner) -> None:
    shop.apply(serve={"streaming": SERVICE})
    order(shop, "START")
    first = wait_for(lambda: ready(shop), SLOW, about="three replicas")
    ports = {place.env["PGSIG_PORT"] for run in first if (place := runner.jobs[run].session.place)}
    assert len(ports) == 3

    # One that dies is restarted, the others are left alone.
    os.kill(int(runner.jobs[first[1]].handle.identity.split()[0]), signal.SIGKILL)
    do.wait_state(shop.connection, first[1], "running", attempt=2, timeout=SLOW)
    assert wait_for(lambda: ready(shop), SLOW) == first
    assert [do.run_row(shop.connection, run)["attempt"] for run in first] == [1, 2, 1]

    # A START finds all of them, and a RELOAD reaches all of them.
    order(shop, "START")
    wait_for(lambda: all("up" in do.output(shop.connection, run).splitlines()[-1] for run in first), SLOW)
    order(shop, "RELOAD")
    wait_for(lambda: all("reloaded" in do.output(shop.connection, run) for run in first), SLOW, about="three reloads")

    # A RESTART replaces one after the other.
    (before,) = shop.connection.execute("SELECT max(id) FROM pgsig.signals").fetchone() or (0,)
    order(shop, "RESTART")
    second = wait_for(
        lambda: (found := ready(shop)) and not set(found) & set(first) and found, SLOW, about="a rollover"
    )
    assert isinstance(second, list)
    alive, serving = walk(shop)
    (since,) = shop.connection.execute(
        "SELECT count(*) FROM pgsig.signals WHERE kind = 'state' AND id <= %s", [before]
    ).fetchone() or (0,)
    assert min(serving[since:]) == 3
    assert max(alive) == 4
    assert max(serving) == 4

    order(shop, "STOP")
    for run in second:
        do.wait_state(shop.connection, run, "stopped", timeout=SLOW)
    results = [(action, result) for _, _, action, result, _ in shop.actions()]
    assert results == [
        ("START", "recorded"), ("START", "already_running"), ("RELOAD", "recorded"), ("RESTART", "recorded"), ("STOP", "recorded"),
    ]  # fmt: skip
