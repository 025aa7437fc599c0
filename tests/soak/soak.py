"""One soak from beginning to end: open, strike by the schedule, come to rest, read all that was written down, judge."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psycopg

from tests.soak.arena import LEASE, Arena
from tests.soak.checker import CLAIMS, Verdict, judge
from tests.soak.emitter import OWN, SUBJECTS
from tests.soak.evidence import Evidence, collect
from tests.soak.nursery import ROOT
from tests.soak.schedule import CLOCKS, EMITTERS, SLOTS, Fault, draw

REST = 180.0  # seconds for everything to come to rest once the faults are over
MOVES = "SELECT coalesce(max(id), 0), (SELECT count(*) FROM pgsig.signals) FROM soak.move"
UNRESTED = (
    "SELECT count(*) FROM pgsig_private.run r JOIN pgsig_private.operator o ON o.id = r.operator_id"
    " WHERE r.ended_at IS NULL AND (o.kind = 'batch' OR r.state <> 'running' OR r.desired = 'stop')"
)


@dataclass(frozen=True)
class Plan:
    seed: int
    faults: int
    signals: int
    minutes: float

    @property
    def seconds(self) -> float:
        return self.minutes * 60


def soak(plan: Plan, *, say: Callable[[str], None] = print, keep: bool = False) -> dict[str, Any]:
    """Returns the report. keep: leave the folder where something was found."""
    faults = draw(plan.seed, plan.faults, plan.seconds, lease=LEASE)
    arena = Arena(plan.seed, signals=plan.signals, seconds=plan.seconds, slots=SLOTS, say=say)
    say(f"in {arena.folder}")
    begin = monotonic()
    try:
        arena.open()
        run_faults(arena, faults, say)
        evidence = come_to_rest(arena, say)
        verdict = judge(evidence)
        arena.keep = keep and not verdict.good
        return report(plan, arena, evidence, verdict, monotonic() - begin)
    finally:
        arena.close()


def run_faults(arena: Arena, faults: Sequence[Fault], say: Callable[[str], None]) -> None:
    begin, told = monotonic(), 0.0
    for number, fault in enumerate(faults):
        while (left := fault.at - (monotonic() - begin)) > 0:
            arena.tend(min(left, 0.05))
        arena.strike(fault)
        if monotonic() - told > 20:
            told = monotonic()
            say(
                f"{told - begin:6.0f} s  {number + 1:5} of {len(faults)} faults, {arena.emitted():6} signals,"
                f" {len(arena.fired()):4} failpoints reached, {len(arena.crashes)} unexpected ends"
            )


def come_to_rest(arena: Arena, say: Callable[[str], None]) -> Evidence:
    """Let everything recover, say what is wanted in the end, wait for it, and read it all."""
    say("faults are over; waiting for rest")
    arena.calm()
    late: list[str] = []

    def wait(ready: Callable[[], Any], about: str) -> None:
        if not arena.wait(ready, REST, about):
            late.append(f"waited {REST:g} s for {about}")

    wait(lambda: arena.emitted() >= arena.signals, "the emitters to reach their number")
    arena.stop(*EMITTERS)
    ticks = arena.ask("SELECT count(*) FROM pgsig_private.tick")[0][0]
    wait(lambda: arena.ask("SELECT count(*) FROM pgsig_private.tick")[0][0] > ticks, "another tick")
    arena.stop(*CLOCKS)
    wanted = last_orders(arena)
    (arena.folder / "quiet").touch()
    begin = monotonic()
    wait(
        lambda: arena.ask("SELECT coalesce(sum(waiting), 0) FROM pgsig.lag")[0][0] == 0, "every signal to be evaluated"
    )
    say(f"evaluated {monotonic() - begin:.1f} s after the last order")

    def rests() -> bool:
        if arena.ask(UNRESTED)[0][0] or arena.ask("SELECT coalesce(sum(waiting), 0) FROM pgsig.lag")[0][0]:
            return False
        alive = arena.alive()
        return all((name in alive) == to_live for name, to_live in wanted.items())

    until = monotonic() + REST
    while True:
        wait(rests, "every run to end, and every service to be as ordered")
        alive, moves = arena.alive(), arena.ask(MOVES)
        with psycopg.connect(arena.server.dsn(), autocommit=True) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            evidence = collect(connection, arena.folder)
        # A machine that stands still for longer than a lease is one fault more: look again once that is over.
        if (alive, moves) == (arena.alive(), arena.ask(MOVES)) or late or monotonic() > until:
            break
    evidence.alive, evidence.wanted, evidence.late = alive, wanted, late
    return evidence


def last_orders(arena: Arena) -> dict[str, bool]:
    """Order each service once more, one after the other. Returns what is to live in the end."""
    wanted = {}
    for place, namespace in enumerate(arena.namespaces):
        for number, subject in enumerate(SUBJECTS):
            key = "svc.stop" if (place + number) % 2 else "svc.start"
            arena.ask("SELECT pgsig.emit(%s, 'null', %s, %s, %s)", key, subject, namespace, OWN)
            wanted[f"{namespace}.service.{subject}"] = key == "svc.start"
    return wanted


def report(plan: Plan, arena: Arena, evidence: Evidence, verdict: Verdict, took: float) -> dict[str, Any]:
    server = arena.ask("SELECT current_setting('server_version'), current_setting('fsync')")[0]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    fired = Counter(f"{name} {action}" for _, name, action in arena.fired())
    return {
        "seed": plan.seed, "minutes": plan.minutes, "took_seconds": round(took), "commit": commit.stdout.strip(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "postgres": f"{server[0]}, fsync {server[1]}",
        "faults": sum(arena.struck.values()), "faults_by_kind": dict(sorted(arena.struck.items())),
        "failpoints_reached": sum(fired.values()), "failpoints": dict(sorted(fired.items())),
        "unexpected_ends": arena.crashes,
        "signals": {
            "committed_by_emitters": arena.emitted(), "in_the_log": len(evidence.signals),
            "by_kind": dict(sorted(Counter(signal.kind for signal in evidence.signals).items())),
        },
        "actions": len(evidence.actions), "outcomes": len(evidence.outcomes),
        "runs": dict(sorted(Counter(run.state for run in evidence.runs).items())),
        "grants": sum(move.state == "starting" and move.old_state != "starting" for move in evidence.moves),
        "job_processes": sum(line.what == "start" for line in evidence.jobs),
        "deploys": arena.deploys,
        "invariants": {
            f"E{number}": {"claim": claim, "checked": verdict.checked[number], "broken": sum(n == number for n, _ in verdict.findings)}
            for number, claim in CLAIMS.items()
        },
        "findings": [f"E{number}: {what}" for number, what in verdict.findings[:200]],
        "good": verdict.good,
    }  # fmt: skip
