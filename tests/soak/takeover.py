"""`python -m tests.soak.takeover`: how long others need when one dies.

runner, same host      kill -9 of a runner; its streaming job's last sign of life → the job begins elsewhere
runner, another host   the same, where nobody can see that its process is gone: the lease has to run out
worker                 kill -9 of the one that was at work; the kill → the next signal's action

--rounds N   deaths of each kind; default 20     --lease S   seconds; default 10     --json PATH   default tests/soak/takeover.json
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import clock_gettime, monotonic
from typing import Any

from tests.soak import arena as arenas
from tests.soak.arena import Arena
from tests.soak.emitter import BOOTTIME, OWN
from tests.soak.evidence import told

REPORT = Path(__file__).with_name("takeover.json")
GOALS = {"runner, same host": 3.0, "runner, another host": 15.0, "worker": 1.0}
SLOTS = ("w0", "w1", "r0", "r1", "r2")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.soak.takeover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--lease", type=float, default=10.0)
    parser.add_argument("--json", type=Path, default=REPORT)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = measure(given.rounds, given.lease, say=lambda text: print(text, flush=True))
    given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, row in found["seconds"].items():
        figures = "  ".join(f"{what} {row[what]:.3f} s" for what in ("p50", "p99", "most", "goal"))
        print(f"{name:22} {row['count']:4} times  {figures}")
    return 0 if found["good"] else 1


def measure(rounds: int, lease: float, *, say: Callable[[str], None]) -> dict[str, Any]:
    arenas.LEASE = lease
    arena = Arena(1, signals=0, seconds=1, slots=SLOTS, say=say)
    try:
        arena.open()
        (arena.folder / "quiet").touch()  # jobs that emit would start others
        namespace = arena.namespaces[0]
        for number in range(6):
            arena.ask("SELECT pgsig.emit('svc.start', 'null', %s, %s, %s)", f"t{number}", namespace, OWN)
        taken = {
            "runner, same host": runners(arena, rounds, say, hidden=False),
            "runner, another host": runners(arena, rounds, say, hidden=True),
            "worker": [worker(arena, namespace, number) for number in range(rounds)],
        }
    finally:
        arena.close()
    seconds = {
        name: {
            "count": len(values), "p50": round(statistics.median(values), 3), "p99": round(_p99(values), 3),
            "most": round(max(values), 3), "goal": GOALS[name],
        }
        for name, values in taken.items()
    }  # fmt: skip
    return {
        "lease": lease,
        "poll": arenas.POLL,
        "seconds": seconds,
        "good": all(row["p99"] <= row["goal"] for row in seconds.values()),
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)]


def runners(arena: Arena, rounds: int, say: Callable[[str], None], *, hidden: bool) -> list[float]:
    """Kill the runner of as many jobs as it has, again and again. One figure for each job that was taken over."""
    found: list[float] = []
    while len(found) < rounds:
        arena.wait(lambda: len(arena.alive()) == 6 and settled(arena), 60, "six services to run")
        if hidden:
            arena.ask(
                """UPDATE pgsig_private.process SET detail = detail || '{"machine": "elsewhere"}' WHERE role = 'runner'"""
            )
        held = arena.ask(
            "SELECT p.name, array_agg(r.id) FROM pgsig_private.run r JOIN pgsig_private.process p ON p.id = r.runner_id"
            " WHERE r.state = 'running' AND p.ended_at IS NULL GROUP BY p.name ORDER BY count(*) DESC, p.name"
        )
        name, runs = held[0]
        before = {run: epoch for run, epoch in arena.alive().values() if run in runs}
        arena.slots[name].stay_dead = True
        arena.signal(name, signal.SIGKILL)
        killed = clock_gettime(BOOTTIME)
        arena.wait(partial(again, arena, before), 60, "its jobs to run elsewhere")
        begun = again(arena, before) or []
        found += [at - killed for at in begun]
        say(f"{name} {'unseen' if hidden else 'seen'}: {', '.join(f'{at - killed:.2f}' for at in begun)} s")
        arena.spawn(name)
    return found


def settled(arena: Arena) -> bool:
    return bool(
        arena.ask("SELECT count(*) = 6 AND bool_and(state = 'running') FROM pgsig_private.run WHERE ended_at IS NULL")[
            0
        ][0]
    )


def again(arena: Arena, before: dict[int, int]) -> list[float] | None:
    """When each of these runs began under a newer epoch, None while one has not."""
    begun = {
        line.run: line.at for line in reversed(told(arena.folder / "jobs.jsonl"))
        if line.what == "start" and line.run in before and line.epoch > before[line.run]
    }  # fmt: skip
    return list(begun.values()) if len(begun) == len(before) else None


def worker(arena: Arena, namespace: str, number: int) -> float:
    """Kill the worker that slept with the bell in its hand, or either one, and see how long the next signal waits."""
    name = SLOTS[number % 2]
    arena.wait(lambda: all(arena.slots[one].pid for one in SLOTS[:2]) and joined(arena), 30, "both workers")
    action(arena, namespace, f"warm-{number}")
    arena.slots[name].stay_dead = True
    arena.signal(name, signal.SIGKILL)
    seconds = action(arena, namespace, f"round-{number}")
    arena.wait(lambda: not arena.slots[name].pid, 10, "its end")
    arena.spawn(name)
    return seconds


def joined(arena: Arena) -> bool:
    pids = [arena.slots[name].pid for name in SLOTS[:2]]
    return bool(arena.ask("SELECT count(*) = 2 FROM pgsig_private.process WHERE pid = ANY (%s)", pids)[0][0])


def action(arena: Arena, namespace: str, subject: str) -> float:
    """Seconds from a signal to its action."""
    begin = monotonic()
    signal_id = arena.ask("SELECT pgsig.emit('load.stubborn', 'null', %s, %s, %s)", subject, namespace, OWN)[0][0]
    while not arena.ask("SELECT 1 FROM pgsig_private.action WHERE cause_id = %s", signal_id):
        arena.tend(0.002)
    return monotonic() - begin


if __name__ == "__main__":
    sys.exit(main())
