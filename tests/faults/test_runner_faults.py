"""Runners that die, freeze and lose their database: nothing is doubled, nothing is forgotten. Rows 40 to 54 of the fault catalogue."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from pgsig.runner import link
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import Connection

pytestmark = pytest.mark.faults

# A job that appends its begin, and that it is still there, to a file: an independent witness of overlaps.
WITNESS = 'echo "begin $PGSIG_ATTEMPT $$" >> {file}; while :; do date +%s.%N > {file}.$$; sleep 0.02; done'


def witness(connection: Connection, file: Path, name: str = "witness", **spec: object) -> int:
    return do.operator(connection, name, "streaming", command=["sh", "-c", WITNESS.format(file=file)], **spec)


def begun(file: Path) -> list[int]:
    """Process ids of the witnesses, in order."""
    return [int(line.split()[2]) for line in file.read_text().splitlines()] if file.exists() else []


def last_seen(file: Path, pid: int) -> float:
    return float(Path(f"{file}.{pid}").read_text() or 0)


def test_a_runner_that_is_killed_takes_its_jobs_with_it(connection: Connection, database: str, tmp_path: Path) -> None:
    """Row 42. And the next runner of this machine need not wait for the lease to know it."""
    file = tmp_path / "file"
    script = f"setsid sh -c 'echo $$ > {tmp_path}/apart; exec sleep 600' & " + WITNESS.format(file=file)
    operator = do.operator(connection, "tree", "streaming", command=["sh", "-c", script])
    settings = do.settings(database, tmp_path / "spool", lease_seconds=30.0)
    with do.runner_process(settings) as first:
        run = do.start(connection, operator)
        do.wait_state(connection, run, "running")
        wait_for(lambda: begun(file) and (tmp_path / "apart").exists() and (tmp_path / "apart").read_text())
        apart = int((tmp_path / "apart").read_text())
        with do.running(do.settings(database, tmp_path / "other", lease_seconds=30.0), "second"):
            first.kill()
            killed_at = time.monotonic()
            wait_for(lambda: not do.alive(begun(file)[0]) and not do.alive(apart), 2, about="the jobs to end")
            row = do.wait_state(connection, run, "running", attempt=2, timeout=10)
            # Within three seconds on the same machine; the lease is thirty.
            assert time.monotonic() - killed_at < 5
            wait_for(lambda: len(begun(file)) == 2)
            assert row["epoch"] == 3
            do.stop(connection, run)
            do.wait_state(connection, run, "stopped")


def test_a_runner_of_another_machine_waits_for_the_lease(connection: Connection, database: str, tmp_path: Path) -> None:
    """As above, where nobody can see that the process is gone."""
    file = tmp_path / "file"
    operator = witness(connection, file)
    with do.runner_process(do.settings(database, tmp_path / "spool", lease_seconds=2.0)) as first:
        run = do.start(connection, operator)
        do.wait_state(connection, run, "running")
        connection.execute("""UPDATE pgsig_private.process SET detail = detail || '{"machine": "elsewhere"}'""")
        with do.running(do.settings(database, tmp_path / "other", lease_seconds=2.0), "second"):
            first.kill()
            do.wait_state(connection, run, "running", attempt=2, timeout=10)
            wait_for(lambda: len(begun(file)) == 2)
            do.stop(connection, run)
            do.wait_state(connection, run, "stopped")


def test_a_frozen_runner_loses_its_jobs_before_another_starts_them(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    """Row 40. The guard ends them at the end of the lease; what the frozen runner says when it thaws changes nothing."""
    file = tmp_path / "file"
    operator = witness(connection, file)
    with do.runner_process(do.settings(database, tmp_path / "spool", lease_seconds=2.0)) as first:
        run = do.start(connection, operator)
        do.wait_state(connection, run, "running")
        wait_for(lambda: begun(file))
        with do.running(do.settings(database, tmp_path / "other", lease_seconds=2.0), "second"):
            first.send_signal(signal.SIGSTOP)
            do.wait_state(connection, run, "running", attempt=2, timeout=10)
            wait_for(lambda: len(begun(file)) == 2 and last_seen(file, begun(file)[1]))
            old, new = begun(file)
            assert not do.alive(old)
            (second_began,) = connection.execute(
                "SELECT extract(epoch FROM claimed_at)::float8 FROM pgsig_private.run WHERE id = %s", [run]
            ).fetchone() or (0.0,)
            assert last_seen(file, old) < second_began
            first.send_signal(signal.SIGCONT)
            # It joins anew, under another id, and leaves the run alone.
            wait_for(
                lambda: connection.execute(
                    "SELECT count(*) FROM pgsig_private.process WHERE ended_at IS NULL"
                ).fetchone() == (2,),
                about="the frozen runner to join again",
            )  # fmt: skip
            row = do.run_row(connection, run)
            assert (row["state"], row["epoch"]) == ("running", 3)
            assert do.alive(new)
            do.stop(connection, run)
            do.wait_state(connection, run, "stopped")


def test_a_frozen_runner_whose_guard_was_killed_does_not_overlap_its_successor(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    """Two faults at once: nobody is left to end the jobs at the end of the lease, so whoever takes the run over on this machine does."""
    file = tmp_path / "file"
    with do.runner_process(do.settings(database, tmp_path / "spool", lease_seconds=2.0)) as first:
        run = do.start(connection, witness(connection, file))
        do.wait_state(connection, run, "running")
        wait_for(lambda: begun(file))
        first.send_signal(signal.SIGSTOP)
        for guard in guards(first.pid):
            os.kill(guard, signal.SIGKILL)
        with do.running(do.settings(database, tmp_path / "other", lease_seconds=2.0), "second"):
            do.wait_state(connection, run, "running", attempt=2, timeout=10)
            wait_for(lambda: len(begun(file)) == 2 and last_seen(file, begun(file)[1]))
            old, new = begun(file)
            assert not do.alive(old)
            assert do.alive(new)
            first.send_signal(signal.SIGCONT)
            do.stop(connection, run)
            do.wait_state(connection, run, "stopped")


@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_a_job_that_a_frozen_runner_has_told_its_guard_nothing_of_ends_with_the_lease(
    connection: Connection, database: str, tmp_path: Path, kind: str
) -> None:
    """Row 40, in the moment between the start and the word to the guard, where the successor cannot see what is left."""
    from pgsig.runner import warm

    if kind == "warm" and not warm.possible():
        pytest.skip("nothing is started warm here: it needs Linux")
    file, server, idle = tmp_path / "file", 0, []
    settings = do.settings(database, tmp_path / "spool", lease_seconds=2.0)
    with do.runner_process(settings, failpoints="run.spawned=stop") as first:
        if kind == "warm":
            (server,) = wait_for(lambda: _children(first.pid, b"forkserver.py"), 30, about="the fork server")
            wait_for(lambda: len(_ready(server)) > 1, 30, about="children that stand ready")
            operator = do.operator(
                connection, "warm", "streaming", python="tests.engine_jobs:witnesses", env={"FILE": str(file)}
            )
        else:
            operator = witness(connection, file)
        elsewhere = """UPDATE pgsig_private.process SET detail = detail || '{"machine": "elsewhere"}' WHERE detail ? 'machine'"""
        wait_for(lambda: connection.execute(elsewhere).rowcount, 30, about="the runner to join")
        run = do.start(connection, operator)
        (old,) = wait_for(lambda: begun(file), 30, about="the job")
        if kind == "warm":
            idle = [server, *_children(server, b"forkserver.py")]
            assert len(idle) > 1
            assert _children(server, b"call.py") == [old]
        assert do.run_row(connection, run)["state"] == "starting"
        with do.running(do.settings(database, tmp_path / "other", lease_seconds=2.0), "second"):
            wait_for(lambda: len(begun(file)) == 2 and last_seen(file, begun(file)[1]), 30, about="its successor")
            assert not do.alive(old)
            (second_began,) = connection.execute(
                "SELECT extract(epoch FROM claimed_at)::float8 FROM pgsig_private.run WHERE id = %s", [run]
            ).fetchone() or (0.0,)
            assert last_seen(file, old) < second_began
            # Those without an order are no job: they serve the runner when it thaws.
            assert all(map(do.alive, idle))
            first.send_signal(signal.SIGCONT)
            do.wait_state(connection, run, "running")
            do.stop(connection, run)
            do.wait_state(connection, run, "stopped")


def guards(runner: int) -> list[int]:
    """The guard processes of a runner."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if parent == runner and b"pgsig.runner.guard" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    assert found
    return found


def test_an_operator_may_prefer_to_keep_running_without_a_lease(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    file, kept = tmp_path / "file", tmp_path / "kept"
    with do.runner_process(do.settings(database, tmp_path / "spool", lease_seconds=1.0)) as runner:
        ended = do.start(connection, witness(connection, file))
        stays = do.start(connection, witness(connection, kept, "keep", on_lease_loss="keep"))
        for run in (ended, stays):
            do.wait_state(connection, run, "running")
        wait_for(lambda: begun(file) and begun(kept))
        runner.send_signal(signal.SIGSTOP)
        wait_for(lambda: not do.alive(begun(file)[0]), 5)
        assert do.alive(begun(kept)[0])
        runner.send_signal(signal.SIGCONT)
        for run in (ended, stays):
            wait_for(lambda run=run: do.run_row(connection, run)["state"] == "running", about="both again")  # type: ignore[misc]


def test_a_job_to_keep_that_the_guard_was_not_told_of_is_kept(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    """The operator has preferred that, and its mark says so; the one before it shows that the lease is over."""
    file, kept = tmp_path / "file", tmp_path / "kept"
    settings = do.settings(database, tmp_path / "spool", lease_seconds=1.0)
    with do.runner_process(settings, failpoints="run.spawned=stop:2") as runner:
        do.wait_state(connection, do.start(connection, witness(connection, file)), "running")
        do.start(connection, witness(connection, kept, "keep", on_lease_loss="keep"))
        wait_for(lambda: begun(file) and begun(kept))
        wait_for(lambda: not do.alive(begun(file)[0]), 10, about="the guard to fence")
        assert do.alive(begun(kept)[0])
        runner.send_signal(signal.SIGCONT)


def test_a_database_that_loses_all_sessions_loses_nothing_else(
    connection: Connection, admin: Connection, database: str, tmp_path: Path
) -> None:
    """Rows 8, 9 and 11: jobs go on, and what ended meanwhile is reported afterwards."""
    gate = tmp_path / "gate"
    batch = do.operator(
        connection, "gated", command=["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done; echo bye; exit 5"]
    )
    forever = do.operator(connection, "forever", "streaming", command=["sleep", "600"])
    with do.running(do.settings(database, tmp_path / "spool", lease_seconds=8.0)) as runner:
        runs = do.start(connection, batch), do.start(connection, forever)
        for run in runs:
            do.wait_state(connection, run, "running")
        (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s",
                [name, connection.info.backend_pid],
            )
            link = runner.link
            assert link
            wait_for(lambda: not link.connected.is_set(), about="the runner to notice")
            gate.touch()
            wait_for(lambda: list(runner.jobs) == [runs[1]], about="the end of the job")
            assert do.run_row(connection, runs[0])["state"] == "running"
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        row = do.wait_state(connection, runs[0], "failed")
        assert (row["exit_code"], do.output(connection, runs[0])) == (5, "bye\n")
        row = do.run_row(connection, runs[1])
        assert (row["state"], row["attempt"]) == ("running", 1)
        # And it still hears of new work at once.
        do.wait_state(connection, do.start(connection, batch, "again"), "failed")
        do.stop(connection, runs[1])
        do.wait_state(connection, runs[1], "stopped")


def test_jobs_end_when_the_database_is_away_for_longer_than_the_lease(
    connection: Connection, admin: Connection, database: str, tmp_path: Path
) -> None:
    """Row 41: who cannot renew ends its jobs, for it cannot know who else may start them. They begin again when it is back."""
    file = tmp_path / "file"
    (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
    with do.running(do.settings(database, tmp_path / "spool", lease_seconds=1.0)):
        run = do.start(connection, witness(connection, file))
        do.wait_state(connection, run, "running")
        wait_for(lambda: begun(file))
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s",
                [name, connection.info.backend_pid],
            )
            wait_for(lambda: not do.alive(begun(file)[0]), 5, about="the job to end")
            assert do.run_row(connection, run)["state"] == "running"
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        do.wait_state(connection, run, "running", attempt=2)
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped")


def test_a_grant_whose_answer_was_lost_is_given_back(connection: Connection, database: str, tmp_path: Path) -> None:
    """Row 52: a run that the database believes to be started, by a runner that knows nothing of it."""
    with do.running(do.settings(database, tmp_path)) as runner:
        assert runner.link
        run = do.start(connection, do.operator(connection, "short", command=["true"]), claimable=False)
        connection.execute(
            "UPDATE pgsig_private.run SET state = 'starting', runner_id = %s, slot = 0, epoch = 1 WHERE id = %s",
            [runner.link.process, run],
        )
        row = do.wait_state(connection, run, "succeeded", timeout=15)
        assert (row["attempt"], row["epoch"]) == (1, 3)


def test_a_guard_that_is_killed_is_replaced(connection: Connection, database: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with do.runner_process(do.settings(database, tmp_path / "spool")) as runner:
        run = do.start(connection, witness(connection, file))
        do.wait_state(connection, run, "running")
        wait_for(lambda: begun(file))

        def guards() -> list[int]:
            found = []
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == runner.pid and b"pgsig.runner.guard" in (folder / "cmdline").read_bytes():
                        found.append(int(folder.name))
                except (OSError, ValueError):
                    continue
            return [pid for pid in found if do.alive(pid)]

        (first,) = guards()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: guards() and guards() != [first], about="another guard")
        # The new one knows of the job that was there before it.
        runner.kill()
        runner.wait()
        wait_for(lambda: not do.alive(begun(file)[0]), 3, about="the job to end")


def test_a_report_under_an_old_epoch_changes_nothing(
    connection: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grant is taken from under a running job: its runner notices, ends it, and says nothing."""
    monkeypatch.setattr(link, "COMPARE_EVERY", 0.5)
    file = tmp_path / "file"
    with do.running(do.settings(database, tmp_path / "spool")):
        run = do.start(connection, witness(connection, file))
        do.wait_state(connection, run, "running")
        wait_for(lambda: begun(file))
        connection.execute("UPDATE pgsig_private.run SET epoch = epoch + 5 WHERE id = %s", [run])
        wait_for(lambda: not do.alive(begun(file)[0]), 10, about="the job to end")
        # The next comparison finds a grant that it does not know, and gives it back.
        row = do.wait_state(connection, run, "running", timeout=15, epoch=8)
        assert row["attempt"] == 1
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped")


def test_a_job_whose_grant_is_over_cannot_emit(connection: Connection, database: str, tmp_path: Path) -> None:
    script = f"""
        ask() {{ curl -sK "$PGSIG_RUN_DIR/curl" "$(cat "$PGSIG_RUN_DIR/url")$1" -d "$2"; }}
        echo up > {tmp_path}/up; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done
        ask /emit '{{"key": "too.late"}}' > {tmp_path}/answer; touch {tmp_path}/done; sleep 600
    """
    with do.running(do.settings(database, tmp_path / "spool")):
        run = do.start(connection, do.operator(connection, "late", "streaming", command=["sh", "-c", script]))
        do.wait_state(connection, run, "running")
        wait_for((tmp_path / "up").exists)
        connection.execute(
            "UPDATE pgsig_private.run SET epoch = epoch + 1, runner_id = pgsig_private.join_processes("
            "'runner', 'other', 'other', 1, '0', '{default}', 1, '1 hour') WHERE id = %s",
            [run],
        )
        (tmp_path / "gate").touch()
        wait_for((tmp_path / "done").exists)
        assert json.loads((tmp_path / "answer").read_text())["error"]["code"] == "PS402"
        assert connection.execute("SELECT count(*) FROM pgsig.signals WHERE key = 'too.late'").fetchone() == (0,)


def test_warm_jobs_and_their_server_end_with_a_runner_that_is_killed(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    """Row 42 for forked jobs: also a daemon that one has left its session for, and the fork server with its children."""
    from pgsig.runner import tree, warm

    if not warm.possible():
        pytest.skip("nothing is started warm here: it needs Linux")
    daemon = do.operator(connection, "daemon", "streaming", python="tests.engine_jobs:leaves_a_daemon_and_stays")
    with do.runner_process(do.settings(database, tmp_path / "spool", lease_seconds=30.0)) as runner:
        wait_for(lambda: _children(runner.pid, b"forkserver.py"), 30, about="the fork server")
        (server,) = _children(runner.pid, b"forkserver.py")
        wait_for(lambda: _ready(server), 30, about="a child that stands ready")
        run = do.start(connection, daemon)
        do.wait_state(connection, run, "running", timeout=30)
        (folder,) = (tmp_path / "spool" / "runs").iterdir()
        mark = f"PGSIG_RUNNER={folder.name}".encode()
        # What a job leaves behind becomes the fork server's child.
        wait_for(lambda: len(_children(server, b"call.py")) == 2, 30, about="the job and its daemon")
        runner.kill()
        wait_for(lambda: not tree.carriers(mark), 30, about="everything to end")


def _ready(server: int) -> list[int]:
    """The children of a fork server that its runner has been told of: until then they hold the line to it, and a job starts cold."""
    line = _sockets(server)
    return [pid for pid in _children(server, b"forkserver.py") if not _sockets(pid) & line]


def _sockets(pid: int) -> set[str]:
    found = set()
    for file in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if int(file.name) > 2 and (target := str(file.readlink())).startswith("socket:"):
                found.add(target)
    return found


def _children(pid: int, command: bytes) -> list[int]:
    from pgsig.runner import tree

    found = []
    for one in tree.census().values():
        with contextlib.suppress(OSError):
            if one.parent == pid and not one.zombie and command in Path(f"/proc/{one.pid}/cmdline").read_bytes():
                found.append(one.pid)
    return found


def test_a_fork_server_that_is_killed_while_it_serves_costs_no_run_and_doubles_none(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    """Row 56. Two of them, each in the midst of short jobs: every run happens once, and the third serves again."""
    from pgsig.runner import warm

    if not warm.possible():
        pytest.skip("nothing is started warm here: it needs Linux")
    file = tmp_path / "file"
    operator = do.operator(connection, "short", python="tests.engine_jobs:appends", env={"FILE": str(file)})

    def done() -> int:
        return len(file.read_text().splitlines()) if file.exists() else 0

    runs: list[int] = []
    killed: list[int] = []

    def begin() -> None:
        runs.append(do.start(connection, operator, f"s{len(runs)}"))

    def serving() -> list[int]:
        """A fork server with a child that is ready. Another one is started with a run, at the earliest two seconds after the last one."""
        if runs and done() == len(runs):
            begin()
        found = [pid for pid in _children(runner.pid, b"forkserver.py") if pid not in killed]
        return [pid for pid in found if _ready(pid)]

    with do.runner_process(do.settings(database, tmp_path / "spool", lease_seconds=30.0)) as runner:
        for _ in range(2):
            (server,) = wait_for(serving, 30, about="a fork server with a child that is ready")
            before = done()
            for _ in range(60):
                begin()
            wait_for(lambda before=before: done() > before + 5, 30)  # type: ignore[misc]
            os.kill(server, signal.SIGKILL)
            killed.append(server)
            assert done() < len(runs), "nothing was under way"
        assert wait_for(serving, 30, about="a third one")
        for run in runs:
            do.wait_state(connection, run, "succeeded", attempt=1, timeout=60)
        assert sorted(file.read_text().splitlines()) == sorted(f"{run} 1" for run in runs)
    states = connection.execute(
        "SELECT key, count(*) FROM pgsig.signals WHERE kind = 'state' AND run_id = ANY (%s) GROUP BY key", [runs]
    ).fetchall()
    assert sorted(states) == [(f"run.w.short.{state}", len(runs)) for state in ("running", "starting", "succeeded")]


def test_warm_jobs_end_with_the_lease(connection: Connection, database: str, tmp_path: Path) -> None:
    """Row 40 for forked jobs. The runner that thaws starts the next ones with the same fork server."""
    operator = do.operator(connection, "waits", "streaming", python="tests.engine_jobs:waits")
    with do.runner_process(do.settings(database, tmp_path / "spool", lease_seconds=2.0)) as runner:
        wait_for(lambda: _children(runner.pid, b"forkserver.py"), 30, about="the fork server")
        (server,) = _children(runner.pid, b"forkserver.py")
        wait_for(lambda: _ready(server), 30, about="a child that stands ready")
        run = do.start(connection, operator)
        do.wait_state(connection, run, "running", timeout=30)
        (job,) = wait_for(lambda: _children(server, b"call.py"), 30, about="the job")
        runner.send_signal(signal.SIGSTOP)
        wait_for(lambda: not do.alive(job), 30, about="the guard to end the job")
        assert do.alive(server)
        runner.send_signal(signal.SIGCONT)
        do.wait_state(connection, run, "running", attempt=2, timeout=30)
        assert wait_for(lambda: _children(server, b"call.py"), 30, about="the next attempt") != [job]
        do.stop(connection, run)
        do.wait_state(connection, run, "stopped", timeout=30)
