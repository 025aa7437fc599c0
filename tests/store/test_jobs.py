"""What runners and jobs say to the database."""

from __future__ import annotations

import psycopg
import pytest

from pgsig import doorbell
from pgsig.errors import Conflict
from pgsig.model import State
from pgsig.store import housekeeping, in_job, jobs, output
from tests import support_jobs as do
from tests.support_core import Background, one, wait_until_blocked
from tests.support_jobs import Connection


@pytest.fixture
def process(connection: Connection) -> int:
    return join(connection)


def join(connection: Connection, lease: float = 60) -> int:
    return jobs.join(
        connection, name="r", host="h", pid=1, version="0", pools=["default"], labels=[], capacity=9, lease=lease
    )  # fmt: skip


def claim(connection: Connection, process: int) -> jobs.Grant:
    (grant,) = jobs.claim(connection, process, ["default"], 9).grants
    return grant


def test_a_grant_tells_all_that_a_job_needs(connection: Connection, process: int) -> None:
    (signal,) = connection.execute("SELECT pgsig.emit('a.b', '[1]', 's')").fetchone() or (0,)
    operator = do.operator(connection, "op", command=["x"], params={"a": 1, "b": 1})
    run = do.start(connection, operator, "s", evidence=[signal], params={"b": 2})
    grant = claim(connection, process)
    assert (grant.key, grant.workflow, grant.operator, grant.subject, grant.kind) == ((run, 1), "w", "op", "s", "batch")
    assert (grant.params, grant.action, grant.problem) == ({"a": 1, "b": 2}, "START", "")
    assert '"key": "a.b"' in grant.cause
    assert jobs.claim(connection, process, ["default"], 9).grants == []
    assert [(one.run_id, one.epoch) for one in jobs.held(connection, process)] == [grant.key]


def test_a_run_that_is_recorded_while_it_is_claimed_is_granted(
    connection: Connection, process: int, database: str
) -> None:
    """The claim sees it, and the statement that calls it does not: its grant is told all the same."""
    with psycopg.connect(database, autocommit=True) as claimer:
        with connection.transaction():
            connection.execute("LOCK pgsig_private.process")  # which the claim looks at first
            claiming = Background(lambda: jobs.claim(claimer, process, ["default"], 9).grants)
            wait_until_blocked(connection, claimer)
            run = do.start(connection, do.operator(connection, "op"))
        assert [grant.id for grant in claiming.result()] == [run]


def test_without_a_lease_nothing_is_claimed(connection: Connection, process: int) -> None:
    jobs.leave(connection, process)
    assert not jobs.renew(connection, process, lease=60)
    with pytest.raises(psycopg.Error) as caught:
        jobs.claim(connection, process, ["default"], 1)
    assert caught.value.sqlstate == "PS301"


def test_a_report_under_an_old_epoch_changes_nothing(connection: Connection, process: int) -> None:
    run = do.start(connection, do.operator(connection, "op"))
    old = claim(connection, process)
    assert jobs.report(connection, jobs.Report(*old.key, State.RUNNING)) == [True]
    assert jobs.report(connection, jobs.Report(*old.key, State.RETRYING, reason="nul \0 and lone \udc80")) == [True]
    assert jobs.report(connection, jobs.Report(*old.key, State.FAILED)) == [False]
    row = do.run_row(connection, run)
    assert (row["state"], row["attempt"], row["reason"]) == ("retrying", 2, "nul � and lone ?")
    new = claim(connection, process)
    assert new.epoch == old.epoch + 2
    assert not jobs.ready(connection, *old.key)


def test_an_attempt_that_is_not_charged_keeps_its_number(connection: Connection, process: int) -> None:
    do.start(connection, do.operator(connection, "op"))
    report = jobs.Report(*claim(connection, process).key, State.RETRYING, charged=False)
    assert jobs.report(connection, report) == [True]
    assert claim(connection, process).attempt == 1


def test_a_crash_loop_is_counted_wherever_the_next_attempt_runs(connection: Connection, process: int) -> None:
    run = do.start(connection, do.operator(connection, "op", "streaming"))
    grant = claim(connection, process)
    jobs.report(connection, jobs.Report(*grant.key, State.RUNNING, handle="7 123"))
    jobs.report(connection, jobs.Report(*grant.key, State.RETRYING, failures=4))
    other = join(connection)
    again = claim(connection, other)
    assert (again.failures, again.handle) == (4, None)
    jobs.report(connection, jobs.Report(*again.key, State.RUNNING, handle="8 456"))
    jobs.leave(connection, other)
    # A runner that is lost is not the job's failure, and what it left may be taken over: that is no new attempt.
    assert housekeeping.reap(connection, quiet=0) == 1
    last = claim(connection, process)
    assert (last.failures, last.handle, do.run_row(connection, run)["attempt"]) == (4, "8 456", 2)


def test_the_dead_are_looked_for_while_workers_are_awake(connection: Connection, process: int, database: str) -> None:
    """Under load some worker is awake all the time. Nor does a look for the dead look like a worker that is awake."""
    do.start(connection, do.operator(connection, "op"))
    claim(connection, process)
    jobs.leave(connection, process)
    with psycopg.connect(database, autocommit=True) as worker:
        worker.execute(doorbell.AWAKEN.encode())
        assert housekeeping.reap(connection, quiet=0) == 1
        worker.execute(doorbell.TIRE.encode())
        with connection.transaction():
            jobs.reap(connection, quiet=0)
            assert one(worker, doorbell.ANYBODY_AWAKE) is False


def test_a_checkpoint_goes_to_the_next_generation_of_what_never_ends(connection: Connection, process: int) -> None:
    for kind, inherited in (("streaming", '{"at": 7}'), ("batch", None)):
        operator = do.operator(connection, kind, kind)
        do.start(connection, operator)
        grant = claim(connection, process)
        jobs.report(connection, jobs.Report(*grant.key, State.RUNNING))
        in_job.note(connection, *grant.key, "checkpoint", {"at": 7})
        jobs.report(connection, jobs.Report(*grant.key, State.RETRYING))
        again = claim(connection, process)
        assert again.checkpoint == '{"at": 7}'
        jobs.report(connection, jobs.Report(*again.key, State.STOPPED))
        do.start(connection, operator)
        assert claim(connection, process).checkpoint == inherited


def test_a_handover_goes_on_where_its_own_predecessor_is(connection: Connection, process: int) -> None:
    operator = do.operator(connection, "op", "streaming", replicas=2)
    first, second = (do.start(connection, operator, slots=3) for _ in range(2))
    for grant in jobs.claim(connection, process, ["default"], 9).grants:
        jobs.report(connection, jobs.Report(*grant.key, State.RUNNING))
        in_job.note(connection, *grant.key, "checkpoint", grant.id)
    assert first < second
    do.start(connection, operator, slots=3, handover_of=first)
    assert claim(connection, process).checkpoint == str(first)


def test_reports_that_are_told_together_are_answered_each(connection: Connection, process: int) -> None:
    for number in range(3):
        do.start(connection, do.operator(connection, f"op{number}"))
    grants = jobs.claim(connection, process, ["default"], 9).grants
    running = [jobs.Report(*grant.key, State.RUNNING) for grant in grants]
    stale = jobs.Report(grants[1].id, grants[1].epoch + 1, State.FAILED)
    ended = jobs.Report(*grants[0].key, State.SUCCEEDED, exit_code=0, cpu_seconds=1.5, memory_peak=4096)
    assert jobs.report(connection, *running, stale, ended) == [True, True, True, False, True]
    row = do.run_row(connection, grants[0].id)
    assert (row["state"], row["cpu_seconds"], row["memory_peak"]) == ("succeeded", 1.5, 4096)


def test_each_state_is_a_signal_as_it_was_then_and_in_the_order_told(connection: Connection, process: int) -> None:
    """Also where a run begins and ends in one transaction; a result of null is one."""
    for number in range(2):
        do.start(connection, do.operator(connection, f"op{number}"))
    one, two = jobs.claim(connection, process, ["default"], 9).grants
    in_job.note(connection, *two.key, "result", None)
    reports = [
        jobs.Report(*one.key, State.RUNNING), jobs.Report(*one.key, State.FAILED, exit_code=3, reason="no"),
        jobs.Report(*two.key, State.RUNNING), jobs.Report(*two.key, State.SUCCEEDED, exit_code=0),
    ]  # fmt: skip
    assert jobs.report(connection, *reports) == [True] * 4
    told = connection.execute(
        "SELECT key, value FROM pgsig.signals WHERE kind = 'state' AND key NOT LIKE '%starting' ORDER BY id"
    ).fetchall()
    first = {"run": one.id, "attempt": 1, "generation": 1}
    assert told == [
        ("run.w.op0.running", first), ("run.w.op0.failed", first | {"exit_code": 3, "reason": "no"}),
        ("run.w.op1.running", None), ("run.w.op1.succeeded", None),
    ]  # fmt: skip
    row = connection.execute("SELECT observed, desired FROM pgsig_private.instance ORDER BY operator_id").fetchall()
    assert row == [("failed", "running"), ("succeeded", "stopped")]


def test_a_delay_is_waited_for(connection: Connection, process: int) -> None:
    do.start(connection, do.operator(connection, "op"))
    jobs.report(connection, jobs.Report(*claim(connection, process).key, State.RETRYING, delay=1e300))
    assert jobs.claim(connection, process, ["default"], 1).grants == []


def test_a_reload_that_was_handed_over_is_handed_to_the_next_attempt(connection: Connection, process: int) -> None:
    run = do.start(connection, do.operator(connection, "op", "streaming"))
    grant = claim(connection, process)
    jobs.report(connection, jobs.Report(*grant.key, State.RUNNING))
    reload = do.reload(connection, run, [])
    assert jobs.orders(connection, process) == [jobs.Order(run, grant.epoch, False, reload, "[]")]
    assert jobs.report_reload(connection, reload, grant.epoch, "delivered")
    assert jobs.orders(connection, process) == []
    jobs.report(connection, jobs.Report(*grant.key, State.RETRYING))
    again = claim(connection, process)
    jobs.report(connection, jobs.Report(*again.key, State.RUNNING))
    assert [order.reload_id for order in jobs.orders(connection, process)] == [reload]
    assert not jobs.report_reload(connection, reload, grant.epoch, "acknowledged")
    assert jobs.report_reload(connection, reload, again.epoch, "acknowledged")


def test_a_handover_ends_an_old_run_that_waits_for_its_next_attempt(connection: Connection, process: int) -> None:
    operator = do.operator(connection, "op", "streaming")
    old = do.start(connection, operator, slots=2)
    jobs.report(connection, jobs.Report(*claim(connection, process).key, State.RETRYING, delay=1000))
    new = do.start(connection, operator, slots=2, handover_of=old)
    grant = claim(connection, process)
    jobs.report(connection, jobs.Report(*grant.key, State.RUNNING))
    assert jobs.ready(connection, *grant.key)
    assert do.run_row(connection, old)["state"] == "stopped"
    assert do.states(connection, old)[-1] == "stopped"
    assert do.run_row(connection, new)["ready_at"]


def test_the_runs_of_the_dead_are_found(connection: Connection, process: int) -> None:
    other = join(connection, lease=0.001)
    jobs.renew(connection, other, lease=60)
    run = do.start(connection, do.operator(connection, "op", retries=2))
    claim(connection, other)
    assert jobs.reap(connection, quiet=0) == []
    jobs.leave(connection, other)
    # A server that has just started judges no lease; who has said that it ended needs no judgement.
    assert [(one.run_id, one.spec["retries"]) for one in jobs.reap(connection, quiet=1e6)] == [(run, 2)]


def test_signals_of_late_commits_are_not_skipped(connection: Connection, database: str) -> None:
    (start,) = connection.execute("SELECT pg_current_snapshot()::text").fetchone() or ("",)
    with psycopg.connect(database) as late:
        late.execute("SELECT pgsig.emit('config.late', '1')")
        connection.execute("SELECT pgsig.emit('config.early', '2')")
        connection.execute("SELECT pgsig.emit('other.early')")
        found, cursor = in_job.signals_after(connection, "default", r"^config\.", start)
        assert [one.key for one in found] == ["config.early"]
        late.commit()
    found, cursor = in_job.signals_after(connection, "default", r"^config\.", cursor)
    assert [(one.key, one.value) for one in found] == [("config.late", "1")]
    assert in_job.signals_after(connection, "default", r"^config\.", cursor)[0] == []
    assert in_job.signals_after(connection, "elsewhere", r"^config\.", start)[0] == []


def test_pages_of_signals_and_the_cursor_of_each(connection: Connection) -> None:
    (cursor,) = connection.execute("SELECT pg_current_snapshot()::text").fetchone() or ("",)
    connection.execute("SELECT pgsig.emit('k.n', to_jsonb(n)) FROM generate_series(1, 7) n")
    seen: list[str] = []
    while True:
        found, cursor = in_job.signals_after(connection, "default", "^k", cursor, most=3)
        seen += [one.value for one in found]
        if not found:
            break
    assert seen == list("1234567")
    (first, *_), _ = in_job.signals_after(connection, "default", "^k", "1:1:", most=2)
    after, _ = in_job.signals_after(connection, "default", "^k", first.cursor)
    assert [one.value for one in after] == list("234567")


def test_what_a_job_says_is_refused_once_its_grant_is_over(connection: Connection, process: int) -> None:
    do.start(connection, do.operator(connection, "op"))
    grant = claim(connection, process)
    in_job.emit(connection, *grant.key, "default", "w.op", [{"key": "a.b"}])
    for what in ("progress", "result", "checkpoint"):
        in_job.note(connection, *grant.key, what, {"x": 1})
    jobs.report(connection, jobs.Report(*grant.key, State.RETRYING))
    with pytest.raises(Conflict, match="PS402"):
        in_job.emit(connection, *grant.key, "default", "w.op", [{"key": "a.b"}])
    with pytest.raises(Conflict, match="PS402"):
        in_job.note(connection, *grant.key, "result", 2)
    assert connection.execute("SELECT count(*) FROM pgsig.signals WHERE key = 'a.b'").fetchone() == (1,)
    # The next attempt gets what was left for it.
    assert claim(connection, process).checkpoint == '{"x": 1}'


def test_output_is_trimmed_from_its_beginning(connection: Connection, process: int) -> None:
    run = do.start(connection, do.operator(connection, "op"))
    grant = claim(connection, process)
    for n in range(10):
        output.log_add(connection, *grant.key, f"line {n}\n")
    assert output.log_size(connection, run) == 70
    for limit in (35, 20):
        output.log_trim(connection, run, limit)
    assert do.output(connection, run) == "[pgsig: 56 bytes of earlier output were dropped]\nline 8\nline 9\n"
    output.log_add(connection, run, grant.epoch + 1, "too late")
    assert output.log_size(connection, run) == 14


def test_one_run_that_cannot_be_reaped_holds_up_no_other(connection: Connection, process: int) -> None:
    """Row 53: a definition that nobody can use, written past all checks, fails with the reason; the other one goes on elsewhere."""
    bad, good = (do.start(connection, do.operator(connection, name, command=["x"], retries=3)) for name in ("a", "b"))
    assert len(jobs.claim(connection, process, ["default"], 9).grants) == 2
    connection.execute(
        'UPDATE pgsig_private.operator_version v SET spec = v.spec || \'{"retries": "three"}\' FROM pgsig_private.run r'
        " WHERE r.id = %s AND v.operator_id = r.operator_id",
        [bad],
    )
    jobs.leave(connection, process)
    assert housekeeping.reap(connection, quiet=0) == 2
    assert (do.run_row(connection, bad)["state"], do.run_row(connection, good)["state"]) == ("failed", "retrying")
    assert "cannot be used" in do.run_row(connection, bad)["reason"]


def test_the_dead_of_a_machine_are_looked_for_once(connection: Connection) -> None:
    """And not for each process that ever was: a claim that waits for it loses its lease."""
    connection.execute(
        "INSERT INTO pgsig_private.process (role, name, host, pid, version, lease_until, ended_at, detail)"
        " SELECT 'runner', 'r', 'h', i, '1', now(), CASE WHEN i > 3 THEN now() END,"
        " jsonb_build_object('machine', 'm', 'mark', CASE WHEN i = 5 THEN 1 ELSE i END) FROM generate_series(1, 300) i"
    )
    connection.execute("SET track_functions = 'all'")
    with connection.transaction():
        gone = jobs.gone_neighbours(connection, "m")
        calls = connection.execute(
            "SELECT calls FROM pg_stat_xact_user_functions WHERE funcname = 'gone_runners'"
        ).fetchall()
    assert sorted(one.pid for one in gone) == [4, *range(6, 301)]  # 5 has joined anew, as 1
    assert calls == [(1,)]


@pytest.mark.parametrize(
    "change",
    [
        "ended_at = now()",
        "state = 'starting'",
        "state = 'starting', runner_id = 1",
        "state = 'stopped'",
        "limit_key = 'k'",
        "limit_most = 1",
        "limit_key = 'k', limit_most = 0",
        "blocked = true",
        "blocked = true, limit_key = 'k', limit_most = 1, claimable_at = now()",
        "desired = 'other'",
        "desired = NULL",
        "blocked = NULL",
    ],
)
def test_a_run_is_whole_whoever_writes_it(connection: Connection, change: str) -> None:
    number = do.start(connection, do.operator(connection, "op"))
    with pytest.raises(psycopg.errors.CheckViolation, match=f"run {number} cannot be so"):
        connection.execute(f"UPDATE pgsig_private.run SET {change} WHERE id = {number}".encode())


def test_a_run_begins_in_the_line(connection: Connection) -> None:
    do.start(connection, do.operator(connection, "op"))
    with pytest.raises(psycopg.Error, match="begins as queued, not as lost") as refused:
        connection.execute(
            """INSERT INTO pgsig_private.run SELECT (jsonb_populate_record(r, '{"id": 99, "state": "lost"}')).* FROM pgsig_private.run r"""
        )
    assert refused.value.sqlstate == "PS310"
