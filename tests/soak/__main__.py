"""`python -m tests.soak`: a seeded run of faults. Prints progress, then the report, and writes it as JSON.

--seed N      what goes wrong when (default: a new one, which is printed)     --faults N   default 1000
--signals N   default 50000     --minutes N   over which they are spread; default 30     --json PATH   default tests/soak/report.json
--keep        leave the folder with logs and ledgers where something was found
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
from pathlib import Path

from tests.soak.soak import Plan, soak

REPORT = Path(__file__).with_name("report.json")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--signals", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", type=Path, default=REPORT)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    report = soak(
        Plan(seed, given.faults, given.signals, given.minutes),
        say=lambda text: print(text, flush=True),
        keep=given.keep,
    )
    given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(text_of(report))
    print(f"written to {given.json}")
    return 0 if report["good"] else 1


def text_of(report: dict[str, object]) -> str:
    lines = []
    for name, value in report.items():
        if isinstance(value, dict) and name == "invariants":
            lines += [
                f"{key:4} {row['checked']:8} checked {row['broken']:4} broken  {row['claim']}"
                for key, row in value.items()
            ]
        elif isinstance(value, list):
            lines += [f"{name}: {len(value)}", *(f"    {item}" for item in value[:20])]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
