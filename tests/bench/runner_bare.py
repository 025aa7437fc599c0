"""The least that a process for each job takes: fork, exit, wait, two at a time, of a process with the fork server's modules, which runs
nothing in its children. `python -m tests.bench.runner_bare N` prints how many a second."""

from __future__ import annotations

import importlib
import os
import sys
import time

TOGETHER = 2


def main(number: int) -> None:
    for name in ("run", "runner.linux", "runner.call", "runner.leaving", "runner.forkserver"):
        importlib.import_module(f"pgsig.{name}")
    begin, alive = time.monotonic(), 0
    for _ in range(number):
        if alive == TOGETHER:
            os.wait()
            alive -= 1
        if os.fork() == 0:
            os._exit(0)
        alive += 1
    for _ in range(alive):
        os.wait()
    print(number / (time.monotonic() - begin))


if __name__ == "__main__":
    main(int(sys.argv[1]))
