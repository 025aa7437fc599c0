"""`python -m tests.bench.simulate`: what docs/scaling.md says of machines that were not measured, by simulation.

--from FILE   the costs: result.json of a run of the benchmark with the part `model`; defaults to docs/bench/model/result.json
--rate N      signals a second to be had of several clusters; defaults to 1,000,000        --seed N   of arrivals

One step of a worker is simulated as the engine makes it: its backend takes, the worker decides, the backend locks, the worker plans one
part while the backend writes the part before, and the commit is flushed together with whatever else was written by then. Emitters commit
one signal or many. Processors are shared by whoever wants them; a commit that notifies holds the server's one lock for that until it is
flushed. What goes in are processor times and bytes, for each step and each signal, and the time of a flush, all measured alone
(tests/bench/model.py). What comes out are rates. Clusters have nothing in common: several are one, several times.

Not in it: what many processors cost each other (locks in memory, caches, places in the log), full pages after a checkpoint, replicas,
runs after they were recorded, reading.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Self

from pgsig.engine import PART
from pgsig.settings import Settings
from tests.bench.queueing import Cores, Event, Lock, Log, Process, World

MEASURED = Path(__file__).resolve().parents[2] / "docs" / "bench" / "model" / "result.json"
BATCH = Settings().batch
LANES = 4  # of a cluster
FULL = 0.8  # of what there is may be in use: above that, waiting grows
TERM = 5e5  # µs that are looked at, after half as many that are not; of bulk, which comes seldom, more
BULK = 8
DEVICE, SERVER, WORKERS, CLIENTS, NOTIFY, LANE = FIRST = (
    "the log's device", "the server's cores", "the workers' cores", "the clients' cores", "the lock for NOTIFY", "a lane",
)  # fmt: skip


# ── what goes in ──


@dataclass(frozen=True)
class Line:
    """µs of processor, or bytes, of a step by the number of its signals: straight from one measured point to the next, and on."""

    points: tuple[tuple[int, float], ...]

    def of(self, signals: int) -> float:
        place = next((n for n, (size, _) in enumerate(self.points[1:-1], 1) if signals <= size), len(self.points) - 1)
        (few, least), (many, most) = self.points[place - 1 : place + 1]
        return max(0.0, least + (most - least) / (many - few) * (signals - few))

    def between(self, begin: int, end: int) -> float:
        """Of some of a step's signals; what is of the step itself, with the first."""
        return max(0.0, self.of(end) - (self.of(begin) if begin else 0.0))

    def less(self, of_each_step: float) -> Line:
        return Line(tuple((size, max(0.0, whole - of_each_step)) for size, whole in self.points))


@dataclass(frozen=True)
class Way:
    """What evaluating signals costs. The backend takes, locks and writes; the worker decides and plans. beside: µs a signal of the WAL
    writer and its like, and of what checkpoints and vacuums owe to it. notifies: the commit rings, for runs."""

    take: Line
    decide: Line
    lock: Line
    plan: Line
    write: Line
    wal: Line
    beside: float
    notifies: bool


@dataclass(frozen=True)
class Emit:
    """What one commit of an emitter costs: µs in the client and in its backend, without the flush. beside: as above, of the commit."""

    client: float
    server: float
    wal: float
    signals: int
    beside: float


@dataclass(frozen=True)
class Costs:
    """device, work, rate, wake: of a flush, see `Log`."""

    ways: Mapping[str, Way]
    emits: Mapping[str, Emit]
    device: float
    work: float
    rate: float
    wake: float = 0.0

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From JSON."""
        ways = {}
        for name, way in said["ways"].items():
            given: dict[str, Any] = {
                key: Line(tuple((size, whole) for size, whole in value["points"])) if isinstance(value, dict) else value
                for key, value in way.items()
            }
            ways[name] = Way(**given)
        emits = {name: Emit(**emit) for name, emit in said["emits"].items()}
        return cls(ways, emits, said["device"], said["work"], said["rate"], said["wake"])


@dataclass(frozen=True)
class Shape:
    """The processors of a cluster. Those of workers and of clients are on machines of their own; None: they share the server's."""

    server: int
    workers: int | None = None
    clients: int | None = None
    lanes: int = LANES
    batch: int = BATCH


# ── what happens ──


class Lane:
    """busy: µs in which somebody was at it, by how full the steps were: 1 of 1 is all that it can do."""

    def __init__(self) -> None:
        self.waiting, self.busy, self.came = 0, 0.0, Event()
        self._arrived: deque[tuple[float, int]] = deque()

    def put(self, signals: int, at: float) -> None:
        self.waiting += signals
        self._arrived.append((at, signals))
        self.came.fire()

    def take(self, signals: int, now: float) -> Iterator[tuple[float, int]]:
        """How long they waited, and how many did."""
        self.waiting -= signals
        while signals:
            at, there = self._arrived.popleft()
            taken = min(there, signals)
            if there > taken:
                self._arrived.appendleft((at, there - taken))
            signals -= taken
            yield now - at, taken


class Cluster:
    """A server, its lanes, and one worker for each lane.

    asked: signals that emitters began to emit. ringing: µs in which the lock for NOTIFY was held, as `Lane.busy`. waits: µs from commit to
    commit, of so many signals.
    """

    def __init__(self, world: World, costs: Costs, shape: Shape) -> None:
        self.world, self.costs, self.shape = world, costs, shape
        self.server = Cores(world, shape.server)
        self.worker_host = self.server if shape.workers is None else Cores(world, shape.workers)
        self.client_host = self.server if shape.clients is None else Cores(world, shape.clients)
        self.log = Log(world, self.server, device=costs.device, work=costs.work, rate=costs.rate, wake=costs.wake)
        self.lanes = [Lane() for _ in range(shape.lanes)]
        self.asked = self.commits = self.done = 0
        self.ringing = self._owed = 0.0
        self.waits: list[tuple[float, int]] = []
        self._bell = Lock()

    def beside(self) -> Process:
        """The WAL writer, the checkpointer, autovacuum: they have what was owed to them, each ms."""
        while True:
            yield self.world.sleep(1000.0)
            owed, self._owed = self._owed, 0.0
            yield self.server.work(owed)

    def emit(self, kind: Emit, lane: int) -> Process:
        """One commit."""
        self.asked += kind.signals
        yield self.client_host.work(kind.client)
        yield self.server.work(kind.server)
        self.log.write(kind.wal)
        yield from self.log.flush()
        self._owed += kind.beside
        self.commits += 1
        self.lanes[lane].put(kind.signals, self.world.now)

    def client(self, kind: Emit, lane: int = 0) -> Process:
        """One commit after the other."""
        while True:
            yield from self.emit(kind, lane)

    def arrivals(self, kind: Emit, rate: float, shares: Sequence[float], random: Random) -> Process:
        """So many signals a second, in commits that do not wait for each other. shares: of the lanes."""
        while True:
            yield self.world.sleep(random.expovariate(rate / kind.signals) * 1e6)
            self.world.start(self.emit(kind, random.choices(range(len(shares)), shares)[0]))

    def worker(self, way: Way, lane: Lane) -> Process:
        """Evaluates one lane. Which of the workers is at which lane changes nothing as long as there is one for each."""
        while True:
            while not lane.waiting:
                yield lane.came.wait
            begin, signals = self.world.now, min(lane.waiting, self.shape.batch)
            yield from self.step(way, signals)
            lane.busy += (self.world.now - begin) * signals / self.shape.batch
            self.done += signals
            self.waits += lane.take(signals, self.world.now)

    def step(self, way: Way, signals: int) -> Process:
        """One transaction of a worker."""
        yield self.server.work(way.take.of(signals))
        yield self.worker_host.work(way.decide.of(signals))
        if any(whole for _, whole in way.write.points):
            yield self.server.work(way.lock.of(signals))
            yield from self.record(way, signals)
        begin = inf
        if way.notifies:
            yield self._bell.acquire
            begin = self.world.now
        self.log.write(way.wal.of(signals))
        yield from self.log.flush()
        if way.notifies:
            self.ringing += (self.world.now - begin) * signals / self.shape.batch
            self._bell.release()
        self._owed += way.beside * signals

    def record(self, way: Way, signals: int) -> Process:
        """The backend writes what has come while the worker plans the next part."""
        backend, written, left = Lock(), Event(), ceil(signals / PART)

        def write(micros: float) -> Process:
            nonlocal left
            yield backend.acquire
            yield self.server.work(micros)
            backend.release()
            left -= 1
            written.fire()

        for begin in range(0, signals, PART):
            end = min(begin + PART, signals)
            yield self.worker_host.work(way.plan.between(begin, end))
            self.world.start(write(way.write.between(begin, end)))
        while left:
            yield written.wait


# ── what comes out ──


@dataclass(frozen=True)
class Emitted:
    """commits: a second. shared: commits a flush."""

    commits: float
    shared: float


def emitters(costs: Costs, kind: str, clients: int, cores: int, *, term: float = TERM) -> Emitted:
    """Clients that commit one after the other, on the server's machine, and nobody who evaluates."""
    world = World()
    cluster = Cluster(world, costs, Shape(cores))
    world.start(cluster.beside())
    for _ in range(clients):
        world.start(cluster.client(costs.emits[kind]))
    world.run(term / 2)
    before, flushes = cluster.commits, cluster.log.flushes
    world.run(term * 1.5)
    commits = cluster.commits - before
    return Emitted(commits / term * 1e6, commits / max(1, cluster.log.flushes - flushes))


def drain(costs: Costs, way: str, batch: int, cores: int, *, backlog: int, lanes: int = 1) -> float:
    """Signals a second of a backlog in each lane, with a worker each, all on one machine."""
    world = World()
    cluster = Cluster(world, costs, Shape(cores, lanes=lanes, batch=batch))
    for lane in cluster.lanes:
        lane.put(backlog, 0.0)
        world.start(cluster.worker(costs.ways[way], lane))
    world.run()
    return cluster.done / world.now * 1e6


@dataclass(frozen=True)
class Use:
    """Of one cluster at one load. shares: of what there is of each thing; 1 is all of it. cores: at work, of server, workers, clients.
    wal: bytes a second. flushes: a second. p50, p99: µs from the commit of a signal to that of what it led to."""

    done: float
    keeps_up: bool
    shares: dict[str, float]
    cores: tuple[float, float, float]
    wal: float
    flushes: float
    p50: float
    p99: float

    @property
    def most(self) -> str:
        """What is at its end; of several the one that the others wait for. Where nothing is, what is nearest to it."""
        for name in FIRST:
            if self.shares.get(name, 0.0) > 0.9:
                return name
        return max(self.shares, key=lambda name: self.shares[name])


def load(
    costs: Costs, way: str, kind: str, rate: float, shape: Shape, *, seed: int = 1, shares: Sequence[float] = (), term: float = 0.0
) -> Use:  # fmt: skip
    """Emit so many signals a second and evaluate them. shares: of the lanes, by default the same for each."""
    term = term or (TERM if costs.emits[kind].signals == 1 else BULK * TERM)
    world = World()
    cluster = Cluster(world, costs, shape)
    world.start(cluster.beside())
    for lane in cluster.lanes:
        world.start(cluster.worker(costs.ways[way], lane))
    world.start(cluster.arrivals(costs.emits[kind], rate, shares or [1.0] * shape.lanes, Random(seed)))
    world.run(term / 2)
    before = _counters(cluster)
    cluster.waits.clear()
    world.run(term * 1.5)
    asked, done, server, workers, clients, ringing, wal, flushes, *lanes = (
        after - first for after, first in zip(_counters(cluster), before, strict=True)
    )
    used = {LANE: max(lanes) / term, SERVER: server / term / shape.server, DEVICE: wal / term / costs.rate}
    for name, count, busy in ((WORKERS, shape.workers, workers), (CLIENTS, shape.clients, clients)):
        if count is not None:
            used[name] = busy / term / count
    if costs.ways[way].notifies:
        used[NOTIFY] = ringing / term
    return Use(
        done / term * 1e6, asked - done <= asked * 0.02 + shape.lanes * max(shape.batch, 5 * costs.emits[kind].signals), used,
        (server / term, 0.0 if shape.workers is None else workers / term, 0.0 if shape.clients is None else clients / term),
        wal / term * 1e6, flushes / term * 1e6, *_percentiles(cluster.waits),
    )  # fmt: skip


def _counters(cluster: Cluster) -> list[float]:
    hosts = cluster.server, cluster.worker_host, cluster.client_host
    return [
        cluster.asked, cluster.done, *(host.busy for host in hosts), cluster.ringing, cluster.log.written, cluster.log.flushes,
        *(lane.busy for lane in cluster.lanes),
    ]  # fmt: skip


def _percentiles(waits: list[tuple[float, int]]) -> tuple[float, float]:
    """Half, and 99 of 100."""
    waits.sort()
    total, seen = sum(signals for _, signals in waits), 0
    found: list[float] = []
    for wait, signals in waits:
        seen += signals
        while len(found) < 2 and seen >= (0.5, 0.99)[len(found)] * total:
            found.append(wait)
    return (found[0], found[1]) if total else (inf, inf)


@dataclass(frozen=True)
class Need:
    """What a rate needs. lanes: at work all the time. The rest are sums over clusters; of processors no more than FULL is used."""

    clusters: int
    lanes: float
    server: int
    workers: int
    clients: int
    wal: float
    flushes: float
    p99: float
    keeps_up: bool


def need(costs: Costs, way: str, kind: str, rate: float, *, seed: int = 1) -> Need:
    """Clusters with as little as is enough."""
    plenty = 256
    lane = drain(costs, way, BATCH, plenty, backlog=20 * BATCH)
    clusters = ceil(rate / (lane * LANES * FULL))
    use = load(costs, way, kind, rate / clusters, Shape(plenty, plenty, plenty), seed=seed)
    shape = Shape(*(max(1, ceil(busy / FULL)) for busy in use.cores))
    use = load(costs, way, kind, rate / clusters, shape, seed=seed)
    assert shape.workers is not None
    assert shape.clients is not None
    return Need(
        clusters, rate / lane, clusters * shape.server, clusters * shape.workers, clusters * shape.clients,
        clusters * use.wal, clusters * use.flushes, use.p99, use.keeps_up,
    )  # fmt: skip


def fullest(namespaces: int, *, lanes: int = LANES, tries: int = 2000, seed: int = 1) -> tuple[float, float]:
    """The share of the fullest lane, where so many namespaces of the same load fall on lanes by the hash of their names: half of the
    time no more than the first, 95 of 100 times no more than the second."""
    random, found = Random(seed), []
    for _ in range(tries):
        held = [0] * lanes
        for _ in range(namespaces):
            held[random.randrange(lanes)] += 1
        found.append(max(held) / namespaces)
    found.sort()
    return found[tries // 2], found[tries * 95 // 100]


# ── the command ──

ALONE, SOME, PYTHON, COPY, EMIT_MANY = NAMES = (
    "emit, a commit each", "emit, a commit each, eight clients", "emit, a commit each, from Python", "COPY, 1,000 a commit",
    "emit_many, 1,000 a commit",
)  # fmt: skip
NOBODY, ACTION, RUN = WAYS = "no rule interested", "an action each", "a run each"
LOADS = ((ACTION, COPY), (ACTION, SOME), (RUN, COPY))
NEEDS = ((NOBODY, COPY), (ACTION, COPY), (ACTION, EMIT_MANY), (ACTION, SOME), (RUN, COPY))
RATES = (1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 120_000, 160_000, 240_000, 320_000)
HERE, LARGE = Shape(2), Shape(16, 8, 16)
PLACES = (
    (f"this machine, {HERE.server} cores for all", HERE),
    (f"a server of {LARGE.server} cores, {LARGE.workers} for workers, {LARGE.clients} for clients", LARGE),
)
COSTS = (
    "", "WAL, bytes", "client or worker, µs", "backend, µs", "others of the server, µs", "checkpointer and autovacuum later, µs",
    "flushes a commit",
)  # fmt: skip
RISING = (
    "signals/s", "a lane", "server's cores", "workers'", "clients'", "log's device", "NOTIFY", "WAL, MB/s", "flushes/s", "p50, ms",
    "p99, ms", "",
)  # fmt: skip
NEEDED = (
    "", "clusters", "lanes at work", "cores: servers", "workers", "clients", "WAL, MB/s", "flushes/s", "p99 commit to commit, ms",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.bench.simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="file", type=Path, default=MEASURED)
    parser.add_argument("--rate", type=float, default=1e6)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for line in said(json.loads(given.file.read_text(encoding="utf-8")), given.rate, given.seed):
        print(line, flush=True)
    return 0


def said(report: Mapping[str, Any], rate: float, seed: int) -> Iterator[str]:
    """What is printed: tables as docs/scaling.md has them."""
    yield "WHAT A SIGNAL COSTS: median (least … most of the rounds)"
    yield from costs_table(report["figures"])
    yield from ("", "MEASURED, AND SIMULATED FROM OTHER MEASUREMENTS OF THE SAME ROUND")
    yield from compared(report["scaling"])
    rounds = by_speed(report["scaling"])
    usual = rounds[len(rounds) // 2]
    for title, shape in PLACES:
        for way, kind in LOADS:
            yield from ("", f"{title.upper()}; {way}, emitted by {kind}. Shares of what there is")
            yield from _table(list(_rising(usual, way, kind, shape, seed)), RISING)
    yield from ("", f"NAMESPACES OF THE SAME LOAD ON {LANES} LANES, BY THE HASH OF THEIR NAMES")
    yield from spread(seed)
    yield from (
        "",
        f"{rate:,.0f} SIGNALS A SECOND, none of the cores used above {FULL:.0%}: by the costs of the middle (least … most) round",
    )
    yield from _table([needed(rounds, way, kind, rate, seed) for way, kind in NEEDS], NEEDED)


def by_speed(scaling: Mapping[str, Any]) -> list[Costs]:
    """The rounds' costs, by what they come to."""
    costs = [Costs.of(said) for said in scaling["costs"]]
    return sorted(costs, key=lambda one: drain(one, ACTION, BATCH, 2, backlog=20 * BATCH))


def costs_table(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    by_name = {figure["name"]: figure["rounds"] or [figure["value"]] for figure in figures}

    def cell(name: str) -> str:
        return _range(by_name[name]) if name in by_name else ""

    rows = []
    for name in (*NAMES, *WAYS):
        who = "worker" if name in WAYS else "client"
        later = f"{name if name in WAYS else 'emitted'}: checkpointer and autovacuum, later"
        rows.append([
            name, cell(f"{name}: WAL"), cell(f"{name}: {who}"), cell(f"{name}: server"),
            cell(f"{name}: WAL writer and others of the server"), cell(later), cell(f"{name}: flushes a commit"),
        ])  # fmt: skip
    yield from _table(rows, COSTS)
    yield ""
    flush, work = cell("one flush"), cell("one flush: of it processor")
    wake, rate = cell("to wait for another's flush"), cell("the log takes")
    yield f"One flush: {flush} µs, of it processor {work}. To wait for another's: processor {wake}. The log takes {rate} MB/s."


def compared(scaling: Mapping[str, Any]) -> Iterator[str]:
    """The measured points, as the run's own simulation had them."""
    rows = []
    for name, pairs in scaling["points"].items():
        sides = [pair[1] for pair in pairs], [pair[0] for pair in pairs], [a / b for a, b in pairs]
        rows.append([name, *(_range(side) for side in sides)])
    yield from _table(rows, ("", "measured", "simulated", "simulated / measured"))


def spread(seed: int) -> Iterator[str]:
    rows = [[str(many), *(f"{share:.0%}" for share in fullest(many, seed=seed))] for many in (4, 8, 16, 32, 64, 256)]
    yield from _table(
        rows, ("namespaces", "share of the fullest lane, half of the time at most", "19 times of 20 at most")
    )


def needed(rounds: Sequence[Costs], way: str, kind: str, rate: float, seed: int) -> list[str]:
    found = [need(one, way, kind, rate, seed=seed) for one in (rounds[0], rounds[len(rounds) // 2], rounds[-1])]
    numbers = (
        [one.clusters for one in found], [one.lanes for one in found], [one.server for one in found], [one.workers for one in found],
        [one.clients for one in found], [one.wal / 1e6 for one in found], [one.flushes for one in found], [one.p99 / 1e3 for one in found],
    )  # fmt: skip
    late = "" if all(one.keeps_up for one in found) else ", does not keep up"
    return [f"{way}; {kind}{late}", *(_range(values) for values in numbers)]


def _rising(costs: Costs, way: str, kind: str, shape: Shape, seed: int) -> Iterator[list[str]]:
    """Until it does not keep up."""
    for rate in RATES:
        use = load(costs, way, kind, rate, shape, seed=seed)
        names = LANE, SERVER, WORKERS, CLIENTS, DEVICE, NOTIFY
        yield [
            f"{rate:,}", *(f"{use.shares[name]:.2f}" if name in use.shares else "" for name in names), f"{use.wal / 1e6:.1f}",
            f"{use.flushes:,.0f}", f"{use.p50 / 1e3:.1f}", f"{use.p99 / 1e3:.1f}",
            "" if use.keeps_up else f"does not keep up: {use.done:,.0f}; first: {use.most}",
        ]  # fmt: skip
        if not use.keeps_up:
            return


def _range(values: Iterable[float]) -> str:
    ordered = sorted(values)

    def short(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.2f}"

    middle, least, most = short(median(ordered)), short(ordered[0]), short(ordered[-1])
    return middle if least == most else f"{middle} ({least} … {most})"


def _table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |".replace("|  |", "| |")


if __name__ == "__main__":
    sys.exit(main())
