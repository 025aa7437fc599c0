"""What retention has dropped: a listener that has not heard some of it is told so, and one that has goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from pgsig.errors import InvalidInput
from pgsig.store import in_job, reading
from pgsig.store.database import Connection as Mine
from pgsig.store.database import connect
from pgsig.store.housekeeping import drop_old_partitions
from tests.store.bygone import OLD, long_ago, old_partition, pass_all
from tests.support import wait_for
from tests.support_core import Background, Connection, one

ANY = r"^[a-z]+(\.[a-z0-9]+)*$"


@pytest.fixture
def keeper(database: str) -> Iterator[Mine]:
    with connect(database, name="keeper") as connection:
        yield connection


def here(connection: Connection) -> str:
    """A cursor of now, with no transaction of another database in it: such a one may have dropped something, too, for all one knows."""
    of_ours = (
        "SELECT pgsig_private.cursor_here() WHERE NOT EXISTS (SELECT FROM pg_snapshot_xip(pg_current_snapshot()) x WHERE NOT EXISTS ("
        "SELECT FROM pg_stat_activity a WHERE a.datname = current_database() AND a.backend_xid = x::xid))"
    )
    return str(wait_for(lambda: one(connection, of_ours), 60, about="the transactions of other databases to end"))


def drop(connection: Connection, keeper: Mine) -> None:
    pass_all(connection)
    assert drop_old_partitions(keeper) == [OLD]


def heard(connection: Connection, cursor: str, pattern: str = ANY, namespace: str = "default") -> list[str]:
    """What a job hears after a cursor, by its keys: in the rest of a window, and behind that."""
    found, cursor = in_job.signals_after(connection, namespace, pattern, cursor)
    more, _ = in_job.signals_after(connection, namespace, pattern, cursor)
    return [one.key for one in (*found, *more)]


def arrived(connection: Connection, cursor: str, key: str | None = None) -> list[str]:
    """The same for a reader of the stream."""
    s1, s2, done = (*cursor.split(";"), "", "")[:3]
    want = reading.Filter(key=key)
    first = reading.arrivals(connection, reading.Cursor(s1, s2, int(done or 0)), want)
    more = reading.arrivals(connection, first.cursor, want)
    return [item["key"] for item, _ in (*first.signals, *more.signals)]


def refused(listen: Callable[..., list[str]], *given: object) -> bool:
    """Whether a cursor is refused, with the code and the way out."""
    try:
        listen(*given)
    except InvalidInput as error:
        problem = error.problems[0]
        assert problem.code == "PS409"
        assert "dropped" in problem.message
        assert "after=here" in problem.fix
        assert "after=oldest" in problem.fix
        return True
    return False


@pytest.mark.parametrize("listen", [heard, arrived])
def test_who_has_not_heard_all_that_was_dropped_is_refused(
    keeper: Mine, connection: Connection, listen: Callable[..., list[str]]
) -> None:
    begin = here(connection)
    old_partition(connection, "a")
    middle = here(connection)
    long_ago(connection, "b")
    (first, last), end = in_job.signals_after(connection, "default", ANY, begin)
    connection.execute("SELECT pgsig.emit('c')")
    for cursor in (begin, middle, first.cursor):
        assert not refused(listen, connection, cursor)
    drop(connection, keeper)
    for cursor in (begin, middle, first.cursor):
        assert refused(listen, connection, cursor), cursor
    for cursor in (last.cursor, end):
        assert listen(connection, cursor) == ["c"], cursor


@pytest.mark.parametrize("listen", [heard, arrived])
def test_who_listens_to_something_rare_has_missed_nothing_of_the_rest(
    keeper: Mine, connection: Connection, listen: Callable[..., list[str]]
) -> None:
    """Its cursor is as old as the last signal of its own; what came after it is the others'."""
    begin = here(connection)
    old_partition(connection)
    long_ago(connection, "config.new")
    ((signal,), _) = in_job.signals_after(connection, "default", r"^config\.", begin)
    for _ in range(3):
        long_ago(connection, "often")
    long_ago(connection, "config.new", "elsewhere")
    drop(connection, keeper)
    pattern = r"^config\.new$" if listen is heard else "config.new"
    assert refused(listen, connection, begin, pattern)
    assert refused(listen, connection, signal.cursor)
    if listen is heard:
        assert heard(connection, signal.cursor, pattern) == []
        assert refused(heard, connection, signal.cursor, pattern, "elsewhere")
        assert heard(connection, begin, ANY, "third") == []
    else:
        assert refused(arrived, connection, signal.cursor, pattern), "of all namespaces"


def test_a_late_commit_that_was_dropped_unheard(keeper: Mine, connection: Connection, database: str) -> None:
    """Whoever had heard the one that was emitted later has not heard it; who was there when it came has."""
    begin = here(connection)
    old_partition(connection)
    with psycopg.connect(database) as late, psycopg.connect(database) as idle:
        long_ago(late, "k")
        idle.execute("SELECT pg_current_xact_id()")  # one that has nothing to do with it
        long_ago(connection, "k")
        before, cursor = in_job.signals_after(connection, "default", "^k", begin)
        assert len(before) == 1
        late.commit()
        after, end = in_job.signals_after(connection, "default", "^k", cursor)
        assert len(after) == 1
    drop(connection, keeper)
    for unheard in (cursor, before[0].cursor):
        assert refused(heard, connection, unheard, "^k")
    for all_of_it in (end, after[0].cursor):
        assert heard(connection, all_of_it, "^k") == []


def test_nobody_passes_over_what_is_about_to_go(keeper: Mine, connection: Connection, database: str) -> None:
    """While the detach waits, the partition is read no more, and not dropped."""
    begin = here(connection)
    old_partition(connection, "a")
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM pgsig.signals")
        going = Background(lambda: drop_old_partitions(keeper))
        waits = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"
        wait_for(lambda: one(connection, waits, keeper.info.backend_pid), about="the detach to wait")
        assert one(connection, "SELECT count(*) FROM pgsig.signals") == 0
        assert refused(heard, connection, begin)
        assert refused(arrived, connection, begin)
        reader.rollback()
        assert going.result() == [OLD]


def test_what_an_earlier_version_has_detached_is_noted_with_the_drop(keeper: Mine, connection: Connection) -> None:
    begin = here(connection)
    old_partition(connection, "a")
    connection.execute(f"ALTER TABLE pgsig_private.signal DETACH PARTITION pgsig_private.{OLD} CONCURRENTLY".encode())
    drop(connection, keeper)
    assert refused(heard, connection, begin)


def test_beginning_anew(keeper: Mine, connection: Connection, database: str) -> None:
    """From now on, or with what is left: of transactions that began after what was dropped."""
    assert one(connection, "SELECT pgsig_private.cursor_oldest()") == "1:1:"
    old_partition(connection)
    with psycopg.connect(database) as spanning:
        spanning.execute("SELECT pgsig.emit('spanning')")
        long_ago(connection, "a")
        spanning.commit()
    connection.execute("SELECT pgsig.emit(k) FROM unnest('{b,c}'::text[]) k")
    drop(connection, keeper)
    oldest = in_job.begin(connection, "default", "oldest")
    found, _ = in_job.signals_after(connection, "default", ANY, oldest, most=1)
    assert [one.key for one in found] == ["b"]
    assert heard(connection, found[0].cursor) == ["c"]
    assert heard(connection, in_job.begin(connection, "default", "here")) == []
    want = reading.Filter()
    start = reading.oldest(connection, want)
    assert [item["key"] for item, _ in reading.arrivals(connection, start, want).signals] == ["b", "c"]
    begun = reading.go_on(connection, start, want)
    assert begun == replace(start, s2=begun.s2)


# ── it stays small ──


def noted(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT namespace, key, count(*), bool_or(others IS NOT NULL) FROM pgsig_private.dropped GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()


def test_what_comes_often_is_noted_in_one_row(keeper: Mine, connection: Connection) -> None:
    old_partition(connection)
    for key, times in (("often", 201), ("seldom", 200)):
        for _ in range(times):
            long_ago(connection, key)
    middle = here(connection)
    long_ago(connection, "last")
    end = here(connection)
    drop(connection, keeper)
    assert noted(connection) == [
        ("default", "last", 1, False),
        ("default", "often", 1, True),
        ("default", "seldom", 200, False),
    ]
    assert heard(connection, middle, "^seldom$") == []
    assert refused(heard, connection, middle, "^often$"), "until where it came is not known"
    assert heard(connection, end, "^often$") == []


def test_a_forgotten_transaction_makes_nobody_late(keeper: Mine, connection: Connection, database: str) -> None:
    """It is older than what was dropped, and open in each cursor; so is one that ended before the drop in some, and may have been of it."""
    begin = here(connection)
    with psycopg.connect(database) as forgotten, psycopg.connect(database) as shorter:
        for other in (forgotten, shorter):
            other.execute("SELECT pg_current_xact_id()")
        old_partition(connection, *["often"] * 201)
        cursors = [here(connection), in_job.signals_after(connection, "default", ANY, begin)[1]]
        shorter.rollback()
        cursors.append(here(connection))
        drop(connection, keeper)
        cursors.append(here(connection))
        for first_look in (True, False):
            assert [refused(heard, connection, c) for c in cursors] == [True, True, False, False], first_look
            forgotten.rollback()


def test_many_keys_are_not_told_apart(keeper: Mine, connection: Connection) -> None:
    old_partition(connection)
    begin = here(connection)
    connection.execute(
        "INSERT INTO pgsig.signals (key, emitted_at) SELECT 'k' || i, '2020-01-03' FROM generate_series(1, 2001) i"
    )
    end = here(connection)
    drop(connection, keeper)
    assert one(connection, "SELECT count(*) FROM pgsig_private.dropped WHERE key = ''") == 1
    assert refused(heard, connection, begin, "^other$")
    assert heard(connection, end) == []


def test_more_transactions_than_are_noted(keeper: Mine, connection: Connection) -> None:
    """Each key comes seldom, and all of them together often: from some key on they count as those that come often."""
    old_partition(connection)
    begin = here(connection)
    for _ in range(190):
        connection.execute(
            "INSERT INTO pgsig.signals (key, emitted_at) SELECT 'k' || i, '2020-01-03' FROM generate_series(100, 219) i"
        )
    end = here(connection)
    drop(connection, keeper)
    found = {key: (count, others) for _, key, count, others in noted(connection)}
    assert found["k219"] == (1, True)
    assert found["k100"][1] is False
    assert sum(count for count, _ in found.values()) < 20_200
    for pattern in ("^k100$", "^k219$"):
        assert refused(heard, connection, begin, pattern)
        assert heard(connection, end, pattern) == []


def test_what_went_long_ago_is_not_told_apart(keeper: Mine, connection: Connection) -> None:
    old_partition(connection, "new")
    connection.execute(
        "INSERT INTO pgsig_private.dropped (xid, lane, namespace, key)"
        " SELECT (3 + i / 100)::text::xid8, i % 4, 'n', 'k' || i FROM generate_series(1, 20000) i"
    )
    drop(connection, keeper)
    assert one(connection, "SELECT count(*) FROM pgsig_private.dropped WHERE key <> ''") in range(19_800, 20_001)
    assert one(connection, "SELECT count(*) FROM pgsig_private.dropped WHERE key = '' AND others IS NOT NULL") == 4
    assert refused(heard, connection, "3:3:", "^whatever$")
    assert heard(connection, "5:5:", "^whatever$") == []


def test_what_goes_is_found_by_index(keeper: Mine, connection: Connection) -> None:
    """Of a partition of any size, the last look at it reads little."""
    old_partition(connection)
    connection.execute(
        "INSERT INTO pgsig.signals (key, emitted_at) SELECT 'k' || i % 3, '2020-01-03' FROM generate_series(1, 20000) i"
    )
    connection.execute(f"VACUUM ANALYZE pgsig_private.{OLD}".encode())
    pass_all(connection)
    read = f"SELECT pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid) FROM pg_class WHERE relname = '{OLD}'"
    with keeper.transaction():
        assert one(keeper, "SELECT pgsig_private.close_partition(%s)", OLD) is True
        assert one(keeper, read) < 1000
