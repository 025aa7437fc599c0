"""RUNNER: how soon a job begins, and how many short ones end in a second. One runner, a process of its own, with its defaults.

Python callable: from before the COMMIT that records a START until the first line of the callable looks at the clock. In between: that
commit, the notification, the claim with its commit, the run's folder, the fork. Idle before each. The same with `warm: false`.
Command: from when the runner's supervisor takes the grant, before the run's folder is made, until the program's first act; against Popen of
the same command line with the same environment, a session and an output file by this process, until the same act, which prints the time.
Short jobs: runs of a callable that does nothing stand in line, each a START of its own instance; from the first claim to the last end, as
the database has them. Each is a process, with environment, log, state signals and exit code. By a runner with its defaults, and by one with
capacity 64 whose PGSIG_PRELOAD names the jobs' module. Beside it fork, exit and wait alone, two at a time: the limit of a process for each.
Peers drain as many no-ops at their own best settings: they call a function in their worker's process. Of the few of a quick run most of
the time would be their beginning, so they are left out there.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from statistics import median

from psycopg.types.json import Jsonb

from pgsig.runner.place import surroundings
from tests import support_jobs as do
from tests.bench import peers, runner_chain
from tests.bench.peers import Ask, Peer
from tests.bench.report import Report, paired, percentile
from tests.bench.runner_chain import PRELOADED
from tests.bench.server import Connection, Server, connect

# What is not a default of the runner; a runner's own spool is no matter of speed.
PLAIN: Mapping[str, str] = {}
WIDE = {"PGSIG_CAPACITY": "64", "PGSIG_PRELOAD": "tests.bench.runner_job"}
PEERS = ("pgqueuer", "procrastinate")


def measure(server: Server, report: Report, *, rounds: int, starts: int, jobs: int, beside: bool) -> None:
    """starts: of a round. jobs: drained in each; a thousand at most by the runner with its defaults. beside: by peers, too."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgsig-bench-")))
        addresses = {}
        connections = {}
        for name, given in ("plain", PLAIN), ("wide", WIDE):
            addresses[name] = stack.enter_context(server.database())
            connections[name] = stack.enter_context(connect(addresses[name]))
            stack.enter_context(_runner(addresses[name], folder / name, given))
        _starts(report, connections["plain"], folder / "plain", rounds, starts)
        _commands(report, connections["plain"], folder / "plain", rounds, starts)
        runner_chain.measure(
            report,
            {"defaults": addresses["plain"], PRELOADED: addresses["wide"]},
            folder, rounds=rounds, chains=starts, rest=_rest,
        )  # fmt: skip
        _drains(server, report, connections, rounds, jobs, peers.installed() if beside else [])


@contextlib.contextmanager
def _runner(address: str, folder: Path, given: Mapping[str, str]) -> Iterator[None]:
    env = {
        **os.environ, "PYTHONPATH": str(do.ROOT), "DATABASE_URL": address, "PGSIG_SPOOL": str(folder / "spool"),
        "GRANTS": str(folder / "grants"), **given,
    }  # fmt: skip
    folder.mkdir()
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
            times.append([_begin(c, operators[kind], f"s{next(subjects)}", stamps) * 1e3 for _ in range(n)])
    report.figure("one small commit, of which a start has two, p50", [percentile(r, 0.5) * 1e3 for r in commits], "ms")
    for kind, times in took.items():
        found = report.figure(f"START recorded to first line, {kind}, p50", [percentile(r, 0.5) for r in times], "ms")
        report.pooled(f"START recorded to first line, {kind}, p99", times, 0.99, "ms")
        if kind == "warm":
            report.ratio("START recorded to first line of a Python callable, warm, p50", found, "≤ 10", "ms")


def _commit(c: Connection) -> float:
    """What the disk takes for a transaction that writes next to nothing."""
    _rest()
    begin = time.monotonic()
    c.execute("SELECT pg_logical_emit_message(true, 'bench', 'x')")
    return time.monotonic() - begin


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
        limits, took = ([percentile(times, 0.5) * 1e3 for times in side] for side in (bare, ours))
        report.figure(f"bare spawn to its first act, {name}, p50", limits, "ms")
        report.figure(f"grant to first act, {name}, p50", took, "ms")
        report.ratio(f"start of a command ({name}): runner / bare spawn, p50", paired(took, limits), "≤ 1.5")


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


def _drains(
    server: Server,
    report: Report,
    connections: Mapping[str, Connection],
    rounds: int,
    jobs: int,
    beside: Iterable[Peer],
) -> None:
    target = "tests.bench.runner_job:nothing"
    few = min(jobs, 1_000)
    named = {
        "plain": f"{few:,} short jobs, pgsig: a warm process for each, defaults (capacity 16, a job imports its module)",
        "wide": f"{jobs:,} short jobs, pgsig: a warm process for each, {PRELOADED}",
    }
    bare = "fork, exit, wait, with the fork server's modules, two at a time"
    rates = defaultdict[str, list[float]](list)
    with contextlib.ExitStack() as stack:
        theirs: dict[str, Ask] = {}
        for peer in beside:
            if peer.module in PEERS:
                ask = stack.enter_context(peer.process(stack.enter_context(server.database(bare=True))))
                ask("install")
                theirs[f"{jobs:,} short jobs, {peer.name}: a function call in its worker"] = ask
        for c in connections.values():
            _drain(c, do.operator(c, "warm-up", python=target), 50)
        for number in range(rounds):
            for name, c in connections.items():
                operator = do.operator(c, f"nothing{number}", python=target)
                rates[named[name]].append(_drain(c, operator, few if name == "plain" else jobs))
            rates[bare].append(_bare_forks(jobs))
            for name, ask in theirs.items():
                ask("fill", jobs)
                rates[name].append(jobs / float(ask("drain", jobs)))
    for name, found in rates.items():
        report.figure(name, found, "a second" if name == bare else "jobs/s")
    wide = rates[named["wide"]]
    report.ratio(f"{jobs:,} short jobs in a second, a warm process for each, {PRELOADED}", median(wide), "", "jobs")
    report.ratio("short jobs / bare fork, exit, wait: the limit of a process for each", paired(wide, rates[bare]))


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
