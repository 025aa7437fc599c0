"""PEERS: other job systems from the package index beside pgsig, on the same server, in rounds that take turns.

Each peer drains jobs that do nothing, at its own best settings (see tests/bench/peer). pgsig takes signals, matches, decides and records
for each an action, or an action and a run. Latency of a peer is from before its enqueue until the job begins.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import drain, facts
from tests.bench.report import Report, paired, percentile
from tests.bench.server import Server, connect
from tests.support_core import operator

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds
FIRST = 2  # jobs of each worker, not counted: it has just begun

Ask = Callable[..., Any]


@dataclass(frozen=True)
class Peer:
    """name: for people. module: of tests.bench.peer. jobs: of one round, for quick rounds of about a second each; 0: its latency alone,
    as the same is there at a better setting."""

    name: str
    module: str
    jobs: int
    goal: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    @contextmanager
    def process(self, address: str) -> Iterator[Ask]:
        """A process of it, and how it is asked: a word and its numbers, and the answer."""
        environment = {**os.environ, **dict(self.environment)}
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.peer.{self.module}", address], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        asked, told = process.stdin, process.stdout
        assert asked is not None
        assert told is not None

        def ask(*words: object) -> Any:
            """Without words: the next answer."""
            late = threading.Timer(PATIENCE, process.kill)
            late.start()
            try:
                if words:
                    asked.write(" ".join(map(str, words)) + "\n")
                    asked.flush()
                if line := told.readline():
                    return json.loads(line)
            except BrokenPipeError:
                pass
            finally:
                late.cancel()
            raise SystemExit(f"{self.name}: {words} failed; try it: python -m tests.bench.peer.{self.module}")

        try:
            yield ask
        finally:
            process.kill()
            process.communicate()


OWN = 10_000  # signals of pgsig in one round; as many jobs of the one that comes nearest
PEERS = (
    Peer("PgQueuer", "pgqueuer", OWN, "≥ 3"),
    Peer("procrastinate", "procrastinate", 300, "≥ 20"),
    Peer("DBOS, polls each 1 s", "dbos", 0),
    Peer("DBOS, polls each 10 ms", "dbos", 300, environment=(("BENCH_DBOS_POLL", "0.01"),)),
)


def installed() -> list[Peer]:
    versions = facts.versions()
    return [peer for peer in PEERS if peer.module in versions]


def measure(server: Server, report: Report, *, rounds: int, events: int, factor: int) -> None:
    """events: of each round and peer, for its latency."""
    there = installed()
    if missing := {peer.module for peer in PEERS} - {peer.module for peer in there}:
        report.note(f"not installed: {', '.join(sorted(missing))} (pip install 'pgsig[bench]')")
    with ExitStack() as stack:
        own: dict[str, str] = {}
        for name, kind in (("an action each", "streaming"), ("a run each", "batch")):
            own[name] = stack.enter_context(server.database())
            with connect(own[name]) as connection:
                operator(connection, "o", ("START", {"signal": "load"}), kind=kind)
        theirs: dict[Peer, tuple[Ask, Ask]] = {}
        for peer in there:
            address = stack.enter_context(server.database(bare=True))
            ask, send = (stack.enter_context(peer.process(address)) for _ in range(2))
            ask("install")
            theirs[peer] = ask, send
        rates = defaultdict[str, list[float]](list)
        late = defaultdict[Peer, list[list[float]]](list)
        for turn in range(rounds):
            for name, address in own.items():
                jobs = OWN * factor
                with connect(address) as log:
                    drain.fill(log, jobs, "'s' || i % 100" if name == "an action each" else f"'{turn}-' || i")
                rates[f"pgsig, {name}"].append(drain.drain(address, jobs))
            for peer, (ask, _) in theirs.items():
                if not peer.jobs:
                    continue
                ask("fill", peer.jobs * factor)
                rates[peer.name].append(peer.jobs * factor / float(ask("drain", peer.jobs * factor)))
            for peer, (ask, send) in theirs.items():
                late[peer].append(_latencies(ask, send, events))
    for name, found in rates.items():
        report.figure(f"drain: {name}", found, "a second")
    for peer in there:
        for name in own if peer.jobs else ():
            report.ratio(
                f"drain, {name}: pgsig / {peer.name}",
                paired(rates[f"pgsig, {name}"], rates[peer.name]),
                peer.goal if name == "an action each" else "",
            )
        report.figure(f"enqueue to start, {peer.name}, p50", [percentile(times, 0.5) for times in late[peer]], "ms")
        report.pooled(f"enqueue to start, {peer.name}, p99", late[peer], 0.99, "ms")
    report.note(
        "an action of pgsig is a decision on record (here about a service that runs already); a job of a peer is claimed, does nothing and "
        "is finished. A run is what a runner will execute: to be claimed and reported, it costs pgsig more than is counted here."
    )


def _latencies(work: Ask, send: Ask, events: int) -> list[float]:
    """Milliseconds from before each enqueue until the job begins."""
    if work("work", events + FIRST) != "ready":
        raise SystemExit("a peer's worker does not begin")
    send("send", events + FIRST)
    return [float(seconds) * 1e3 for seconds in work()][FIRST:]
