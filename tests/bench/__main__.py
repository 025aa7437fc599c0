"""`python -m tests.bench`: measure latency, throughput and cost, beside peers and raw limits. Prints ratios first, and last which goals are
not met.

--full [NAME …]  more, longer and larger: about an hour for all parts, or only these        --only NAME  a part of it; may be repeated
--publish      write docs/bench/result.{json,html}, the last published result: what is a matter of size in full, the others quick
--out FOLDER   write result.{json,html} there instead        PGSIG_BENCH_DSN  a server to measure instead of one of its own

Exit code 1: a part could not be measured; or, with --full or --publish, a goal is not met. A quick run only tells which are not: it is
short, and what else the machine does at that moment is in its figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pgsig import __version__
from tests.bench import clock, decide, drain, emit, facts, held, history, latency, model, peers, rules, runner, silent
from tests.bench.page import page
from tests.bench.report import Report
from tests.bench.server import Server, server

DOCS = Path(__file__).resolve().parents[2] / "docs" / "bench"

# name, what people call it, quick, full
Part = Callable[[Server, Report], None]
PARTS: dict[str, tuple[str, Part, Part]] = {
    "latency": (
        "idle latency",
        lambda s, r: latency.measure(s, r, rounds=5, events=20),
        lambda s, r: latency.measure(s, r, rounds=15, events=300),
    ),
    "peers": (
        "beside peers",
        lambda s, r: peers.measure(s, r, rounds=5, events=8, factor=1),
        lambda s, r: peers.measure(s, r, rounds=9, events=60, factor=5),
    ),
    "emit": (
        "emit, one row a commit",
        lambda s, r: emit.measure(s, r, rounds=5, seconds=1, others=False),
        lambda s, r: emit.measure(s, r, rounds=15, seconds=2),
    ),
    "drain": (
        "drain, one worker's engine",
        lambda s, r: drain.measure(s, r, rounds=3, backlog=10_000),
        lambda s, r: drain.measure(s, r, rounds=9, backlog=200_000),
    ),
    "snapshot": (
        "a snapshot held open",
        lambda s, r: held.snapshot(s, r, rounds=2, seconds=8, backlog=8_000),
        lambda s, r: held.snapshot(s, r, rounds=3, seconds=300, backlog=50_000),
    ),
    "writer": (
        "a write transaction open elsewhere",
        lambda s, r: held.open_writer(s, r, rounds=5, events=20),
        lambda s, r: held.open_writer(s, r, rounds=9, events=100),
    ),
    "rules": (
        "rules in the pure core",
        lambda _, r: decide.measure(r, rounds=5, signals=8_000, most_rules=100_000),
        lambda _, r: decide.measure(r, rounds=15, signals=20_000, most_rules=100_000),
    ),
    "definitions": (
        "many rules in a database",
        lambda s, r: rules.measure(s, r, rounds=5, signals=100, most_rules=100_000),
        lambda s, r: rules.measure(s, r, rounds=15, signals=200, most_rules=100_000),
    ),
    "history": (
        "backlog and history",
        lambda s, r: history.measure(s, r, rounds=5, signals=150_000, backlog=75_000, steady=15_000),
        lambda s, r: history.measure(s, r, rounds=9, signals=10_000_000, backlog=5_000_000, steady=200_000),
    ),
    "silent": (
        "no NOTIFY arrives",
        lambda s, r: silent.dropped(s, r, rounds=5, events=16),
        lambda s, r: silent.dropped(s, r, rounds=9, events=60),
    ),
    "idle": (
        "an idle worker",
        lambda s, r: silent.cost(s, r, seconds=2, rounds=5),
        lambda s, r: silent.cost(s, r, seconds=20, rounds=9),
    ),
    "runner": (
        "a runner",
        lambda s, r: runner.measure(s, r, rounds=5, starts=8, jobs=200, beside=False),
        lambda s, r: runner.measure(s, r, rounds=5, starts=80, jobs=10_000, beside=True),
    ),
    "clock": (
        "a clock",
        lambda s, r: clock.measure(s, r, rounds=5, seconds=0.8, many=10_000, changes=8, instants=3),
        lambda s, r: clock.measure(s, r, rounds=9, seconds=6, many=10_000, changes=20, instants=9),
    ),
    "model": (
        "the model of docs/scaling.md",
        lambda s, r: model.measure(s, r, rounds=1, backlog=8_000, patience=0),
        lambda s, r: model.measure(s, r, rounds=7, backlog=20_000, patience=120),
    ),
}

# A large backlog, a long history, a snapshot held for minutes, ten thousand jobs, the slowest of a hundred, ratios that are near their
# goal: a quick run does not tell what these are there to tell.
PUBLISHED = ("peers", "emit", "snapshot", "writer", "history", "runner", "clock")


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
    if given.publish and (given.only or given.out):
        parser.error("--publish writes one report of all parts: without --only and --out")
    large = set() if given.full is None else set(given.full or PARTS)
    large |= set(PUBLISHED) if given.publish else set()
    report, begin, failed = Report(), time.monotonic(), list[str]()
    with server() as postgres:
        report.describe({
            "command": _command(given),
            "mode": _mode(large),
            "commit": facts.commit(),
            "machine": facts.machine(),
            **postgres.facts(),
            "python": platform.python_version(),
            "pgsig": __version__,
            **facts.versions(),
        })  # fmt: skip
        for name in given.only or PARTS:
            report.group, quick, full = PARTS[name]
            print(f"{time.monotonic() - begin:4.0f} s  {report.group}", file=sys.stderr, flush=True)
            try:
                (full if name in large else quick)(postgres, report)
            except SystemExit as error:  # a part that cannot be measured here does not take the others along
                report.note(f"not measured: {error}")
                failed.append(report.group)
    report.end(time.monotonic() - begin)
    print(report.text())
    folder = DOCS if given.publish else given.out
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        report.write(folder / "result.json")
        (folder / "result.html").write_text(page(report), encoding="utf-8")
        print(f"\nwritten: {folder}/result.json, result.html")
    print(f"\nnot measured: {', '.join(failed)}" if failed else "")
    print(report.summary())
    return int(bool(failed or (large and report.unmet())))


def _command(given: argparse.Namespace) -> str:
    """How to have this report made anew."""
    words = [f"--only {name}" for name in given.only or ()]
    if given.full is not None:
        words.append(" ".join(["--full", *given.full]))
    if given.publish:
        words.append("--publish")
    words = [f'"{" ".join(words)}"'] if len(words) > 1 or " " in "".join(words) else words
    server = ["PGSIG_BENCH_DSN=…"] if os.environ.get("PGSIG_BENCH_DSN") else []
    return " ".join([*server, "make bench", *(f"ARGS={text}" for text in words)])


def _mode(large: set[str]) -> str:
    if large == set(PARTS):
        return "full"
    return ", ".join(["quick", *(f"full: {title}" for name, (title, *_) in PARTS.items() if name in large)])


if __name__ == "__main__":
    sys.exit(main())
