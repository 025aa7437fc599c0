"""Plans: what a worker and the pages read comes by index, in every partition, whether the planner knows the parameters or not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgsig.store.database import query
from pgsig.store.reading import rows
from tests import support_jobs as jobs
from tests.support_core import Connection, one, operator

ROWS = 100_000
OLD = 4  # partitions of the past
NEW = 999  # an operator that has neither run nor action yet

# The window of a lane as sql/api/20_take.sql has it, and as a page that follows the log has it.
TAKE = """
SELECT s.id FROM (
    SELECT * FROM pgsig.signals a WHERE a.lane = $1 AND a.xid >= pg_snapshot_xmax($2)
    UNION ALL
    SELECT * FROM pgsig.signals b WHERE b.lane = $1 AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip($2)))
) s
WHERE pg_visible_in_snapshot(s.xid, $3) AND s.id + 0 > $4 ORDER BY s.id + 0 LIMIT $5
"""
TYPES = "smallint, pg_snapshot, pg_snapshot, bigint, integer"


@pytest.fixture(scope="module")
def history(plans_database: str) -> Iterator[Connection]:
    """100,000 evaluated signals in six partitions, of many transactions, and a few new ones."""
    with psycopg.connect(plans_database, autocommit=True) as connection:
        for number in range(1, OLD + 1):
            connection.execute(
                f"""DO $$ DECLARE
                    d timestamptz := to_timestamp(floor(extract(epoch FROM now()) / 604800) * 604800) - {number} * interval '7 days';
                BEGIN
                    EXECUTE format('CREATE TABLE pgsig_private.%I PARTITION OF pgsig.signals FOR VALUES FROM (%L) TO (%L)',
                        'signals_' || to_char(d AT TIME ZONE 'UTC', 'YYYYMMDD'), d, d + interval '7 days');
                END $$""".encode()
            )
        for number in range(40):
            connection.execute(
                f"""INSERT INTO pgsig.signals (key, subject, emitted_at)
                    SELECT 'k' || i % 50, 's' || i % 1000, clock_timestamp() - interval '7 days' * {number % (OLD + 1)}
                    FROM generate_series(1, {ROWS // 40}) i""".encode()
            )
        connection.execute(
            "INSERT INTO pgsig_private.cursor (lane, seq, s1) SELECT lane, 2, pg_current_snapshot() FROM pgsig_private.lane"
        )
        for number in range(20):
            operator(connection, f"o{number}", ("START", {"signal": f"k{number}"}))
        connection.execute(
            "INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth)"
            " SELECT i, 1 + i % 20, 's' || i, 1, 1, i, 1 FROM generate_series(1, 20000) i"
        )
        connection.execute(
            "INSERT INTO pgsig_private.action (id, operator_id, action, result, version, cause_id, rule_id)"
            " SELECT i, 1 + i % 20, 'START', 'recorded', 1, i, 1 FROM generate_series(1, 20000) i"
        )
        connection.execute("SELECT pgsig.emit('new') FROM generate_series(1, 5)")
        connection.execute("ANALYZE")
        yield connection


@pytest.fixture(scope="module")
def plans_database(admin: Connection, server_dsn: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database for all tests of this file."""
    from psycopg.conninfo import make_conninfo

    from pgsig.store.migrate import migrate

    name = f"pgsig_plans_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
    admin.execute(f"CREATE DATABASE {name}".encode())
    address = make_conninfo(server_dsn, dbname=name)
    migrate(address)
    yield address
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def scans(connection: Connection, statement: str) -> list[dict[str, Any]]:
    """The nodes of a statement's plan that read a table, as they ran."""
    (plan,) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode()).fetchone() or ([],)
    return list(_scans(plan[0]["Plan"]))


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in node:
        yield node
    for part in node.get("Plans", ()):
        yield from _scans(part)


BIG = re.compile(r"signals_\d{8}|run|action")


def assert_by_index(found: list[dict[str, Any]], *, rows: int) -> None:
    """No big table is read from end to end, and no index is walked past what is wanted."""
    big = [node for node in found if BIG.fullmatch(node["Relation Name"]) and node["Actual Loops"]]
    assert big
    for node in big:
        read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        assert read <= rows, node
        assert node["Node Type"] != "Seq Scan" or read == 0, node  # a partition of days to come is empty


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan", "auto"])
@pytest.mark.parametrize("limit", [1, 500])
def test_take(history: Connection, mode: str, limit: int) -> None:
    history.execute(f"SET plan_cache_mode = {mode}; SET enable_seqscan = off".encode())
    history.execute(f"PREPARE take ({TYPES}) AS {TAKE}".encode())
    lane, begin = history.execute(
        "SELECT lane, s1 FROM pgsig_private.cursor WHERE lane = (hashtextextended('default', 0) & 3) ORDER BY seq DESC LIMIT 1"
    ).fetchone() or (0, "")
    try:
        found: list[dict[str, Any]] = []
        for _ in range(7):  # in `auto` the plan may turn generic at the sixth
            found = scans(history, f"EXECUTE take({lane}, '{begin}', pg_current_snapshot(), 0, {limit})")
        assert_by_index(found, rows=10)
        assert {node.get("Index Name", "")[-len("lane_xid_id_idx") :] for node in found} >= {"lane_xid_id_idx"}
    finally:
        history.execute("DEALLOCATE take; RESET plan_cache_mode; RESET enable_seqscan")


def test_take_itself_reads_little(history: Connection) -> None:
    """The statements inside the function, by what the tables count: the window, not the history."""
    counted = """
        SELECT coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint FROM pg_stat_xact_user_tables
         WHERE relname ~ '^signals'
    """
    for mode in ("force_custom_plan", "force_generic_plan"):
        with history.transaction(force_rollback=True):
            history.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
            before = history.execute(counted.encode()).fetchone() or (0, 0)
            taken = history.execute("SELECT key FROM pgsig_private.take(100)").fetchall()
            assert taken == [("new",)] * 5
            after = history.execute(counted.encode()).fetchone() or (0, 0)
        assert after[0] - before[0] == 0
        assert after[1] - before[1] <= 20


LISTS: dict[str, dict[str, Any]] = {
    "signals_of_key": {"namespaces": ["default"], "key": "k7"},
    "signals_window": {"regex": None, "subject": None, "source": None, "namespace": None},
    "signal": {"id": ROWS // 2},
    "runs": {"states": None, "subject": None, "namespace": None},
    "runs_of_operators": {"operators": [3, 4, NEW], "states": None, "subject": None},
    "runs_failed": {"operators": [], "states": ["lost"], "subject": None, "namespace": None},
    "runs_open": {"operators": [], "states": ["running"], "subject": None, "namespace": None},
    "actions": {"actions": None, "results": None, "subject": None, "namespace": None},
    "actions_of_operators": {"operators": [3, 4, NEW], "actions": None, "results": None, "subject": None},
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", LISTS)
def test_lists(history: Connection, name: str, mode: str) -> None:
    """The last page of a list: 50 rows, of whatever size the table is."""
    given = {"above": 0, "below": 2**63 - 1, "limit": 50, "chars": 200, **LISTS[name]}
    with history.transaction():
        history.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
        text = "EXPLAIN (ANALYZE, FORMAT JSON) " + query(name)
        (plan,) = history.execute(text.encode(), given, prepare=True).fetchone() or ([],)
    found = list(_scans(plan[0]["Plan"]))
    assert_by_index(found, rows=200)  # each partition may give its own 50 rows before they are merged


def test_bounds_are_two_look_ups(history: Connection) -> None:
    found = scans(history, query("signal_bounds"))
    assert_by_index(found, rows=1)


def test_lag_reads_the_window_only(history: Connection) -> None:
    """Also where one transaction wrote much of the log, as a load does: the planner then expects as much of any window."""
    with history.transaction(force_rollback=True):
        history.execute(
            f"INSERT INTO pgsig.signals (key) SELECT 'load' FROM generate_series(1, {ROWS}); ANALYZE pgsig.signals".encode()
        )
        history.execute(
            "INSERT INTO pgsig_private.cursor (lane, seq, s1)"
            " SELECT lane, 3, pg_snapshot(format('%1$s:%1$s:', pg_current_xact_id()::text::bigint + 1)) FROM pgsig_private.lane"
        )
        before = log_rows_read(history)
        assert [lane["waiting"] for lane in rows(history, "lag")] == [0] * 4
        assert log_rows_read(history) - before <= 20


def log_rows_read(connection: Connection) -> int:
    """Rows of the log that this transaction has read so far, by what the tables count."""
    return int(
        one(
            connection,
            "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables WHERE relname ~ '^signals'",
        )
    )


def test_claim_index_serves_a_claim(history: Connection) -> None:
    assert one(history, "SELECT count(*) FROM pg_indexes WHERE indexname = 'run_claim'") == 1
    history.execute("UPDATE pgsig_private.run SET claimable_at = now() WHERE id <= 10")
    history.execute("ANALYZE pgsig_private.run")
    found = scans(
        history,
        "SELECT r.id FROM pgsig_private.run r WHERE r.pool = ANY ('{default}') AND r.state IN ('queued', 'retrying')"
        " AND r.claimable_at <= clock_timestamp() ORDER BY r.priority DESC, r.claimable_at, r.id LIMIT 4",
    )
    assert_by_index(found, rows=10)


def test_plans_made_when_tables_were_small_stay_right(connection: Connection) -> None:
    """A worker that was there before the first run keeps its plans while the tables grow, faster than statistics do."""
    act = operator(connection, "o", ("START", {"signal": "k"}))
    lock = (
        "SELECT count(*) FROM pgsig_private.lock_instances("
        "array_fill(%s::bigint, ARRAY[%s]), ARRAY(SELECT 's' || i FROM generate_series(1, %s) i))"
    )
    row = '{"operator_id": %s, "subject": "s%s", "desired": "running", "generation": 1}'
    record = "SELECT pgsig_private.record(jsonb_build_object('instances', %s::jsonb))"
    counted = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'instance'"
    connection.execute("ALTER TABLE pgsig_private.instance SET (autovacuum_enabled = off)")
    for _ in range(7):
        one(connection, lock, act, 1, 1)
        connection.execute(record.encode(), ["[" + row % (act, 1) + "]"])
    connection.execute(
        "INSERT INTO pgsig_private.instance (operator_id, subject) SELECT %s, 's' || i FROM generate_series(2, 20000) i",
        [act],
    )
    with connection.transaction():
        assert one(connection, lock, act, 100, 100) == 100
        connection.execute(record.encode(), ["[" + ",".join(row % (act, i) for i in range(1, 101)) + "]"])
        read, fetched = connection.execute(counted.encode()).fetchone() or (0, 0)
    assert (read, fetched <= 1000) == (0, True)


def test_an_emitter_that_was_there_before_the_first_event_looks_by_index(connection: Connection) -> None:
    act = operator(connection, "o")
    connection.execute(
        "ALTER TABLE pgsig_private.event SET (autovacuum_enabled = off); ALTER TABLE pgsig_private.run SET (autovacuum_enabled = off)"
    )
    run = "INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth)"
    connection.execute(f"{run} VALUES (1, {act}, '', 1, 1, 1, 1)".encode())
    for _ in range(7):
        one(connection, "SELECT pgsig.emit('k', event_id => 'e', run_id => 1)")
    load = "jsonb_build_object('key', 'k', 'event_id', i::text)"
    one(connection, f"SELECT count(*) FROM pgsig.emit_many((SELECT jsonb_agg({load}) FROM generate_series(1, 3000) i))")
    connection.execute(f"{run} SELECT i, {act}, 's' || i, 1, 1, i, 1 FROM generate_series(2, 3000) i".encode())
    counted = "SELECT sum(seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname IN ('event', 'run')"
    with connection.transaction():
        before = one(connection, counted)
        one(connection, "SELECT pgsig.emit('k', event_id => '7', run_id => 7)")
        assert one(connection, counted) - before == 0


def test_a_quiet_lane_is_looked_at_by_index(history: Connection) -> None:
    """What take asks first: which lanes look as if something were new."""
    (text,) = history.execute("SELECT prosrc FROM pg_proc WHERE oid = 'pgsig_private.take'::regproc").fetchone() or (
        "",
    )
    found = re.search(r"v_look := ARRAY\(\s+(SELECT.*?)\);", text, re.DOTALL)
    assert found
    for mode in ("force_custom_plan", "force_generic_plan"):
        with history.transaction():
            history.execute(f"SET LOCAL plan_cache_mode = {mode}; SET LOCAL enable_seqscan = off".encode())
            assert_by_index(scans(history, found[1]), rows=10)


def test_an_end_reads_nothing_of_the_runs_before(connection: Connection) -> None:
    """Also that of a run that nobody has begun, where nothing of its instance is alive: what is to be seen then is that very run."""
    act = operator(connection, "o", ("START", {"signal": "k"}))
    connection.execute(
        "INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth)"
        " SELECT nextval('pgsig_private.run_id'), %s, '', 1, 1, i, 1 FROM generate_series(1, 20000) i",
        [act],
    )
    connection.execute("UPDATE pgsig_private.run SET state = 'stopped', ended_at = clock_timestamp()")
    connection.execute("ANALYZE pgsig_private.run")
    run = jobs.start(connection, act)
    counted = "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'run'"
    with connection.transaction():
        before = one(connection, counted)  # what this session has not told the collector yet is in it
        connection.execute(
            "SELECT pgsig_private.record(jsonb_build_object('stops', jsonb_build_array(%s::bigint)))", [run]
        )
        assert one(connection, counted) - before <= 20
    seen = connection.execute(
        "SELECT observed, desired, run_id FROM pgsig_private.instance WHERE operator_id = %s", [act]
    )
    assert seen.fetchall() == [("stopped", "stopped", run)]
