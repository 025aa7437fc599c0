"""A listener hears everything once, in the order of positions, also of what a large load has made, and reads little of it at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from pgsig.store import in_job, reading
from tests.support_core import Connection, one

SMALL = 25  # instead of the function's own numbers: rows that are sorted, positions of a step


@pytest.fixture
def small(connection: Connection) -> Connection:
    """What is large begins at some rows."""
    text = one(connection, "SELECT pg_get_functiondef('pgsig_private.hear'::regproc)")
    changed = text.replace("integer := 5000;", f"integer := {SMALL};").replace("integer := 20;", "integer := 2;")
    assert changed.count(f"integer := {SMALL};") == 2
    connection.execute(changed.encode())
    return connection


@pytest.fixture
def emitters(database: str) -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(psycopg.connect(database, autocommit=True)) for _ in range(3)]


def job(connection: Connection, cursor: str, pattern: str = "^k", most: int = 7) -> tuple[list[int], str]:
    found, cursor = in_job.signals_after(connection, "default", pattern, cursor, most=most)
    return [signal.id for signal in found], cursor


@pytest.mark.parametrize("seed", range(5))
def test_everything_is_heard_once_and_in_order(small: Connection, emitters: list[Connection], seed: int) -> None:
    """By a job and by a reader of the stream, while emitters overlap; some of what they emit is for others."""
    dice = random.Random(seed)
    jobs_cursor, cursor = one(small, "SELECT pgsig_private.cursor_here()"), reading.here(small)
    want = reading.Filter(key="k", namespace="default")
    by_job: list[int] = []
    by_tail: list[int] = []
    for _ in range(60):
        emitter = dice.choice(emitters)
        match dice.choice(("emit", "emit", "end", "hear")):
            case "emit":
                if emitter.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                    emitter.execute("BEGIN")
                key, space = dice.choice((("k", "default"), ("k", "default"), ("other", "default"), ("k", "n1")))
                many = dice.choice((1, 3, 3 * SMALL))
                emitter.execute(
                    "SELECT pgsig.emit(%s, namespace => %s) FROM generate_series(1, %s)", [key, space, many]
                )
            case "end":
                emitter.execute(dice.choice(("COMMIT", "COMMIT", "ROLLBACK")).encode())
            case "hear":
                found, jobs_cursor = job(small, jobs_cursor)
                assert found == sorted(found)
                by_job += found
                news = reading.arrivals(small, cursor, want, limit=9)
                cursor = news.cursor
                by_tail += [item["id"] for item, _ in news.signals]
    for emitter in emitters:
        emitter.execute("COMMIT")
    while True:
        before = jobs_cursor
        found, jobs_cursor = job(small, before)
        by_job += found
        if not found and ";" not in before + jobs_cursor:
            break
    while True:
        news = reading.arrivals(small, cursor, want, limit=9)
        by_tail, cursor = by_tail + [item["id"] for item, _ in news.signals], news.cursor
        if not news.signals and not news.more:
            break
    emitted = small.execute("SELECT id FROM pgsig.signals WHERE key = 'k' AND namespace = 'default' ORDER BY id")
    everything = [row[0] for row in emitted]
    assert len(everything) > 3 * SMALL
    assert sorted(by_tail) == everything
    assert sorted(by_job) == everything


def test_a_window_in_which_little_is_wanted_is_walked_in_steps(small: Connection) -> None:
    """Each look ends after some steps and says how far it came: no statement reads the whole of a large load."""
    cursor = one(small, "SELECT pgsig_private.cursor_here()")
    small.execute("INSERT INTO pgsig.signals (key) SELECT 'load' FROM generate_series(1, %s)", [10 * SMALL])
    small.execute("SELECT pgsig.emit('k')")
    looks, found = 0, list[int]()
    while not found:
        found, cursor = job(small, cursor)
        looks += 1
        assert found or ";" in cursor
    assert looks > 4
    assert ";" not in job(small, cursor)[1]


def test_a_page_of_a_large_window_reads_a_part_of_it(connection: Connection) -> None:
    """Where it is begun, the index alone is read for its lowest position; each page after that reads its own rows."""
    cursor = one(connection, "SELECT pgsig_private.cursor_here()")
    connection.execute("INSERT INTO pgsig.signals (key) SELECT 'k' FROM generate_series(1, 60000)")
    connection.execute("VACUUM ANALYZE pgsig_private.signal")
    found, cursor = in_job.signals_after(connection, "default", "^k", cursor)
    assert len(found) == 500
    counted = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_xact_user_tables WHERE relname LIKE 'signals%'"
    with connection.transaction():
        before = one(connection, counted)
        assert len(in_job.signals_after(connection, "default", "^k", cursor)[0]) == 500
        assert one(connection, counted) - before < 2000
