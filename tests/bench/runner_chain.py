"""A CHAIN OF TWO: a signal starts a batch job, a warm Python callable; what it emits starts a second one. One worker, one runner, idle
before each. From before the commit of the first signal until the second job's first line; and until then from the first job's last line,
its `run.emit`: what others call the time from task to task.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from pgsig.store.definitions import apply
from tests.bench.report import Report, percentile
from tests.bench.server import Connection, connect
from tests.support import wait_for
from tests.support_core import workers

WARM_UP = 3  # chains that are not counted: statements are prepared, and the fork server needs a moment
ELSEWHERE = (
    "Airflow 3.3.2 was measured elsewhere, not in this run: 1,140 ms p50 and 1,290 ms p95 from the end of a task's code to the"
    " beginning of the next one's (LocalExecutor, its defaults, Postgres, a calm machine of two cores, 60 gaps of 15 chains of five tasks);"
    " 470 ms with scheduler_idle_sleep_time=0.1."
)
AIRFLOW = 1140.0
PRELOADED = "capacity 64, its module in PGSIG_PRELOAD"  # the runner that has the goal
CHAIN = "signal, job, signal, job: to its first line"
GAP = "a job's emit to the next job's first line"


def measure(
    report: Report, runners: Mapping[str, str], folder: Path, *, rounds: int, chains: int, rest: Callable[[], None]
) -> None:
    """runners: the address of each, by how it is set up. rest: called before each chain."""
    stamps = folder / "chain"
    stamps.touch()
    whole = defaultdict[str, list[list[float]]](list)
    gaps = defaultdict[str, list[list[float]]](list)
    with ExitStack() as stack:
        there = {name: stack.enter_context(connect(address)) for name, address in runners.items()}
        for number, (name, c) in enumerate(there.items()):
            stack.enter_context(workers(runners[name]))
            steps = {step: _operator(step, key, stamps) for step, key in STEPS.items()}
            apply(c, {"workflow": "chain", "operators": steps})
            for chain in range(WARM_UP):
                _chain(c, f"warm{number}-{chain}", stamps)
        for turn in range(rounds):
            for number, (name, c) in enumerate(there.items()):
                times = []
                for chain in range(chains):
                    rest()
                    times.append(_chain(c, f"c{number}-{turn}-{chain}", stamps))
                whole[name].append([(second - began) * 1e3 for began, _, second in times])
                gaps[name].append([(second - said) * 1e3 for _, said, second in times])
    for name in runners:
        chain_p50 = report.figure(f"{CHAIN}, {name}, p50", [percentile(r, 0.5) for r in whole[name]], "ms")
        gap_p50 = report.figure(f"{GAP}, {name}, p50", [percentile(r, 0.5) for r in gaps[name]], "ms")
        report.pooled(f"{CHAIN}, {name}, p99", whole[name], 0.99, "ms")
        report.pooled(f"{GAP}, {name}, p99", gaps[name], 0.99, "ms")
        report.ratio(f"{CHAIN}, {name}, p50", chain_p50, "≤ 15" if name == PRELOADED else "", "ms")
        report.ratio(f"task to task: Airflow 3.3.2 (measured elsewhere) / pgsig, {name}, p50", AIRFLOW / gap_p50)
    report.note(ELSEWHERE)


STEPS = {"first": "chain.began", "second": "chain.went"}


def _operator(name: str, key: str, stamps: Path) -> dict[str, object]:
    env = {"STAMPS": str(stamps)}
    return {"batch": {"python": f"tests.bench.runner_job:{name}", "env": env}, "start": {"signal": key}}


def _chain(c: Connection, subject: str, stamps: Path) -> tuple[float, float, float]:
    """When the first signal was about to be committed, the first job about to emit, the second begun."""
    began = monotonic()
    c.execute("SELECT pgsig.emit('chain.began', '{}', %s)", [subject])

    def stamped() -> dict[str, float] | None:
        lines = [line.split() for line in stamps.read_text().splitlines()]
        found = {name: float(at) for name, of, at in lines if of == subject}
        return found if len(found) == len(STEPS) else None

    found = wait_for(stamped, 30, about=f"chain {subject}") or {}
    return began, found["first"], found["second"]
