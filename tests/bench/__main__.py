"""`python -m tests.bench`: measure latency, throughput and cost, beside peers and raw limits. Prints ratios first.

--full [NAME …]  more, longer and larger: about an hour for all parts, or only these        --only NAME  a part of it; may be repeated
--publish      write docs/bench/result.{json,html}, the last published result
--out FOLDER   write result.{json,html} there instead        PGSIG_BENCH_DSN  a server to measure instead of one of its own
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pgsig import __version__
from tests.bench import clock, decide, drain, emit, held, history, latency, model, peers, runner, silent
from tests.bench.page import page
from tests.bench.report import Report
from tests.bench.server import Server, server

DOCS = Path(__file__).resolve().parents[2] / "docs" / "bench"

# name, what people call it, quick, full
Part = Callable[[Server, Report], None]
PARTS: dict[str, tuple[str, Part, Part]] = {
    "latency": (
        "idle latency",
        lambda s, r: latency.measure(s, r, rounds=5, events=24),
        lambda s, r: latency.measure(s, r, rounds=15, events=300),
    ),
    "peers": (
        "beside peers",
        lambda s, r: peers.measure(s, r, rounds=5, others=3, events=8, factor=1),
        lambda s, r: peers.measure(s, r, rounds=9, others=9, events=300, factor=5),
    ),
    "emit": (
        "emit, one row a commit",
        lambda s, r: emit.measure(s, r, rounds=5, seconds=0.35),
        lambda s, r: emit.measure(s, r, rounds=9, seconds=5),
    ),
    "drain": (
        "drain, one worker's engine",
        lambda s, r: drain.measure(s, r, rounds=3, backlog=10_000),
        lambda s, r: drain.measure(s, r, rounds=9, backlog=200_000),
    ),
    "snapshot": (
        "a snapshot held open",
        lambda s, r: held.snapshot(s, r, rounds=2, seconds=10, backlog=8_000),
        lambda s, r: held.snapshot(s, r, rounds=3, seconds=300, backlog=50_000),
    ),
    "writer": (
        "a write transaction open elsewhere",
        lambda s, r: held.open_writer(s, r, rounds=5, events=24),
        lambda s, r: held.open_writer(s, r, rounds=9, events=300),
    ),
    "rules": (
        "rules in the pure core",
        lambda _, r: decide.measure(r, rounds=7, signals=10_000, most_rules=100_000),
        lambda _, r: decide.measure(r, rounds=15, signals=20_000, most_rules=100_000),
    ),
    "history": (
        "backlog and history",
        lambda s, r: history.measure(s, r, rounds=5, signals=150_000, backlog=75_000, steady=15_000),
        lambda s, r: history.measure(s, r, rounds=9, signals=10_000_000, backlog=5_000_000, steady=200_000),
    ),
    "silent": (
        "no NOTIFY arrives",
        lambda s, r: silent.dropped(s, r, events=16),
        lambda s, r: silent.dropped(s, r, events=300),
    ),
    "idle": (
        "an idle worker",
        lambda s, r: silent.cost(s, r, seconds=1.6, rounds=5),
        lambda s, r: silent.cost(s, r, seconds=20, rounds=9),
    ),
    "runner": (
        "a runner",
        lambda s, r: runner.measure(s, r, rounds=5, starts=10, jobs=1_000, drains=2),
        lambda s, r: runner.measure(s, r, rounds=5, starts=80, jobs=10_000, drains=3),
    ),
    "clock": (
        "a clock",
        lambda s, r: clock.measure(s, r, seconds=4, many=10_000, changes=8),
        lambda s, r: clock.measure(s, r, seconds=200, many=10_000, changes=50),
    ),
    "model": (
        "the model of docs/scaling.md",
        lambda s, r: model.measure(s, r, rounds=3, backlog=10_000),
        lambda s, r: model.measure(s, r, rounds=9, backlog=100_000),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", nargs="*", choices=PARTS, metavar="NAME")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    # As Ctrl-C does, and not SystemExit: that is of one part alone. So the server and its folder go, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    large = set() if given.full is None else set(given.full or PARTS)
    mode = (
        "full"
        if large == set(PARTS)
        else ", ".join(["quick", *(f"full: {PARTS[name][0]}" for name in PARTS if name in large)])
    )
    report, begin, failed = Report(), time.monotonic(), False
    with server() as postgres:
        report.describe_machine(postgres.version(), {"pgsig": __version__, **peers.installed(), "mode": mode})
        for name in given.only or PARTS:
            report.group, quick, full = PARTS[name]
            print(f"{time.monotonic() - begin:4.0f} s  {report.group}", file=sys.stderr, flush=True)
            try:
                (full if name in large else quick)(postgres, report)
            except SystemExit as error:  # a part that cannot be measured here does not take the others along
                report.note(f"not measured: {error}")
                failed = True
    report.end(time.monotonic() - begin)
    print(report.text())
    folder = DOCS if given.publish else given.out
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        report.write(folder / "result.json")
        (folder / "result.html").write_text(page(report), encoding="utf-8")
        print(f"\nwritten: {folder}/result.json, result.html")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
