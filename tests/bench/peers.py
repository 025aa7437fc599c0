"""PEERS: other job systems from the package index beside pgsig, on the same server, in rounds that take turns.

Each peer drains jobs that do nothing, at its own best settings (see tests/bench/peer). pgsig takes signals, matches, decides and records
for each an action, or an action and a run. Latency of a peer is from before its enqueue until the job begins.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench import drain
from tests.bench.report import Report, paired, percentile
from tests.bench.server import Server, connect
from tests.support_core import operator

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds


@dataclass(frozen=True)
class Peer:
    """name: for people. module: of tests.bench.peer. jobs: of one round, for quick rounds of about a second each."""

    name: str
    module: str
    jobs: int
    goal: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    def start(self, address: str, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.peer.{self.module}", address, *map(str, words)],
            cwd=ROOT, env={**os.environ, **dict(self.environment)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def call(self, address: str, *words: object) -> str:
        process = self.start(address, *words)
        said = _said(process)
        if process.returncode:
            raise SystemExit(f"{self.name}: {words[0]} failed; try it: python -m tests.bench.peer.{self.module}")
        return said


PEERS = (
    Peer("PgQueuer", "pgqueuer", 4000, "≥ 3"),
    Peer("procrastinate", "procrastinate", 300, "≥ 20"),
    Peer("DBOS, polls each 1 s", "dbos", 600),
    Peer("DBOS, polls each 10 ms", "dbos", 600, environment=(("BENCH_DBOS_POLL", "0.01"),)),
)


def installed() -> dict[str, str]:
    """The peers that are there, with their versions."""
    found = {}
    for name in sorted({peer.module for peer in PEERS}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def measure(server: Server, report: Report, *, rounds: int, others: int, events: int, factor: int) -> None:
    """others: rounds of the peers that no goal names."""
    there = [peer for peer in PEERS if peer.module in installed()]
    if missing := {peer.module for peer in PEERS} - set(installed()):
        report.note(f"not installed: {', '.join(sorted(missing))} (pip install 'pgsig[bench]')")
    with ExitStack() as stack:
        own: dict[str, str] = {}
        for name, kind in (("an action each", "streaming"), ("a run each", "batch")):
            own[name] = stack.enter_context(server.database())
            with connect(own[name]) as connection:
                operator(connection, "o", ("START", {"signal": "load"}), kind=kind)
        theirs = {peer: stack.enter_context(server.database(bare=True)) for peer in there}
        for peer, address in theirs.items():
            peer.call(address, "install")
        rates: dict[str, list[float]] = {}
        for turn in range(rounds):
            for name, address in own.items():
                jobs = 10_000 * factor
                with connect(address) as log:
                    drain.fill(log, jobs, "'s' || i % 100" if name == "an action each" else f"'{turn}-' || i")
                rates.setdefault(f"pgsig, {name}", []).append(drain.drain(address, jobs))
            for peer, address in theirs.items():
                if turn >= others and not peer.goal:
                    continue
                took = float(peer.call(address, "round", peer.jobs * factor))
                rates.setdefault(peer.name, []).append(peer.jobs * factor / took)
        for name, found in rates.items():
            report.figure(f"drain: {name}", found, "a second")
        for peer in there:
            found = rates[peer.name]
            for name in own:
                report.ratio(
                    f"drain, {name}: pgsig / {peer.name}",
                    paired(rates[f"pgsig, {name}"][: len(found)], found),
                    peer.goal if name == "an action each" else "",
                )
        for peer, address in theirs.items():
            times = _latencies(peer, address, events)
            for label, part in (("p50", 0.5), ("p99", 0.99)):
                report.figure(f"enqueue to start, {peer.name}, {label}", [percentile(times, part) * 1e3], "ms")
    report.note(
        "an action of pgsig is a decision on record (here about a service that runs already); a job of a peer is claimed, does nothing and "
        "is finished. A run is what a runner will execute: to be claimed and reported, it costs pgsig more than is counted here."
    )


def _latencies(peer: Peer, address: str, events: int) -> list[float]:
    worker = peer.start(address, "work", events)
    try:
        assert worker.stdout is not None
        if worker.stdout.readline() != "ready\n":
            raise SystemExit(f"{peer.name}: its worker does not begin")
        peer.call(address, "send", events)
        return [float(x) for x in json.loads(_said(worker))]
    finally:
        worker.kill()
        worker.wait()


def _said(process: subprocess.Popen[str]) -> str:
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    return (said.strip().splitlines() or [""])[-1]
