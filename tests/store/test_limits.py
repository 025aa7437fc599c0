"""Limits: of a key that runs share, of a pool, and what a runner must have. Claimers race for real, each with its own connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgsig.model import State
from pgsig.store import housekeeping, jobs
from tests import support_jobs as do
from tests.support_jobs import Connection

ALIVE = "SELECT count(*) FROM pgsig_private.run WHERE state IN ('starting', 'running')"
CLAIMERS, RUNS, MOST = 4, 60, 3


def join(connection: Connection, *labels: str, pools: tuple[str, ...] = ("default",)) -> int:
    return jobs.join(
        connection, name="r", host="h", pid=1, version="0", pools=pools, labels=labels, capacity=99, lease=600
    )  # fmt: skip


def claimed(connection: Connection, process: int, *labels: str, pools: tuple[str, ...] = ("default",)) -> list[int]:
    return [grant.id for grant in jobs.claim(connection, process, pools, 99, labels).grants]


def end(connection: Connection, run: int, state: State = State.STOPPED) -> None:
    (epoch,) = connection.execute("SELECT epoch FROM pgsig_private.run WHERE id = %s", [run]).fetchone() or (0,)
    assert jobs.report(connection, jobs.Report(run, epoch, state)) == [True]


def race(database: str) -> tuple[int, list[str]]:
    """Claimers that take what they get, look how many are alive, and end it, until all is done. The most that were alive, and errors."""
    seen, errors = [0], []

    def work() -> None:
        try:
            with psycopg.connect(database, autocommit=True) as connection:
                process = join(connection)
                while connection.execute("SELECT 1 FROM pgsig_private.run WHERE ended_at IS NULL LIMIT 1").fetchone():
                    grants = jobs.claim(connection, process, ["default"], 5).grants
                    (alive,) = connection.execute(ALIVE).fetchone() or (0,)
                    seen[0] = max(seen[0], alive)
                    if grants:
                        jobs.report(connection, *(jobs.Report(*grant.key, State.RUNNING) for grant in grants))
                        jobs.report(connection, *(jobs.Report(*grant.key, State.SUCCEEDED) for grant in grants))
        except Exception as error:  # noqa: BLE001 - told to the test
            errors.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(CLAIMERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return seen[0], errors


def by_key(connection: Connection) -> None:
    for number in range(RUNS):
        operator = do.operator(connection, f"op{number}")
        do.start(connection, operator, labels=[], limit_key="shared", limit_most=MOST)


def by_pool(connection: Connection) -> None:
    connection.execute("SELECT pgsig.limit_pool('default', %s)", [MOST])
    for number in range(RUNS):
        do.start(connection, do.operator(connection, f"op{number}"))


@pytest.mark.parametrize("fill", [by_key, by_pool])
def test_no_more_are_alive_than_may_be_however_claimers_race(
    connection: Connection, database: str, fill: Callable[[Connection], None]
) -> None:
    fill(connection)
    most, errors = race(database)
    assert errors == []
    assert most == MOST


@pytest.mark.parametrize("fill", [by_key, by_pool])
def test_without_the_lock_more_are_alive(
    connection: Connection, database: str, fill: Callable[[Connection], None]
) -> None:
    """The naive version counts and takes: two claimers count at the same time, and both take. Here one counts while the other, which
    has taken its share, has not committed yet."""
    (text,) = connection.execute("SELECT pg_get_functiondef('pgsig_private.claim'::regproc)").fetchone() or ("",)
    naive = text.replace(
        "NOT pg_try_advisory_xact_lock(1885827947", "NOT (true OR pg_try_advisory_xact_lock(1885827947"
    )
    naive = naive.replace("hashtext(v_run.limit_key))", "hashtext(v_run.limit_key)))")
    naive = naive.replace("IF pg_try_advisory_xact_lock(1885827946", "IF true OR pg_try_advisory_xact_lock(1885827946")
    fill(connection)
    alive = {}
    for name, function in (("whole", text), ("naive", naive)):
        connection.execute("UPDATE pgsig_private.run SET state = 'stopped', ended_at = now() WHERE state = 'starting'")
        connection.execute("UPDATE pgsig_private.run SET blocked = false, claimable_at = now() WHERE state = 'queued'")
        connection.execute(function.encode())
        with psycopg.connect(database) as first, psycopg.connect(database) as second:
            jobs.claim(first, join(first), ["default"], MOST)
            jobs.claim(second, join(second), ["default"], 99)
            first.commit()
            second.commit()
            (alive[name],) = connection.execute(ALIVE).fetchone() or (0,)
    assert alive == {"whole": MOST, "naive": 2 * MOST}


def test_a_full_key_does_not_stand_in_the_way(connection: Connection) -> None:
    process = join(connection)
    limited: dict[str, Any] = {"labels": [], "limit_key": "k", "limit_most": 1}
    first, second, third = (
        do.start(connection, do.operator(connection, name), **limited, priority=priority)
        for name, priority in (("a", 9), ("b", 1), ("c", 5))
    )
    free = do.start(connection, do.operator(connection, "d"))
    assert claimed(connection, process) == [first, free]
    assert claimed(connection, process) == []
    assert [do.run_row(connection, run)["blocked"] for run in (second, third)] == [True, True]
    end(connection, first)
    # The most urgent of those that wait, whoever they belong to.
    assert claimed(connection, process) == [third]
    end(connection, third)
    assert claimed(connection, process) == [second]


def test_the_place_of_one_that_was_stopped_in_line_goes_to_the_next(connection: Connection) -> None:
    process = join(connection)
    limited: dict[str, Any] = {"labels": [], "limit_key": "k", "limit_most": 1}
    runs = [do.start(connection, do.operator(connection, name), **limited) for name in "abc"]
    assert claimed(connection, process) == runs[:1]
    end(connection, runs[0])
    do.stop(connection, runs[1])  # put back into line, and stopped before anybody came for it
    assert claimed(connection, process) == []
    housekeeping.reap(connection, quiet=1e6)
    assert claimed(connection, process) == runs[2:]


def test_a_blocked_run_keeps_its_place_before_others_of_its_instance(connection: Connection) -> None:
    process, operator = join(connection), do.operator(connection, "op")
    limited: dict[str, Any] = {"labels": [], "limit_key": "k", "limit_most": 1}
    holder = do.start(connection, do.operator(connection, "holder"), **limited)
    assert claimed(connection, process) == [holder]
    first = do.start(connection, operator, **limited)
    assert claimed(connection, process) == []
    second = do.start(connection, operator, claimable=False)
    connection.execute("SELECT pgsig_private.release_next(%s, '')", [operator])
    assert claimed(connection, process) == []
    end(connection, holder)
    assert claimed(connection, process) == [first]
    end(connection, first)
    assert claimed(connection, process) == [second]


def test_a_runner_takes_what_it_has_the_labels_for(connection: Connection) -> None:
    operator = do.operator(connection, "op", on_busy="parallel(9)")
    plain, gpu, both = (
        do.start(connection, operator, slots=9, labels=labels) for labels in ([], ["gpu"], ["gpu", "eu"])
    )
    assert claimed(connection, join(connection)) == [plain]
    assert claimed(connection, join(connection, "gpu", "us"), "gpu", "us") == [gpu]
    assert claimed(connection, join(connection, "eu", "gpu"), "eu", "gpu") == [both]


def test_a_limited_pool_leaves_room_for_others(connection: Connection) -> None:
    connection.execute("SELECT pgsig.limit_pool('small', 1)")
    operator, pools = do.operator(connection, "op", on_busy="parallel(9)"), ("small", "large")
    small = [do.start(connection, operator, slots=9, pool="small", priority=9) for _ in range(3)]
    large = do.start(connection, operator, slots=9, pool="large")
    process = join(connection, pools=pools)
    assert claimed(connection, process, pools=pools) == [small[0], large]
    connection.execute("SELECT pgsig.limit_pool('small', NULL)")
    assert claimed(connection, process, pools=pools) == small[1:]


@pytest.mark.parametrize(("pool", "most"), [("Small", 1), ("", 1), (None, 1), ("small", -1)])
def test_a_limit_that_is_none_is_refused(connection: Connection, pool: Any, most: int) -> None:
    with pytest.raises(psycopg.Error) as refused:
        connection.execute("SELECT pgsig.limit_pool(%s, %s)", [pool, most])
    assert refused.value.sqlstate == "PS206"
    assert refused.value.diag.message_hint


def test_parameters_come_from_the_newest_signal_that_has_them(connection: Connection) -> None:
    paths = {"model": "$.id", "auc": "$.auc", "none": "$.nothing"}
    operator = do.operator(connection, "op", params={"auc": 0, "size": 1}, params_from=paths)
    signals = [
        (connection.execute("SELECT pgsig.emit('a', %s::jsonb)", [value]).fetchone() or (0,))[0]
        for value in ('{"id": "m1", "auc": 0.5}', '{"id": "m2"}', "null", '{"id": "later"}')
    ]
    do.start(connection, operator, params={"auc": 0, "size": 1}, evidence=signals[:3])
    (grant,) = jobs.claim(connection, join(connection), ["default"], 1).grants
    assert grant.params == {"model": "m2", "auc": 0.5, "size": 1}
