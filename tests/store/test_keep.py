"""Storage over time: partitions come and go without an emitter waiting, old rows go, and what still matters stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from pgsig.engine import Engine
from pgsig.keeper import Keeper
from pgsig.store.database import Connection as Mine
from pgsig.store.database import Database, connect, query
from pgsig.store.housekeeping import CHORES, SELDOM, Progress, drop_old_partitions, look_after, prune
from pgsig.store.migrate import alembic_config
from tests.store.bygone import LONG_AGO, OLD, old_partition, pass_all
from tests.support import wait_for
from tests.support_core import Background, Connection, announce_all, one, operator


@pytest.fixture
def keeper(database: str) -> Iterator[Mine]:
    """A connection as the housekeeping has it."""
    with connect(database, name="keeper") as connection:
        yield connection


@pytest.fixture
def sessions(database: str) -> Iterator[tuple[Connection, Connection]]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(psycopg.connect(database, autocommit=True)) for _ in range(2))
        yield first, second


def state(connection: Connection) -> str | None:
    found: str | None = one(connection, "SELECT state FROM pgsig_private.partitions() WHERE name = %s", OLD)
    return found


def waits_in(connection: Connection, other: psycopg.Connection[Any]) -> bool:
    return bool(one(connection, "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted", other.info.backend_pid))


def emit_at_once(connection: Connection) -> None:
    """Emit, and fail if that has to wait."""
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '50ms'")
        connection.execute("INSERT INTO pgsig.signals (key) VALUES ('at.once')")


# ── partitions ──


def test_emitters_never_wait(keeper: Mine, connection: Connection, sessions: tuple[Connection, Connection]) -> None:
    """While a partition that is to go waits for a transaction that used the log, others emit; and while new ones are attached."""
    old_partition(connection, "a")
    busy, other = sessions
    with busy.transaction():
        busy.execute("INSERT INTO pgsig.signals (key) VALUES ('open')")
        going = Background(lambda: drop_old_partitions(keeper, patience=1.5))
        wait_for(lambda: waits_in(connection, keeper), about="the detach to wait")
        emit_at_once(other)
        assert one(other, "SELECT count(*) FROM pgsig.signals WHERE key = 'at.once'") == 1
        assert going.result() == []  # it does not wait for ever
        assert state(connection) == "detaching"
        emit_at_once(other)
    assert drop_old_partitions(keeper) == [OLD]  # what was interrupted is finished
    assert state(connection) is None
    assert one(connection, "SELECT to_regclass(%s)", f"pgsig_private.{OLD}") is None


def test_the_naive_way_makes_emitters_wait(connection: Connection, sessions: tuple[Connection, Connection]) -> None:
    """What `test_emitters_never_wait` would find if partitions were detached in one go: everybody stands behind the one who waits."""
    old_partition(connection, "a")
    busy, other = sessions
    busy.execute("BEGIN")
    busy.execute("INSERT INTO pgsig.signals (key) VALUES ('open')")
    naive = Background(
        lambda: connection.execute(f"ALTER TABLE pgsig_private.signal DETACH PARTITION pgsig_private.{OLD}".encode())
    )
    wait_for(lambda: waits_in(other, connection), about="the detach to wait")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        emit_at_once(other)
    busy.execute("COMMIT")
    naive.result()


def test_attaching_the_days_to_come_waits_for_nobody(
    connection: Connection, sessions: tuple[Connection, Connection]
) -> None:
    busy, other = sessions
    with busy.transaction():
        busy.execute("INSERT INTO pgsig.signals (key) VALUES ('open')")
        newest = one(connection, "SELECT max(name) FROM pgsig_private.partitions()")
        connection.execute("SET lock_timeout = '50ms'")
        # From now on they are longer: it is time for the next one, which begins where the last one ends.
        connection.execute("UPDATE pgsig_private.setting SET value = '20' WHERE name = 'partition_days'")
        with connection.transaction():
            connection.execute(query("prepare_days"))
            emit_at_once(other)  # while the attach is not committed
        assert one(connection, "SELECT max(name) FROM pgsig_private.partitions()") > newest
    gaps = (
        "SELECT count(*) FROM (SELECT ends, lead(name) OVER (ORDER BY ends) AS next FROM pgsig_private.partitions()) p"
    )
    assert one(connection, f"{gaps} WHERE next <> 'signals_' || to_char(ends AT TIME ZONE 'UTC', 'YYYYMMDD')") == 0
    assert one(connection, "SELECT max(ends) > now() + interval '40 days' FROM pgsig_private.partitions()")


def storage_parameters(connection: Connection) -> dict[str, set[str]]:
    """Of the log's partitions, and of the tables beside it that grow as fast."""
    found = connection.execute(
        "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'pgsig_private'::regnamespace AND relkind = 'r'"
        " AND (relname ~ '^signals_' OR relname IN ('action', 'outcome', 'event', 'log'))"
    )
    return {name: set(options or ()) for name, options in found.fetchall()}


def migration(name: str) -> Any:
    """Its module, whatever its number."""
    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return next(script.module for script in scripts if script.path.endswith(f"_{name}.py"))


def test_what_only_grows_is_vacuumed_and_analyzed_in_time(
    database: str, connection: Connection, sessions: tuple[Connection, Connection]
) -> None:
    """New partitions, and those of before: a migration gives it to them, for which no emitter waits, nor it for any."""
    soon = {"autovacuum_vacuum_insert_scale_factor=0.02", "autovacuum_analyze_scale_factor=0.02"}
    dead = {"autovacuum_vacuum_scale_factor=0.02", "autovacuum_vacuum_threshold=10000"}
    partition = {*soon, "autovacuum_freeze_min_age=0"}
    wanted = storage_parameters(connection)
    assert len(wanted) == 3 + 4
    for name, options in wanted.items():
        assert options == (partition if name.startswith("signals_") else dead | soon), name
    old_partition(connection, "a")
    with closing(Database(database, size=1)) as server, server.engine.connect() as migrating:

        def run(step: str) -> None:
            with Operations.context(MigrationContext.configure(migrating)):
                getattr(migration("vacuum_what_only_comes"), step)()

        run("downgrade")
        without = storage_parameters(connection)
        assert set(without) == {*wanted, OLD}
        assert all(options == (set() if name.startswith("signals_") else dead) for name, options in without.items())
        busy, other = sessions
        with busy.transaction():
            busy.execute("INSERT INTO pgsig.signals (key) VALUES ('open')")
            Background(lambda: run("upgrade")).result()
            emit_at_once(other)
    assert storage_parameters(connection) == {**wanted, OLD: partition}


@pytest.mark.parametrize("how", ["killed", "before the drop"])
def test_what_was_interrupted_is_finished(
    keeper: Mine, connection: Connection, sessions: tuple[Connection, Connection], how: str
) -> None:
    old_partition(connection, "a")
    busy, _ = sessions
    if how == "killed":
        with busy.transaction():
            busy.execute("INSERT INTO pgsig.signals (key) VALUES ('open')")
            with psycopg.connect(connection.info.dsn, password=connection.info.password, autocommit=True) as victim:
                doomed = Background(
                    lambda: victim.execute(
                        f"ALTER TABLE pgsig_private.signal DETACH PARTITION pgsig_private.{OLD} CONCURRENTLY".encode()
                    )
                )
                wait_for(lambda: waits_in(connection, victim), about="the detach to wait")
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [victim.info.backend_pid])
                with pytest.raises(psycopg.errors.AdminShutdown):
                    doomed.result()
        assert state(connection) == "detaching"
    else:
        connection.execute(
            f"ALTER TABLE pgsig_private.signal DETACH PARTITION pgsig_private.{OLD} CONCURRENTLY".encode()
        )
        assert state(connection) == "detached"
    assert drop_old_partitions(keeper) == [OLD]


def test_a_partition_with_signals_to_evaluate_stays(keeper: Mine, connection: Connection) -> None:
    old_partition(connection)
    connection.execute("INSERT INTO pgsig.signals (key, emitted_at) VALUES ('a', %s)", [LONG_AGO])
    assert drop_old_partitions(keeper) == []
    with connect(keeper.info.dsn, name="engine", password=keeper.info.password) as mine:
        Engine(mine).step()
    assert drop_old_partitions(keeper) == [OLD]


def test_a_signal_that_was_open_all_that_time_is_not_dropped(
    database: str, keeper: Mine, connection: Connection, sessions: tuple[Connection, Connection]
) -> None:
    """A transaction that was open all that time, seen by nobody. From a detach on nobody would read what it has written."""
    old_partition(connection, "a")
    busy, _ = sessions
    busy.execute("BEGIN")
    busy.execute("INSERT INTO pgsig.signals (key, emitted_at) VALUES ('late', %s)", [LONG_AGO])
    assert drop_old_partitions(keeper) == []
    assert state(connection) == "attached"
    busy.execute("COMMIT")
    assert drop_old_partitions(keeper) == []
    assert state(connection) == "attached"
    with connect(database, name="engine") as mine:
        assert Engine(mine).step().taken == 1
    assert drop_old_partitions(keeper) == [OLD]


def test_the_naive_way_passes_over_what_was_open_all_that_time(
    database: str, connection: Connection, sessions: tuple[Connection, Connection]
) -> None:
    """What `test_a_signal_that_was_open_all_that_time_is_not_dropped` would find if nobody looked who writes before the detach."""
    old_partition(connection, "a")
    busy, other = sessions
    busy.execute("BEGIN")
    busy.execute("INSERT INTO pgsig.signals (key, emitted_at) VALUES ('late', %s)", [LONG_AGO])
    naive = Background(
        lambda: other.execute(
            f"ALTER TABLE pgsig_private.signal DETACH PARTITION pgsig_private.{OLD} CONCURRENTLY".encode()
        )
    )
    wait_for(lambda: waits_in(connection, other), about="the detach to wait")
    busy.execute("COMMIT")
    naive.result()
    with connect(database, name="engine") as mine:
        connection.execute("SELECT pgsig.emit('b')")
        assert Engine(mine).step().taken == 1  # not the late one, and never again
    assert one(connection, "SELECT pgsig_private.drop_detached(%s)", OLD) is True


def test_a_partition_that_was_detached_with_signals_to_evaluate_is_put_back(
    database: str, keeper: Mine, connection: Connection
) -> None:
    old_partition(connection, "a")
    connection.execute("INSERT INTO pgsig.signals (key, emitted_at) VALUES ('late', %s)", [LONG_AGO])
    connection.execute(f"ALTER TABLE pgsig_private.signal DETACH PARTITION pgsig_private.{OLD} CONCURRENTLY".encode())
    assert drop_old_partitions(keeper) == []
    assert state(connection) == "attached"
    with connect(database, name="engine") as mine:
        assert Engine(mine).step().taken == 1
    assert drop_old_partitions(keeper) == [OLD]


def test_one_session_keeps_house_at_a_time(keeper: Mine, connection: Connection) -> None:
    old_partition(connection, "a")
    connection.execute("SELECT pg_advisory_lock(1885827945, 1001)")
    assert look_after(keeper, Progress()) == []
    connection.execute("SELECT pg_advisory_unlock(1885827945, 1001)")
    assert look_after(keeper, Progress()) == [OLD]
    assert (
        one(
            connection,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        == 0
    )


def test_a_keeper_works_and_ends_when_told(database: str, connection: Connection) -> None:
    old_partition(connection, "a")
    keeper = Keeper(database, "test")
    keeper.start()
    try:
        wait_for(lambda: state(connection) is None, about="the partition to go")
    finally:
        keeper.stop()


# ── signals that are needed longer than their partition ──


def test_what_is_still_needed_is_kept(database: str, keeper: Mine, connection: Connection) -> None:
    """Evidence of a live run, a half of a condition, a level, a held signal: each is found after its partition has gone."""
    operator(connection, "job", ("START", {"signal": "live"}))
    operator(connection, "pair", ("START", {"all": [{"signal": "half"}, {"signal": "other"}]}), by="none")
    operator(connection, "level", ("START", {"all": [{"signal": "go"}, {"signal": "flag", "sticky": True}]}), by="none")
    held = operator(connection, "held", ("START", {"signal": "held"}))
    connection.execute("UPDATE pgsig_private.operator SET paused = 'hold' WHERE id = %s", [held])
    announce_all(connection)
    old_partition(connection)
    for key in ("live", "half", "flag", "held", "nobody"):
        connection.execute(
            "INSERT INTO pgsig.signals (key, value, emitted_at) VALUES (%s, to_jsonb(%s::text), %s)",
            [key, key, LONG_AGO],
        )
    with connect(database, name="engine") as mine:
        engine = Engine(mine)
        while engine.step().taken:
            pass
        assert drop_old_partitions(keeper) == [OLD]
        kept = connection.execute("SELECT key FROM pgsig_private.kept_signal ORDER BY id").fetchall()
        assert [key for (key,) in kept] == ["live", "half", "flag", "held"]
        connection.execute("SELECT pgsig.emit(k) FROM unnest('{other,go}'::text[]) k")
        connection.execute("SELECT pgsig.resume('w.held')")
        while engine.step().taken:
            pass
    runner = one(
        connection,
        "INSERT INTO pgsig_private.process (role, name, host, pid, version, lease_until)"
        " VALUES ('runner', 'r', 'h', 1, '0', clock_timestamp() + interval '1 hour') RETURNING id",
    )
    causes = {
        name: {signal["key"]: signal["value"] for signal in cause}
        for name, cause in connection.execute(
            "SELECT operator, cause FROM pgsig_private.claim(%s, '{default}', 10)", [runner]
        )
    }
    assert causes == {
        "job": {"live": "live"},
        "pair": {"half": "half", "other": None},
        "level": {"go": None},  # a level is remembered, not consumed
        "held": {"held": "held"},
    }
    # No longer than that: the level still is one, the others were for runs that end.
    prune(keeper, Progress())
    assert one(connection, "SELECT count(*) FROM pgsig_private.kept_signal") == 4
    connection.execute("SELECT pgsig_private.report(id, epoch, 'succeeded') FROM pgsig_private.run ORDER BY id")
    prune(keeper, Progress())
    assert connection.execute("SELECT key FROM pgsig_private.kept_signal").fetchall() == [("flag",)]


# ── rows beside the log ──

AGES = {
    "outcomes": 40,
    "runs": 100,
    "logs": 40,
    "actions": 100,
    "reloads": 40,
    "processes": 10,
    "events": 40,
    "ticks": 40,
}


def milestone(connection: Connection, days: float) -> None:
    """As if the counters had been where they are now, so long ago."""
    connection.execute(
        "INSERT INTO pgsig_private.milestone SELECT clock_timestamp() - %s * interval '1 day',"
        " (SELECT last_value FROM pgsig_private.signal_id),"
        " (SELECT last_value FROM pgsig_private.action_id), (SELECT last_value FROM pgsig_private.run_id),"
        " (SELECT last_value FROM pgsig_private.process_id_seq), (SELECT last_value FROM pgsig_private.reload_id_seq)",
        [days],
    )


def run_of(
    connection: Connection, operator_id: int, subject: str, *, ended: float | None, last: bool = True, **more: Any
) -> int:
    """A run with its action, log, reload and event, that ended so many days ago. last: the one that its instance shows."""
    run, action = (one(connection, f"SELECT nextval('pgsig_private.{name}_id')") for name in ("run", "action"))
    signal = one(connection, "SELECT pgsig.emit('k', event_id => %s)", f"e{run}")
    connection.execute(
        "INSERT INTO pgsig_private.action (id, operator_id, rule_id, subject, action, result, version, cause_id, run_id, recorded_at)"
        " VALUES (%s, %s, 1, %s, 'START', 'recorded', 1, %s, %s, clock_timestamp() - interval '200 days')",
        [action, operator_id, subject, signal, run],
    )
    connection.execute(
        "INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth, evidence)"
        " VALUES (%s, %s, %s, 1, 1, %s, 1, %s)",
        [run, operator_id, subject, action, [signal]],
    )
    if last:
        connection.execute(
            "INSERT INTO pgsig_private.instance (operator_id, subject, run_id) VALUES (%s, %s, %s)"
            " ON CONFLICT (operator_id, subject) DO UPDATE SET run_id = excluded.run_id",
            [operator_id, subject, run],
        )
    if ended is not None:
        connection.execute(
            "UPDATE pgsig_private.run SET state = 'stopped', ended_at = clock_timestamp() - %s * interval '1 day',"
            " checkpoint = %s WHERE id = %s",
            [ended, json.dumps(more["checkpoint"]) if "checkpoint" in more else None, run],
        )
    connection.execute("INSERT INTO pgsig_private.log (run_id, seq, text) VALUES (%s, 1, 'line')", [run])
    connection.execute(
        "INSERT INTO pgsig_private.reload (run_id, action_id, state, ended_at)"
        " VALUES (%s, %s, 'acknowledged', clock_timestamp() - interval '50 days')",
        [run, action],
    )
    connection.execute(
        "INSERT INTO pgsig_private.outcome (signal_id, rule_id, subject, outcome, action_id) VALUES (%s, 1, %s, 'consumed', %s)",
        [signal, subject, action],
    )
    return int(run)


def count(connection: Connection, table: str) -> int:
    return int(one(connection, f"SELECT count(*) FROM pgsig_private.{table}"))


def test_what_is_past_its_time_goes_and_what_matters_stays(keeper: Mine, connection: Connection) -> None:
    job = operator(connection, "job", ("START", {"signal": "k"}))
    gone = [run_of(connection, job, "", ended=120, last=False), run_of(connection, job, "once", ended=120)]
    stays = {
        "still alive": run_of(connection, job, "alive", ended=None),
        "ended lately, though it began long ago": run_of(connection, job, "lately", ended=1),
        "the last of an operator without subject": run_of(connection, job, "", ended=120),
        "its checkpoint is what the next goes on from": run_of(
            connection, job, "c", ended=120, last=False, checkpoint=7
        ),
    }
    connection.execute(
        "INSERT INTO pgsig_private.instance (operator_id, subject, desired) VALUES (%s, 'c', 'running')", [job]
    )
    connection.execute("INSERT INTO pgsig_private.outcome (signal_id, rule_id, outcome) VALUES (1, 99, 'held')")
    milestone(connection, 150)
    prune(keeper, Progress())
    left = {row[0] for row in connection.execute("SELECT id FROM pgsig_private.run")}
    assert left == set(stays.values())
    assert {row[0] for row in connection.execute("SELECT subject FROM pgsig_private.instance")} == {
        "",
        "alive",
        "lately",
        "c",
    }
    assert {row[0] for row in connection.execute("SELECT run_id FROM pgsig_private.action")} == left
    # The logs of those that ended long ago are gone, though the runs are not.
    assert {row[0] for row in connection.execute("SELECT run_id FROM pgsig_private.log")} == {
        stays["still alive"], stays["ended lately, though it began long ago"]}  # fmt: skip
    assert connection.execute("SELECT outcome FROM pgsig_private.outcome").fetchall() == [("held",)]
    assert (count(connection, "event"), count(connection, "reload")) == (0, 0)
    assert not left & set(gone)


def test_ticks_processes_cursors(keeper: Mine, connection: Connection) -> None:
    job = operator(connection, "job", ("START", {"signal": "k"}))
    trigger = one(
        connection,
        "INSERT INTO pgsig_private.trigger (operator_id, name, spec) VALUES (%s, 't', '{}') RETURNING id",
        job,
    )
    for days in (50, 40, 2):
        connection.execute(
            "INSERT INTO pgsig_private.tick (trigger_id, due_at, signal_id) VALUES (%s, clock_timestamp() - %s * interval '1 day', 1)",
            [trigger, days],
        )
        connection.execute(
            "INSERT INTO pgsig_private.process (role, name, host, pid, version, lease_until, ended_at)"
            " VALUES ('runner', 'r', 'h', 1, '0', clock_timestamp(), clock_timestamp() - %s * interval '1 day')",
            [days],
        )
    holder = one(connection, "SELECT min(id) FROM pgsig_private.process")
    run = run_of(connection, job, "", ended=None)
    connection.execute(
        "UPDATE pgsig_private.run SET state = 'starting', runner_id = %s, slot = 0 WHERE id = %s", [holder, run]
    )
    for _ in range(150):
        pass_all(connection)
    milestone(connection, 60)
    prune(keeper, Progress(), limit=20)
    assert count(connection, "tick") == 1
    assert count(connection, "process") == 2  # one ended lately; one is to be seen dead by those who look after its run
    assert count(connection, "cursor") == 4 * 101


def test_nothing_goes_before_its_time_or_when_it_shall_stay_for_ever(keeper: Mine, connection: Connection) -> None:
    job = operator(connection, "job", ("START", {"signal": "k"}))
    run_of(connection, job, "", ended=120, last=False)
    prune(keeper, Progress())  # how old it is, is not known yet
    milestone(connection, 1)
    prune(keeper, Progress())
    tables = ("run", "action", "log", "outcome", "event", "reload")
    assert [count(connection, table) for table in tables] == [1] * 6
    milestone(connection, 150)
    connection.execute(
        "UPDATE pgsig_private.setting SET value = 'null' WHERE name LIKE '%\\_days' AND name NOT IN ('partition_days')"
    )
    prune(keeper, Progress())
    assert [count(connection, table) for table in tables] == [1] * 6


def test_no_step_looks_at_more_than_it_may_and_none_looks_twice(keeper: Mine, connection: Connection) -> None:
    """Rows that stay are passed over once, not at each step."""
    connection.execute("SELECT nextval('pgsig_private.signal_id') FROM generate_series(1, 1000)")
    connection.execute(
        "INSERT INTO pgsig_private.outcome (signal_id, rule_id, outcome)"
        " SELECT i, 1, CASE WHEN i <= 500 THEN 'held' ELSE 'consumed' END FROM generate_series(1, 1000) i"
    )
    milestone(connection, 60)
    progress, steps = Progress(), [count(connection, "outcome")]

    def pause(_: float) -> bool:
        steps.append(count(connection, "outcome"))
        return False

    assert prune(keeper, progress, pause, limit=100)["outcomes"] == 500
    assert len(steps) > 9
    assert all(before - after <= 100 for before, after in pairwise(steps))
    assert progress.after["outcomes"] == 1000
    assert count(connection, "outcome") == 500
    connection.execute("UPDATE pgsig_private.outcome SET outcome = 'expired'")
    assert prune(keeper, progress)["outcomes"] == 0  # passed: until tomorrow
    assert prune(keeper, Progress())["outcomes"] == 500


@pytest.mark.parametrize("name", sorted(set(CHORES) - set(SELDOM)))
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_old_rows_are_found_by_index(keeper: Mine, connection: Connection, name: str, mode: str) -> None:
    """Of much history a step reads what it may look at."""
    table = {"cursors": "cursor", "outcomes": "outcome", "logs": "log", "runs": "run", "actions": "action", "reloads": "reload",
             "processes": "process", "events": "event", "ticks": "tick", "forgotten": "state"}[name]  # fmt: skip
    fill(connection, table)
    milestone(connection, 1000)
    connection.execute(
        f"ANALYZE pgsig_private.{table}; ANALYZE pgsig_private.run; ANALYZE pgsig_private.milestone".encode()
    )
    given = {"after": 0, "limit": 50}
    with keeper.transaction(force_rollback=True):
        keeper.execute(query("row_by_row"))
        keeper.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
        text = f"EXPLAIN (ANALYZE, FORMAT JSON) {query(f'prune_{name}')}".encode()
        (plan,) = keeper.execute(text, given, prepare=True).fetchone() or ([],)
    for node in nodes(plan[0]["Plan"]):
        if node.get("Relation Name") == table:
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert read <= 400, node


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for part in node.get("Plans", ()):
        yield from nodes(part)


ROWS = 20_000
FILLED = {
    "cursor": "INSERT INTO pgsig_private.cursor (lane, seq, s1) SELECT 0, i, '10:10:' FROM generate_series(2, {n}) i",
    "outcome": "INSERT INTO pgsig_private.outcome (signal_id, rule_id, outcome) SELECT i, 1, 'consumed' FROM generate_series(1, {n}) i",
    "action": "INSERT INTO pgsig_private.action (id, operator_id, action, result, version, cause_id, rule_id, run_id)"
    " SELECT nextval('pgsig_private.action_id'), 1, 'START', 'recorded', 1, i, 1, i FROM generate_series(1, {n}) i",
    "process": "INSERT INTO pgsig_private.process (role, name, host, pid, version, lease_until, ended_at)"
    " SELECT 'web', 'w', 'h', 1, '0', now(), now() - interval '100 days' FROM generate_series(1, {n}) i",
    "reload": "INSERT INTO pgsig_private.reload (run_id, action_id, state, ended_at)"
    " SELECT i, i, 'failed', now() FROM generate_series(1, {n}) i",
    "state": "INSERT INTO pgsig_private.state (rule_id, subject, body, changed_at)"
    " SELECT 1, 's' || i, CASE WHEN i % 2 = 0 THEN '{{}}'::jsonb END, now() - interval '1 day' FROM generate_series(1, {n}) i",
    "event": "INSERT INTO pgsig_private.event SELECT 'default', 's', 'e' || i, i, '' FROM generate_series(1, {n}) i",
    "tick": "INSERT INTO pgsig_private.tick SELECT 1, now() - i * interval '1 hour', i FROM generate_series(1, {n}) i",
}


def fill(connection: Connection, table: str) -> None:
    connection.execute(f"SELECT nextval('pgsig_private.signal_id') FROM generate_series(1, {ROWS})".encode())
    job = operator(connection, "job", ("START", {"signal": "k"}))
    if table == "tick":
        connection.execute("INSERT INTO pgsig_private.trigger (operator_id, name, spec) VALUES (%s, 't', '{}')", [job])
    if table in ("run", "log"):
        connection.execute(
            f"INSERT INTO pgsig_private.run (id, operator_id, subject, generation, version, action_id, depth)"
            f" SELECT nextval('pgsig_private.run_id'), 1, 's' || i, 1, 1, i, 1 FROM generate_series(1, {ROWS}) i".encode()
        )
        connection.execute("UPDATE pgsig_private.run SET state = 'stopped', ended_at = now() - interval '300 days'")
        connection.execute("INSERT INTO pgsig_private.log (run_id, seq, text) SELECT id, 1, 'x' FROM pgsig_private.run")
        connection.execute(
            "INSERT INTO pgsig_private.instance (operator_id, subject, run_id) SELECT 1, subject, id FROM pgsig_private.run"
        )
        connection.execute("VACUUM ANALYZE pgsig_private.instance, pgsig_private.log")
    else:
        connection.execute(FILLED[table].format(n=ROWS).encode())
