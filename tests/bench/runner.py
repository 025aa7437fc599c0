"""RUNNER: how soon a job begins, and how many short ones end in a second. One runner, a process of its own, capacity 16.

Python callable: from before the COMMIT that records a START until the first line of the callable looks at the clock. In between: that
commit, the notification, the claim with its commit, the run's folder, the fork. Idle before each. The same with `warm: false`.
Command: from when the runner's supervisor takes the grant, before the run's folder is made, until the program's first act; against Popen of
the same command line with the same environment, a session and an output file by this process, until the same act, which prints the time.
Short jobs: runs of a callable that does nothing stand in line, each a START of its own instance; from the first claim to the last end, as
the database has them. Each is a process, with environment, log, state signals and exit code. Once as above, once with capacity 64 and
PGSIG_PRELOAD. Beside it fork, exit and wait alone, two at a time: the limit of a process for each. Peers drain as many no-ops at their own
best settings: they call a function in their worker's process.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from psycopg.types.json import Jsonb

from pgsig.runner.place import surroundings
from tests import support_jobs as do
from tests.bench import peers, runner_chain
from tests.bench.report import Report, paired, percentile
from tests.bench.server import Connection, Server, connect

PLAIN = {"PGSIG_CAPACITY": "16"}
WIDE = {"PGSIG_CAPACITY": "64", "PGSIG_PRELOAD": "tests.bench.runner_job"}


def measure(server: Server, report: Report, *, rounds: int, starts: int, jobs: int, drains: int) -> None:
    """starts: of a round. drains: how often `jobs` of them are drained; by the runner with capacity 16 a thousand at most, once."""
    _peers(server, report, jobs)
    with tempfile.TemporaryDirectory(prefix="pgsig-bench-") as name:
        folder = Path(name)
        with server.database() as address, connect(address) as c, _runner(address, folder):
            _starts(report, c, folder, rounds, starts)
            _commands(report, c, folder, rounds, starts)
            few = min(jobs, 1_000)
            plain = list(_drains(c, 1, few))
        with server.database() as address, connect(address) as c, _runner(address, folder, WIDE):
            runner_chain.measure(report, address, folder, rounds=rounds, chains=starts, rest=_rest)
            both = [(rate, _bare_forks(jobs)) for rate in _drains(c, drains, jobs)]
    wide, bare = zip(*both, strict=True)
    name = "short jobs, pgsig: a warm process for each"
    report.figure("fork, exit, wait, with the fork server's modules, two at a time", bare, "a second")
    report.figure(f"{few:,} {name}, capacity 16, which imports its module", plain, "jobs/s")
    found = report.figure(f"{jobs:,} {name}, capacity 64, its module preloaded", wide, "jobs/s")
    report.ratio(f"{jobs:,} short jobs, a warm process for each, in a second", found, "", "jobs")
    report.ratio("short jobs / bare fork, exit, wait: the limit of a process for each", paired(wide, bare))


@contextlib.contextmanager
def _runner(address: str, folder: Path, given: Mapping[str, str] = PLAIN) -> Iterator[None]:
    env = {
        **os.environ, "PYTHONPATH": str(do.ROOT), "DATABASE_URL": address, "PGSIG_SPOOL": str(folder / "spool"),
        "GRANTS": str(folder / "grants"), **given,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.runner_process"], env=env)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _starts(report: Report, c: Connection, folder: Path, rounds: int, starts: int) -> None:
    stamps = folder / "stamps"
    stamps.touch()
    env = {"STAMPS": str(stamps)}
    target = "tests.bench.runner_job:stamp"
    operators = {
        "warm": do.operator(c, "warm", python=target, env=env),
        "cold": do.operator(c, "cold", python=target, env=env, warm=False),
    }
    subjects = count()
    took: dict[str, list[list[float]]] = {"warm": [], "cold": []}
    for _ in range(3):  # the fork server needs a moment, and so do the statements
        _begin(c, operators["warm"], f"w{next(subjects)}", stamps)
    commits: list[list[float]] = []
    for _ in range(rounds):
        commits.append([_commit(c) for _ in range(starts)])
        for kind, times in took.items():
            n = starts if kind == "warm" else max(5, starts // 5)
            times.append([_begin(c, operators[kind], f"s{next(subjects)}", stamps) for _ in range(n)])
    report.figure("one small commit, of which a start has two, p50", [percentile(r, 0.5) * 1e3 for r in commits], "ms")
    for kind, times in took.items():
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            found = report.figure(
                f"START recorded to first line, {kind}, {name}", [percentile(r, part) * 1e3 for r in times], "ms"
            )
            if (kind, name) == ("warm", "p50"):
                report.ratio("START recorded to first line of a Python callable, warm, p50", found, "≤ 10", "ms")


def _commit(c: Connection) -> float:
    """What the disk takes for a transaction that writes next to nothing."""
    _rest()
    begin = time.monotonic()
    c.execute("SELECT pg_logical_emit_message(true, 'bench', 'x')")
    return time.monotonic() - begin


def _peers(server: Server, report: Report, jobs: int) -> None:
    """The same number of no-ops, where they are installed."""
    for peer in peers.PEERS:
        if peer.module in ("pgqueuer", "procrastinate") and peer.module in peers.installed():
            with server.database(bare=True) as address:
                peer.call(address, "install")
                peer.call(address, "fill", jobs)
                took = float(peer.call(address, "drain", jobs))
                report.figure(
                    f"{jobs:,} short jobs, {peer.name}: a function call in its worker", [jobs / took], "jobs/s"
                )


def _begin(c: Connection, operator: int, subject: str, stamps: Path) -> float:
    _rest()
    with c.transaction():
        run = do.start(c, operator, subject)
        begin = time.monotonic()
    do.wait_state(c, run, "succeeded", timeout=30)
    return _stamp(stamps, run) - begin


def _stamp(stamps: Path, run: int) -> float:
    """When a run did what it was to write down."""
    for line in reversed(stamps.read_text().splitlines()):
        number, at = line.split()
        if int(number) == run:
            return float(at)
    raise SystemExit(f"run {run} has left no time")


def _rest() -> None:
    time.sleep(random.uniform(0.045, 0.065))  # noqa: TID251 - idle means that nothing is going on


def _commands(report: Report, c: Connection, folder: Path, rounds: int, starts: int) -> None:
    lines = {
        "date": ["date", "+%s.%N"],
        "python": [sys.executable, "-c", "import time; print(time.time())"],
    }
    subjects = count()
    for name, line in lines.items():
        operator = do.operator(c, f"command-{name}", command=line)
        bare: list[list[float]] = []
        ours: list[list[float]] = []
        n = starts if name == "date" else max(5, starts // 3)
        for _ in range(rounds):
            bare.append([])
            ours.append([])
            for _ in range(n):
                _rest()
                bare[-1].append(_bare(line, folder / "bare"))
                _rest()
                run = do.start(c, operator, f"c{next(subjects)}")
                do.wait_state(c, run, "succeeded", timeout=30)
                granted = _stamp(folder / "grants", run)
                ours[-1].append(float(do.output(c, run)) - granted)
        least = report.figure(
            f"bare spawn to its first act, {name}, p50", [percentile(r, 0.5) * 1e3 for r in bare], "ms"
        )
        took = report.figure(f"grant to first act, {name}, p50", [percentile(r, 0.5) * 1e3 for r in ours], "ms")
        report.ratio(f"start of a command ({name}): runner / bare spawn, p50", took / least, "≤ 1.5")


def _bare(line: list[str], output: Path) -> float:
    output.unlink(missing_ok=True)
    begin = time.time()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, env=surroundings()
    )
    os.close(file)
    process.wait()
    return float(output.read_text()) - begin


def _drains(c: Connection, rounds: int, jobs: int) -> Iterator[float]:
    """Jobs that end in a second, round by round."""
    target = "tests.bench.runner_job:nothing"
    _drain(c, do.operator(c, "warm-up", python=target), 50)
    for number in range(rounds):
        yield _drain(c, do.operator(c, f"nothing{number}", python=target), jobs)


def _bare_forks(jobs: int) -> float:
    line = [sys.executable, "-m", "tests.bench.runner_bare", str(jobs)]
    return float(subprocess.run(line, check=True, stdout=subprocess.PIPE, cwd=do.ROOT).stdout)


def _drain(c: Connection, operator: int, jobs: int) -> float:
    """How many end in a second."""
    _record(c, operator, jobs)
    waiting = "SELECT count(*) FROM pgsig_private.run WHERE operator_id = %s AND ended_at IS NULL"
    patience = time.monotonic() + 60 + jobs / 10
    while left := (c.execute(waiting, [operator]).fetchone() or (0,))[0]:
        if time.monotonic() > patience:
            raise SystemExit(f"{left} of {jobs} jobs have not ended")
        time.sleep(0.5)  # noqa: TID251 - a look costs what is measured
    row = c.execute(
        "SELECT count(*) FILTER (WHERE state = 'succeeded'), extract(epoch FROM max(ended_at) - min(claimed_at))::float8"
        " FROM pgsig_private.run WHERE operator_id = %s",
        [operator],
    ).fetchone()
    assert row is not None
    if row[0] != jobs:
        raise SystemExit(f"{jobs - row[0]} of {jobs} jobs did not succeed")
    return float(jobs / row[1])


def _record(c: Connection, operator: int, jobs: int, together: int = 500) -> None:
    for first in range(0, jobs, together):
        numbers = range(first, min(first + together, jobs))
        ids = c.execute(
            "SELECT nextval('pgsig_private.run_id'), nextval('pgsig_private.action_id') FROM generate_series(1, %s)",
            [len(numbers)],
        ).fetchall()
        runs, actions, instances = [], [], []
        for number, (run, action) in zip(numbers, ids, strict=True):
            common = {"operator_id": operator, "subject": f"n{number}", "version": 1, "depth": 1}
            runs.append({
                **common, "id": run, "generation": 1, "action_id": action, "pool": "default", "priority": 0, "slots": 1,
                "handover_of": None, "params": {}, "evidence": [], "claimable": True,
            })  # fmt: skip
            actions.append({
                **common, "id": action, "rule_id": 0, "action": "START", "result": "recorded", "cause_id": action, "nth": 0,
                "evidence": [], "explanation": {}, "run_id": run,
            })  # fmt: skip
            instances.append(
                {"operator_id": operator, "subject": f"n{number}", "desired": "running", "generation": 1, "run_id": run}
            )
        with c.transaction():
            c.execute(
                "SELECT FROM pgsig_private.lock_instances(array_fill(%s::bigint, ARRAY[%s]), %s)",
                [operator, len(numbers), [f"n{number}" for number in numbers]],
            )
            c.execute(
                "SELECT pgsig_private.record(%s)", [Jsonb({"actions": actions, "runs": runs, "instances": instances})]
            )
