"""A CHAIN OF TWO: a signal starts a batch job, a warm Python callable; what it emits starts a second one. One worker, one runner, idle
before each. From before the commit of the first signal until the second job's first line; and until then from the first job's last line,
its `run.emit`: what others call the time from task to task.
"""

from __future__ import annotations

from collections.abc import Callable
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


def measure(report: Report, address: str, folder: Path, *, rounds: int, chains: int, rest: Callable[[], None]) -> None:
    """rest: called before each chain."""
    stamps = folder / "chain"
    stamps.touch()
    whole: list[list[float]] = []
    gaps: list[list[float]] = []
    with connect(address) as c, workers(address):
        apply(
            c, {"workflow": "chain", "operators": {name: _operator(name, key, stamps) for name, key in STEPS.items()}}
        )
        for number in range(WARM_UP):
            _chain(c, f"warm{number}", stamps)
        for n in range(rounds):
            times = []
            for number in range(chains):
                rest()
                times.append(_chain(c, f"c{n}-{number}", stamps))
            whole.append([(second - began) * 1e3 for began, _, second in times])
            gaps.append([(second - said) * 1e3 for _, said, second in times])
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        chain = report.figure(
            f"signal, job, signal, job: to its first line, {name}", [percentile(r, part) for r in whole], "ms"
        )
        gap = report.figure(
            f"a job's emit to the next job's first line, {name}", [percentile(r, part) for r in gaps], "ms"
        )
        if name == "p50":
            report.ratio("signal, job, signal, job: to its first line, p50", chain, "≤ 15", "ms")
            report.ratio("task to task: Airflow 3.3.2 (measured elsewhere) / pgsig, p50", AIRFLOW / gap)
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
