"""Plans: what a worker, a runner and the pages read comes by index, in every partition, whether the planner knows the parameters or not.

The statements are the product's own, also those inside of functions: auto_explain tells how each one ran. PGSIG_PLAN_ROWS: so many signals,
and a fifth as many runs, actions and instances; `make plans` tries ten million.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from pgsig.engine import Engine
from pgsig.store import in_job, reading
from pgsig.store.database import query
from pgsig.store.reading import rows
from tests import support_jobs as jobs
from tests.support_core import Connection, one, operator

ROWS = int(os.environ.get("PGSIG_PLAN_ROWS", "100000"))
FIFTH = ROWS // 5
OLD = 4  # partitions of the past
COMMITS = 40
NEW = 999  # an operator that has neither run nor action yet
MODES = ["force_custom_plan", "force_generic_plan"]


@pytest.fixture(scope="module")
def history(plans_database: str) -> Iterator[Connection]:
    """Evaluated signals in six partitions, of many transactions, and runs that ended, of which one in a hundred failed."""
    with psycopg.connect(plans_database, autocommit=True) as connection:
        for number in range(1, OLD + 1):
            connection.execute(
                f"""DO $$ DECLARE
                    d timestamptz := to_timestamp(floor(extract(epoch FROM now()) / 604800) * 604800) - {number} * interval '7 days';
                BEGIN
                    EXECUTE format('CREATE TABLE pgsig_private.%I PARTITION OF pgsig_private.signal FOR VALUES FROM (%L) TO (%L)',
                        'signals_' || to_char(d AT TIME ZONE 'UTC', 'YYYYMMDD'), d, d + interval '7 days');
                END $$""".encode()
            )
        for number in range(20):
            operator(connection, f"o{number}", ("START", {"signal": f"k{number}"}))
        # What is written here is as it should be: no trigger has to look at each row.
        connection.execute("SET session_replication_role = replica")
        for number in range(COMMITS):
            weeks = OLD - number * (OLD + 1) // COMMITS
            connection.execute(
                f"""INSERT INTO pgsig_private.signal (lane, key, subject, emitted_at)
                    SELECT hashtextextended('default', 0) & 3, 'k' || i % 50, 's' || i % 1000,
                           clock_timestamp() - interval '7 days' * {weeks}
                    FROM generate_series(1, {ROWS // COMMITS}) i""".encode()
            )
        for statement in (
            "INSERT INTO pgsig_private.cursor (lane, seq, s1) SELECT lane, 2, pgsig_private.here() FROM pgsig_private.lane",
            "INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth, state, ended_at)"
            " SELECT nextval('pgsig_private.run_id'), 1 + i % 20, 's' || i, 1, 1, i, 1,"
            f" CASE WHEN i % 100 = 0 THEN 'failed' ELSE 'succeeded' END, now() FROM generate_series(1, {FIFTH}) i",
            "INSERT INTO pgsig_private.action (id, operator_id, action, result, version, cause_id, rule_id, run_id)"
            " SELECT nextval('pgsig_private.action_id'), 1 + i % 20, 'START', 'recorded', 1, i, 1 + i % 20, i"
            f" FROM generate_series(1, {FIFTH}) i",
            "INSERT INTO pgsig_private.instance (operator_id, subject, observed, generation, run_id)"
            f" SELECT 1 + i % 20, 's' || i, 'succeeded', 1, i FROM generate_series(1, {FIFTH}) i",
            "RESET session_replication_role",
            "ANALYZE",
        ):
            connection.execute(statement.encode())
        yield connection


@pytest.fixture
def log(history: Connection) -> Connection:
    """The history with nothing new in it."""
    while one(history, "SELECT count(*) FROM pgsig_private.take(1000)"):
        pass
    return history


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


@dataclass(frozen=True)
class Ran:
    """A statement, and the nodes of its plan that read a table, as they ran."""

    text: str
    scans: list[dict[str, Any]]


@contextlib.contextmanager
def watched(connection: Connection) -> Iterator[list[Ran]]:
    """All that a session runs, also inside of functions."""
    ran: list[Ran] = []

    def hear(diagnostic: psycopg.errors.Diagnostic) -> None:
        before, _, told = (diagnostic.message_primary or "").partition("plan:\n")
        if before.startswith("duration:"):
            found = json.loads(told)
            ran.append(Ran(found["Query Text"], list(_scans(found["Plan"]))))

    connection.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_level = notice; SET auto_explain.log_format = json;"
        "SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off; SET auto_explain.log_nested_statements = on;"
        "SET auto_explain.log_min_duration = 0"
    )
    connection.add_notice_handler(hear)
    yield ran
    connection.execute("SET auto_explain.log_min_duration = -1")  # the last statement tells when the next one comes
    connection.remove_notice_handler(hear)


def scans(connection: Connection, statement: str) -> list[dict[str, Any]]:
    """The nodes of a statement's plan that read a table, as they ran."""
    (plan,) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode()).fetchone() or ([],)
    return list(_scans(plan[0]["Plan"]))


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in node:
        yield node
    for part in node.get("Plans", ()):
        yield from _scans(part)


BIG = re.compile(r"signals_\d{8}|run|action|instance")
LOST = "Rows Removed by Filter", "Rows Removed by Index Recheck"  # read, and not wanted


def assert_by_index(found: list[dict[str, Any]], *, rows: int) -> None:
    """No big table is read from end to end, and no index is walked past what is wanted."""
    big = [node for node in found if BIG.fullmatch(node["Relation Name"]) and node["Actual Loops"]]
    assert big
    for node in big:
        read = (node["Actual Rows"] + sum(node.get(name, 0) for name in LOST)) * node["Actual Loops"]
        assert read <= rows, node
        assert node["Node Type"] != "Seq Scan" or read == 0, node  # a partition of days to come is empty


def assert_all_by_index(ran: list[Ran], *, rows: int) -> None:
    assert_by_index([node for statement in ran for node in statement.scans], rows=rows)


def those_with(ran: list[Ran], part: str) -> list[dict[str, Any]]:
    """What the statements that have a part in them read. There is at least one."""
    found = [statement.scans for statement in ran if part in statement.text]
    assert found, f"nothing with {part!r} ran"
    return [node for nodes in found for node in nodes]


# Parts of the statements of sql/api/20_take.sql.
LOOK = "ORDER BY random()"
WALK = "s.id <= v_done"
WINDOW = "pg_snapshot_xip(v_cursor.s1)"


@pytest.mark.parametrize("limit", [1, 500])
def test_take(log: Connection, limit: int) -> None:
    log.execute("SELECT pgsig.emit('new') FROM generate_series(1, 5)")
    with log.transaction(force_rollback=True), watched(log) as ran:
        taken = log.execute("SELECT key FROM pgsig_private.take(%s)", [limit]).fetchall()
    assert taken == [("new",)] * min(limit, 5)
    for part in LOOK, WINDOW:
        read = those_with(ran, part)
        assert_by_index(read, rows=10)
        assert {node.get("Index Name", "")[-len("lane_xid_id_idx") :] for node in read} >= {"lane_xid_id_idx"}
    assert not [statement for statement in ran if WALK in statement.text]


def test_take_in_vain(log: Connection) -> None:
    with log.transaction(force_rollback=True), watched(log) as ran:
        assert log.execute("SELECT key FROM pgsig_private.take(500)").fetchall() == []
    assert_by_index(those_with(ran, LOOK), rows=10)


def test_take_goes_on_by_position(log: Connection) -> None:
    """In the middle of a large window the next positions are read, and not the rest of the window for each batch."""
    log.execute("INSERT INTO pgsig.signals (key) SELECT 'many' FROM generate_series(1, 20000)")
    assert one(log, "SELECT count(*) FROM pgsig_private.take(100)") == 100
    with log.transaction(force_rollback=True), watched(log) as ran:
        assert log.execute("SELECT key FROM pgsig_private.take(100)").fetchall() == [("many",)] * 100
    read = those_with(ran, WALK)
    assert_by_index(read, rows=100)
    assert {node.get("Index Name", "")[-len("_id_idx") :] for node in read if node["Actual Loops"]} == {"_id_idx"}
    assert not [statement for statement in ran if WINDOW in statement.text]


def test_take_itself_reads_little(log: Connection) -> None:
    """By what the tables count: the window, not the history."""
    log.execute("SELECT pgsig.emit('new') FROM generate_series(1, 5)")
    counted = """
        SELECT coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint FROM pg_stat_xact_user_tables
         WHERE relname ~ '^signals'
    """
    with log.transaction(force_rollback=True):
        before = log.execute(counted.encode()).fetchone() or (0, 0)
        assert log.execute("SELECT key FROM pgsig_private.take(100)").fetchall() == [("new",)] * 5
        after = log.execute(counted.encode()).fetchone() or (0, 0)
    assert after[0] - before[0] == 0
    assert after[1] - before[1] <= 20


def test_a_step_of_a_worker(log: Connection) -> None:
    """take, lock_instances and record, of signals that start runs of instances that are there already and of new ones."""
    log.execute("SELECT pgsig.emit('k' || i % 20, subject => 's' || i * 7) FROM generate_series(1, 40) i")
    engine = Engine(log)
    with watched(log) as ran:
        step = engine.step(100)
    assert (step.taken, step.actions) == (40, 40)
    assert_all_by_index(ran, rows=100)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("who", ["page", "filtered", "pulse", "job"])
def test_followers(log: Connection, who: str, mode: str) -> None:
    """A page or a stream of the API, the keys that pulse, and a job that waits for signals: what became visible since they looked."""
    before = reading.here(log)
    log.execute("SELECT pgsig.emit('new') FROM generate_series(1, 5)")
    log.execute("SELECT pgsig.emit('k7')")  # of which there were many before
    after = reading.here(log)

    def arrivals(**want: Any) -> list[str]:
        return [row["key"] for row, _ in reading.arrivals(log, before, reading.Filter(**want)).signals]

    def filtered() -> list[str]:
        return arrivals(namespace="default", key="k7")

    def keys() -> list[str]:
        return reading.keys_between(log, before.s1, after.s1)

    def heard() -> list[str]:
        return [signal.key for signal in in_job.signals_after(log, "default", "^k7$", before.s1)[0]]

    look, found = {
        "page": (arrivals, ["new"] * 5 + ["k7"]), "filtered": (filtered, ["k7"]), "pulse": (keys, ["k7", "new"]), "job": (heard, ["k7"]),
    }[who]  # fmt: skip
    with log.transaction(force_rollback=True), watched(log) as ran:
        log.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
        assert sorted(look()) == sorted(found)
    assert_by_index(those_with(ran, "pg_snapshot_xip"), rows=10)


LISTS: dict[str, dict[str, Any]] = {
    "signals_of_key": {"namespaces": ["default"], "key": "k7"},
    "signals_window": {"regex": None, "subject": None, "source": None, "namespace": None},
    "signal": {"id": ROWS // 2},
    "runs": {"states": None, "subject": None, "namespace": None},
    "runs_of_operators": {"operators": [3, 4, NEW], "states": None, "subject": None},
    "runs_failed": {"operators": [], "states": ["failed"], "subject": None, "namespace": None},
    "runs_open": {"operators": [], "states": ["running"], "subject": None, "namespace": None},
    "actions": {"actions": None, "results": None, "subject": None, "namespace": None},
    "actions_of_operators": {"operators": [3, 4, NEW], "actions": None, "results": None, "subject": None},
}


@pytest.mark.parametrize("mode", MODES)
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
            f"INSERT INTO pgsig.signals (key) SELECT 'load' FROM generate_series(1, {min(ROWS, 1_000_000)});"
            " ANALYZE pgsig_private.signal".encode()
        )
        history.execute(
            "INSERT INTO pgsig_private.cursor (lane, seq, s1)"
            " SELECT lane, 1000000, pg_snapshot(format('%1$s:%1$s:', pg_current_xact_id()::text::bigint + 1)) FROM pgsig_private.lane"
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


def test_claim(log: Connection) -> None:
    """All that a runner's claim runs, with many more due than it gets, and some that want other labels."""
    log.execute("SELECT pgsig.emit('k' || i % 20, subject => 'claim' || i) FROM generate_series(1, 200) i")
    Engine(log).step(1000)
    log.execute("UPDATE pgsig_private.run SET labels = '{gpu}' WHERE subject IN ('claim1', 'claim2')")
    runner = one(
        log,
        "SELECT pgsig_private.join_processes('runner', 'r', 'h', 1, '', '{default,other}', 4, interval '1 minute')",
    )
    with log.transaction(force_rollback=True), watched(log) as ran:
        claimed = log.execute("SELECT id FROM pgsig_private.claim(%s, '{default,other}', 4)", [runner]).fetchall()
    assert len(claimed) == 4
    assert {node.get("Index Name") for node in those_with(ran, "r.labels <@ p_labels")} == {"run_claim"}
    assert_all_by_index(ran, rows=10)


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
