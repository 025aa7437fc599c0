"""`python -m tests.bench`: measure latency, throughput and cost, print the table with ratios first, and write it down.

--full      more and longer rounds      --only NAME    one of latency, emit, drain, decide; may be repeated
--json PATH write the report as JSON    PGSIG_BENCH_DSN  a server to measure instead of one of its own
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.bench import decide, drain, emit, latency
from tests.bench.report import Report
from tests.bench.server import server

PARTS = ("latency", "emit", "drain", "decide")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    parts, full = given.only or PARTS, given.full
    report, begin = Report(), time.monotonic()
    with server() as postgres:
        report.describe_machine(postgres.version())
        for part in parts:
            print(f"… {part}", file=sys.stderr, flush=True)
            if part == "latency":
                latency.measure(postgres, report, rounds=9 if full else 5, events=300 if full else 60)
            elif part == "emit":
                emit.measure(postgres, report, rounds=9 if full else 3, seconds=5 if full else 2)
            elif part == "drain":
                drain.measure(postgres, report, rounds=5 if full else 1, backlog=200_000 if full else 50_000)
            else:
                decide.measure(report, rounds=5 if full else 3, signals=20_000, most_rules=100_000)
    report.about["took"] = f"{time.monotonic() - begin:.0f} s"
    print(report.text())
    if given.json is not None:
        report.write(given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
