"""THE MODEL of docs/scaling.md: what a signal costs in bytes of WAL, flushes and processor time, and whether rates follow from that.

Costs are measured alone: emitting by one client and by eight, with a flush and without; the engine of one worker with steps of 5, of 50
and of 1,000 signals, each phase of a step by itself; COPY and emit_many; what the server's other processes do meanwhile, and owe. From
these the simulation (simulate.py) says how fast steps of 250 are, two workers at two lanes, 16 clients and 64; and then the clock says. No
rate goes into the costs. A prediction and what it is compared with are of one round, and so is their ratio.

Whoever else is at work on the machine is in the clock and not in the costs. So what was disturbed is measured again, and of the rounds
the quieter half counts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar
from unittest.mock import patch

from psycopg.conninfo import conninfo_to_dict

from pgsig.client import Client
from pgsig.engine import Engine, Step
from pgsig.store import signals
from pgsig.store.definitions import apply
from tests.bench import drain, emit
from tests.bench.report import Report
from tests.bench.server import Connection, Server, connect, program
from tests.bench.simulate import ACTION, ALONE, COPY, EMIT_MANY, NOBODY, PYTHON, RUN, SOME, Costs, Emit, Line, Way
from tests.bench.simulate import drain as simulated_drain
from tests.bench.simulate import emitters as simulated_emitters
from tests.support import wait_for
from tests.support_core import one, operator

CASES = {NOBODY: "batch", ACTION: "streaming", RUN: "batch"}
LEAST, FEW, BETWEEN, MANY = 5, 50, 250, 1000  # signals of a step; one of them is predicted
CLIENTS, EIGHT = (16, 64), 8  # are predicted; are measured, as a cost
PORTION = 1000  # signals of a commit in bulk
QUIET, LOOK = 0.25, 0.3  # cores: who has no more than that, for so many seconds, does not disturb
VACUUM = "VACUUM ANALYZE pgsig_private.action, pgsig_private.run, pgsig_private.instance, pgsig_private.outcome, pgsig_private.cursor"
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
)
OFF = "-c synchronous_commit=off"
LANE = """
import sys, time, psycopg
from pgsig.engine import Engine
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    engine = Engine(connection)
    while engine.step(int(sys.argv[2])).taken:
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.process_time()
    while engine.step(int(sys.argv[2])).taken:
        pass
    print(time.process_time() - begin, flush=True)
"""
T = TypeVar("T")
Figures = dict[str, tuple[float, str]]


def measure(server: Server, report: Report, *, rounds: int, backlog: int, patience: float) -> None:
    """backlog: of a drain with large steps; the other counts follow from it. patience: see `Calm`."""
    calm = Calm(patience)
    with ExitStack() as stack:
        emitting = stack.enter_context(_Emitting.on(server, calm))
        draining = [stack.enter_context(_Draining.on(server, calm, name, kind)) for name, kind in CASES.items()]
        found = [_round(emitting, draining, calm, backlog) for _ in range(rounds)]
    _tell(report, found)


class Calm:
    """Measures while nobody else has much of the machine, and again if somebody had: the try that was least disturbed counts, whatever it
    came to.

    patience: seconds that it may take for that in all. others: cores that somebody else had, of what was measured since it was emptied.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.others: list[float] = []

    def __call__(self, piece: Callable[[], tuple[T, float]]) -> T:
        """piece: measures, and says how many cores others had meanwhile."""
        found: list[tuple[float, int, T]] = []
        while not found or (self.patience > 0 and found[-1][0] > QUIET):
            self._wait()
            begin = time.monotonic()
            value, others = piece()
            found.append((others, len(found), value))
            if others > QUIET:
                self.patience -= time.monotonic() - begin
        least = min(found, key=lambda tried: tried[:2])
        self.others.append(least[0])
        return least[2]

    def _wait(self) -> None:
        while self.patience > 0:
            begin, clock = _machine(), time.monotonic()
            threading.Event().wait(LOOK)
            took = time.monotonic() - clock
            if (_machine() - begin) / took <= QUIET:
                return
            self.patience -= took


# ── a round ──


@dataclass(frozen=True)
class Round:
    """costs: measured alone. figures: by name, with unit. points: what was predicted and what was measured, by name. others: cores that
    somebody else had, at most and on average."""

    costs: Costs
    figures: Figures
    points: dict[str, tuple[float, float]]
    others: tuple[float, float]


def _round(emitting: _Emitting, draining: list[_Draining], calm: Calm, backlog: int) -> Round:
    figures: Figures = {}
    calm.others = []
    emits, flushes = emitting.alone(backlog, figures)
    ways = {case.name: case.alone(backlog, flushes["work"], figures) for case in draining}
    costs, cores = Costs(ways, emits, **flushes), os.cpu_count() or 1
    points: dict[str, tuple[float, float]] = {}
    for case in draining:
        for size in (BETWEEN, MANY):
            predicted = simulated_drain(costs, case.name, size, cores, backlog=backlog)
            points[f"{case.name}, steps of {size:,}"] = predicted, case.rates[size]
        if case.two is not None:
            predicted = simulated_drain(costs, case.name, MANY, cores, backlog=backlog, lanes=2)
            measured, spent = case.two_lanes(backlog)
            points[f"{case.name}, two lanes and workers"] = predicted, measured
            alone = figures[f"{case.name}: worker"][0] + figures[f"{case.name}: server"][0]
            figures[f"{case.name}: processor of a signal, two lanes / one"] = spent / alone, "×"
    for clients in CLIENTS:
        simulated = simulated_emitters(costs, SOME, clients, cores)
        commits, shared = emitting.together(clients)
        points[f"{clients} clients, commits a second"] = simulated.commits, commits
        points[f"{clients} clients, commits a flush"] = simulated.shared, shared
    return Round(costs, figures, points, (max(calm.others), fmean(calm.others)))


def _tell(report: Report, rounds: list[Round]) -> None:
    quiet = sorted(rounds, key=lambda found: found.others[1])[: (len(rounds) + 1) // 2]
    for name, (_, unit) in rounds[0].figures.items():
        report.figure(name, [found.figures[name][0] for found in quiet], unit)
    for name in rounds[0].points:
        unit = "commits" if "flush" in name else "a second"
        predicted, measured = zip(*(found.points[name] for found in quiet), strict=True)
        report.figure(f"{name}: predicted", predicted, unit)
        report.figure(f"{name}: measured", measured, unit)
        report.ratio(f"predicted / measured: {name}", [a / b for a, b in zip(predicted, measured, strict=True)])
    report.figure("others on the machine, while it was measured", [found.others[1] for found in quiet], "cores")
    report.figure("others on the machine, at the most disturbed point", [found.others[0] for found in quiet], "cores")
    report.note(
        f"the quieter {len(quiet)} of {len(rounds)} rounds. No rate went into what is predicted. Whoever else was at work is in what is "
        "measured, and not in what is predicted."
    )
    report.scaling = {
        "cores": os.cpu_count(),
        "costs": [asdict(found.costs) for found in quiet],
        "points": {name: [found.points[name] for found in quiet] for name in rounds[0].points},
    }


# ── emitters ──


class _Emitting:
    def __init__(self, calm: Calm, address: str, log: Connection, folder: Path) -> None:
        self.calm, self.address, self.log, self.script = calm, address, log, folder / "emit"
        self.script.write_text(emit.SCRIPTS["emit"], encoding="utf-8")

    @classmethod
    @contextmanager
    def on(cls, server: Server, calm: Calm) -> Iterator[_Emitting]:
        with _database(server) as (address, log), tempfile.TemporaryDirectory() as folder:
            yield cls(calm, address, log, Path(folder))

    def alone(self, backlog: int, figures: Figures) -> tuple[dict[str, Emit], dict[str, float]]:
        """The costs of emitters; device, work, rate and wake of `Costs`."""
        commits = backlog // 8
        safe, asynchronous = self._each(commits), self._each(commits, options=OFF)
        work = min(max(10.0, safe.server - asynchronous.server), safe.flush)
        # What eight need more than without flushes, and not for the flushes that they make: they wait for each other's.
        eight, quick = self._each(commits, EIGHT), self._each(commits, EIGHT, OFF)
        more = eight.client + eight.server - quick.client - quick.server
        wake = max(0.0, more - work * eight.flushes) / (1 - eight.flushes) if eight.flushes < 1 else 0.0
        found = {
            ALONE: (safe, 1), SOME: (eight, 1), PYTHON: (self._many(commits // 4, 1, _emit), 1),
            COPY: (self._many(backlog, PORTION, _copy), PORTION), EMIT_MANY: (self._many(backlog, PORTION, _emit_many), PORTION),
        }  # fmt: skip
        owed, emits = self._owed(backlog), {}
        for name, (spent, size) in found.items():
            server, beside = spent.server * size - work, (spent.beside + owed) * size
            emits[name] = Emit(spent.client * size, server, spent.wal * size, size, beside)
            spent.tell(name, "client", size, figures)
        emits[SOME] = replace(emits[SOME], client=quick.client, server=quick.server)
        rate = self._rate()
        figures["emitted: checkpointer and autovacuum, later"] = owed, "µs of processor a signal"
        figures["one flush"] = safe.flush, "µs"
        figures["one flush: of it processor"] = work, "µs"
        figures["to wait for another's flush"] = wake, "µs of processor"
        figures["the log takes"] = rate, "MB/s"
        return emits, {"device": max(1.0, safe.flush - work), "work": work, "rate": rate, "wake": wake}

    def _each(self, commits: int, clients: int = 1, options: str = "") -> _Spent:
        """A commit of pgbench; what its start costs is taken away."""

        def spend(number: int) -> _Spent:
            where = conninfo_to_dict(self.address)
            names = {f"PG{name.upper()}": str(where.get(of, "")) for name, of in emit.ENVIRONMENT.items()}
            meter = _Meter(self.log)
            subprocess.run(
                [program("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-t", str(number), "-f", str(self.script)],
                env={**os.environ, **names, "PGOPTIONS": options}, capture_output=True, check=True,
            )  # fmt: skip
            wait_for(lambda: one(self.log, SESSIONS) == 1)  # a backend tells its numbers when it ends
            return meter.spent(children=True)

        def piece() -> tuple[_Spent, float]:
            short, long = spend(emit.FIRST), spend(emit.FIRST + commits // clients)
            return (long - short) / (commits // clients * clients), long.others

        return self.calm(piece)

    def _many(self, total: int, size: int, send: Callable[[Connection, list[dict[str, Any]]], object]) -> _Spent:
        """A signal of commits of so many, from this process."""
        rows = [{"key": "model.trained", "subject": f"s{i}", "value": {"auc": 0.9}} for i in range(size)]
        with connect(self.address) as connection:
            for _ in range(emit.FIRST if size == 1 else 1):
                send(connection, rows)

            def piece() -> tuple[_Spent, float]:
                meter = _Meter(self.log)
                for _ in range(total // size):
                    send(connection, rows)
                connection.execute("SELECT pg_stat_force_next_flush()")
                spent = meter.spent()
                return spent / (total // size * size), spent.others

            return self.calm(piece)

    def _owed(self, backlog: int) -> float:
        vacuum = "VACUUM ANALYZE pgsig_private.signal"
        _owed(self.log, vacuum)
        self.log.execute(f"INSERT INTO pgsig.signals (key) SELECT 'load' FROM generate_series(1, {backlog})".encode())
        return _owed(self.log, vacuum) / backlog * 1e6

    def _rate(self) -> float:
        before = _flushes(self.log)
        for _ in range(2):
            self.log.execute("SELECT pg_logical_emit_message(true, 'bench', repeat('x', 8388608))")
        self.log.execute("SELECT pg_stat_force_next_flush()")
        return 2 * 8.388608 / ((_flushes(self.log)[2] - before[2]) / 1e6)

    def together(self, clients: int) -> tuple[float, float]:
        """Commits a second, and commits a flush."""

        def piece() -> tuple[tuple[float, float], float]:
            before = one(self.log, "SELECT count(*) FROM pgsig.signals")
            meter = _Meter(self.log)
            rate = emit.run(self.address, self.script, clients, 1)
            wait_for(lambda: one(self.log, SESSIONS) == 1)
            spent = meter.spent(children=True)
            commits = one(self.log, "SELECT count(*) FROM pgsig.signals") - before
            return (rate, commits / max(1.0, spent.flushes)), spent.others

        return self.calm(piece)


def _emit(connection: Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute("SELECT pgsig.emit(%s, '{\"auc\": 0.9}', %s)", [rows[0]["key"], rows[0]["subject"]])


def _copy(connection: Connection, rows: list[dict[str, Any]]) -> None:
    with connection.cursor().copy("COPY pgsig.signals (key, subject, value) FROM STDIN") as copy:
        for row in rows:
            copy.write_row((row["key"], row["subject"], '{"auc": 0.9}'))


def _emit_many(connection: Connection, rows: list[dict[str, Any]]) -> None:
    with Client("postgresql:///") as client, connection.transaction():  # it is given a connection, and makes none
        client.emit_many(rows, connection=connection)


# ── workers ──


class _Draining:
    def __init__(self, calm: Calm, name: str, kind: str, address: str, log: Connection) -> None:
        self.calm, self.name, self.kind, self.address, self.log = calm, name, kind, address, log
        self.rates: dict[int, float] = {}
        self.two = None if name == NOBODY else _two_namespaces(log, kind)
        self._turns, self._drained = count(), 0
        operator(log, "o", ("START", {"signal": "other.key" if self.two is None else "load"}), kind=kind)

    @classmethod
    @contextmanager
    def on(cls, server: Server, calm: Calm, name: str, kind: str) -> Iterator[_Draining]:
        with _database(server) as (address, log):
            yield cls(calm, name, kind, address, log)

    def alone(self, backlog: int, work: float, figures: Figures) -> Way:
        """What a step costs. work: µs of processor of its flush, which is not among them. Sets the rates of all sizes of steps."""
        steps: dict[int, tuple[_Phases, _Spent]] = {}
        self._drained = 0
        for size in (LEAST, FEW, BETWEEN, MANY):
            steps[size] = self._drain(max(size * 8, backlog * size // MANY), size)
            self.rates[size] = 1e6 / steps[size][1].clock
        owed = _owed(self.log, VACUUM) / self._drained * 1e6
        many, points = steps[MANY], (LEAST, FEW, MANY)
        lines = {
            phase.name: Line(tuple((size, getattr(steps[size][0], phase.name)) for size in points))
            for phase in fields(_Phases)
        }
        last = "write" if self.two is not None else "take"
        lines[last] = lines[last].less(work)
        wal = Line(tuple((size, steps[size][1].wal * size) for size in points))
        many[1].tell(self.name, "worker", MANY, figures)
        figures[f"{self.name}: checkpointer and autovacuum, later"] = owed, "µs of processor a signal"
        for size in points:
            for who, parts in (("worker", ("decide", "plan")), ("server", ("take", "lock", "write"))):
                spent = sum(getattr(steps[size][0], part) for part in parts)
                figures[f"{self.name}: a step of {size:,}, {who}"] = spent, "µs of processor"
        return Way(**lines, wal=wal, beside=many[1].beside + owed, notifies=self.name == RUN)

    def _drain(self, backlog: int, size: int) -> tuple[_Phases, _Spent]:
        def piece() -> tuple[tuple[_Phases, _Spent], float]:
            with connect(self.address) as connection:
                engine, steps, done = _Phased(connection), 0, 0
                # What a session compiles and plans once, and pages that are written whole after a checkpoint, are not of a step.
                drain.fill(self.log, MANY, self._subject())
                while engine.step(size).taken:
                    pass
                drain.fill(self.log, backlog, self._subject())
                meter = _Meter(self.log)
                with engine.watched():
                    while (step := engine.step(size)).taken:
                        steps, done = steps + 1, done + step.taken
                clock = time.perf_counter() - meter.begin.clock
                connection.execute("SELECT pg_stat_force_next_flush()")
                assert done == backlog
                self._drained += done
                spent = meter.spent(clock=clock)
                return (engine.phases(steps), spent / done), spent.others

        return self.calm(piece)

    def _subject(self) -> str:
        return "'s' || i % 100" if self.kind == "streaming" else f"'{next(self._turns)}-' || i"

    def two_lanes(self, backlog: int) -> tuple[float, float]:
        """Signals a second of two workers, each at a lane; and µs of processor of a signal."""

        def piece() -> tuple[tuple[float, float], float]:
            with ExitStack() as stack:
                workers = []
                for _ in range(2):
                    self._fill_two(FEW)
                    workers.append(stack.enter_context(self._worker()))
                    assert _line(workers[-1]) == "ready"
                self._fill_two(backlog)
                meter = _Meter(self.log)
                for worker in workers:
                    assert worker.stdin is not None
                    worker.stdin.write("\n")
                    worker.stdin.flush()
                busy = sum(float(_line(worker)) for worker in workers)
                clock = time.perf_counter() - meter.begin.clock
                spent = meter.spent(clock=clock, client=busy)
            assert one(self.log, "SELECT sum(waiting) FROM pgsig.lag") == 0
            return (2 * backlog / clock, (spent.client + spent.server) / (2 * backlog)), spent.others

        return self.calm(piece)

    def _fill_two(self, backlog: int) -> None:
        assert self.two is not None
        subject = self._subject()
        for namespace in self.two:
            self.log.execute(
                f"INSERT INTO pgsig.signals (namespace, key, subject) SELECT '{namespace}', 'load', {subject}"
                f" FROM generate_series(1, {backlog}) i".encode()
            )
        self.log.execute("VACUUM ANALYZE pgsig_private.signal")

    def _worker(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", LANE, self.address, str(MANY)]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def _two_namespaces(log: Connection, kind: str) -> list[str]:
    """Of two lanes that `default` is not in, with the same operator each."""
    found = log.execute("""
        SELECT min(n) FROM (SELECT 'n' || i AS n FROM generate_series(1, 50) i) x
         WHERE hashtextextended(n, 0) & 3 <> hashtextextended('default', 0) & 3 GROUP BY hashtextextended(n, 0) & 3 ORDER BY 1 LIMIT 2
    """).fetchall()
    for (name,) in found:
        body = {kind: {"command": ["true"]}, "start": {"signal": "load"}}
        apply(log, {"workflow": "w", "namespace": name, "operators": {"o": body}})
    return [name for (name,) in found]


@dataclass
class _Phases:
    """µs of processor of a step. The backend's: take, lock, write; the worker's: decide, plan."""

    take: float = 0.0
    decide: float = 0.0
    lock: float = 0.0
    plan: float = 0.0
    write: float = 0.0


class _Phased(Engine):
    """An engine that says which part of a step took which processor time. A backend's is read when it has been idle for a while: its clock
    is behind while it runs."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._pid = connection.info.backend_pid
        self._whole, self._now, self._recording = _Phases(), _Phases(), False
        self._worker = self._server = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        lock, record = signals.lock, signals.record

        def locked(*given: Any) -> signals.Locked:
            self._mark(server="take")
            found = lock(*given)
            self._mark(worker="decide")
            return found

        def recorded(*given: Any) -> None:
            if not self._recording:
                self._recording = True
                self._mark(server="lock")
            record(*given)

        with patch.object(signals, "lock", locked), patch.object(signals, "record", recorded):
            self._mark(worker="decide", server="take")
            self._whole, self._now = _Phases(), _Phases()
            yield

    def step(self, *given: Any, **named: Any) -> Step:
        self._recording = False
        step = super().step(*given, **named)
        self._mark(worker="plan" if self._recording else "decide", server="write" if self._recording else "take")
        if step.taken:
            for phase in fields(_Phases):
                setattr(self._whole, phase.name, getattr(self._whole, phase.name) + getattr(self._now, phase.name))
        self._now = _Phases()
        return step

    def phases(self, steps: int) -> _Phases:
        """Of a step."""
        return _Phases(*(getattr(self._whole, phase.name) / steps * 1e6 for phase in fields(_Phases)))

    def _mark(self, *, worker: str = "", server: str = "") -> None:
        if worker:
            now = time.process_time()
            setattr(self._now, worker, getattr(self._now, worker) + now - self._worker)
            self._worker = now
        if server:
            now = busy(self._pid)
            setattr(self._now, server, getattr(self._now, server) + now - self._server)
            self._server = now


# ── clocks ──


@dataclass(frozen=True)
class _Spent:
    """µs and bytes: of a whole, or of a signal. client: of this process, or of its children. server: of the backends. beside: of the
    server's other processes. flush: of one. others: cores that none of these had."""

    clock: float
    client: float
    server: float
    beside: float
    wal: float
    flushes: float
    flush: float
    others: float

    def __sub__(self, other: _Spent) -> _Spent:
        less = {part.name: getattr(self, part.name) - getattr(other, part.name) for part in fields(self)}
        return _Spent(**{**less, "flush": self.flush, "others": self.others})

    def __truediv__(self, number: float) -> _Spent:
        less = {part.name: getattr(self, part.name) / number for part in fields(self)}
        return _Spent(**{**less, "flush": self.flush, "others": self.others})

    def tell(self, name: str, who: str, size: int, figures: Figures) -> None:
        """Of a signal. size: of a commit."""
        figures[f"{name}: WAL"] = self.wal, "bytes a signal"
        figures[f"{name}: {who}"] = self.client, "µs of processor a signal"
        figures[f"{name}: server"] = self.server, "µs of processor a signal"
        figures[f"{name}: WAL writer and others of the server"] = self.beside, "µs of processor a signal"
        figures[f"{name}: flushes a commit"] = self.flushes * size, "flushes"


@dataclass(frozen=True)
class _Reading:
    """Seconds, bytes and numbers since some time or other."""

    clock: float
    client: float
    children: float
    tree: float
    beside: float
    own: float
    machine: float
    wal: float
    flushes: float
    flushing: float


class _Meter:
    """Reads at its beginning, and again when it is asked."""

    def __init__(self, log: Connection) -> None:
        self.log = log
        self.begin = self._read()

    def spent(self, *, clock: float = 0.0, client: float | None = None, children: bool = False) -> _Spent:
        """clock: seconds that it took, where it ended a while ago. The client is this process, or its children, or such that say what
        they took, in seconds."""
        end = self._read()
        since = _Reading(*(getattr(end, part.name) - getattr(self.begin, part.name) for part in fields(_Reading)))
        known = since.client + (since.children if client is None else client) + since.tree
        theirs = client if client is not None else since.children if children else since.client
        return _Spent(
            (clock or since.clock) * 1e6, theirs * 1e6, (since.tree - since.beside - since.own) * 1e6, since.beside * 1e6, since.wal,
            since.flushes, since.flushing / max(1.0, since.flushes), max(0.0, since.machine - known) / since.clock,
        )  # fmt: skip

    def _read(self) -> _Reading:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = self.log.info.backend_pid
        wal, flushes, flushing = _flushes(self.log)
        return _Reading(
            time.perf_counter(), time.process_time(), children.ru_utime + children.ru_stime, _tree(int(_stat(own)[1])),
            _beside(self.log), busy(own), _machine(), wal, flushes, flushing,
        )  # fmt: skip


def _owed(log: Connection, vacuum: str) -> float:
    """Seconds of processor that a checkpoint and a vacuum need for what was written since the last ones. What they need when nothing was
    written is of a visit and not of what is visited."""

    def visit() -> float:
        begin = busy(log.info.backend_pid) + _beside(log)
        log.execute("CHECKPOINT")
        log.execute(vacuum.encode())
        return busy(log.info.backend_pid) + _beside(log) - begin

    first = visit()
    return max(0.0, first - visit())


def _flushes(log: Connection) -> tuple[float, float, float]:
    """Bytes of WAL, flushes, µs in them."""
    if log.info.server_version >= 180000:
        table = "(SELECT sum(fsyncs), sum(fsync_time) FROM pg_stat_io WHERE object = 'wal') AS s(n, ms)"
    else:
        table = "(SELECT wal_sync, wal_sync_time FROM pg_stat_wal) AS s(n, ms)"
    row = log.execute(
        f"SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, n::float8, ms::float8 * 1000 FROM {table}".encode()
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


@contextmanager
def _database(server: Server) -> Iterator[tuple[str, Connection]]:
    """A database of which flushes are clocked, and a connection to look with."""
    with server.database() as address:
        with connect(address) as log:
            if not Path(f"/proc/{log.info.backend_pid}/schedstat").exists():
                raise SystemExit(
                    "the server's processor time cannot be read: it is on another machine, or that is no Linux"
                )
            log.execute(f"ALTER DATABASE {log.info.dbname} SET track_wal_io_timing = on".encode())
        with connect(address) as log:
            yield address, log


def _beside(log: Connection) -> float:
    """Seconds of the server's processes that are no session's. Workers of autovacuum come and go, and are not among them."""
    pids = log.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'autovacuum worker')"
    )
    return sum(busy(pid) for (pid,) in pids)


def busy(pid: int) -> float:
    """Seconds that the threads of a process have had a processor, by the scheduler's own clock, which knows nanoseconds."""
    tasks = Path("/proc", str(pid), "task").glob("*/schedstat")
    return sum(int(path.read_text(encoding="utf-8").split()[0]) for path in tasks) / 1e9


def _tree(postmaster: int) -> float:
    """Seconds of a server: of the processes that are, and by a coarser clock of those that were. Looked at anew if one went from these to
    those meanwhile: it would be among neither."""
    while True:
        children = _children(postmaster)
        stat = _stat(postmaster)
        whole = (int(stat[13]) + int(stat[14])) / os.sysconf("SC_CLK_TCK") + busy(postmaster)
        with suppress(OSError):
            whole += sum(busy(child) for child in children)
            if _children(postmaster) == children:
                return whole


def _children(pid: int) -> list[int]:
    texts = (path.read_text(encoding="utf-8") for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for text in texts for child in text.split()]


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _machine() -> float:
    """Seconds that processors of this machine were at work, for whomever; interrupts are not counted, most are our own."""
    user, nice, system, *_ = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
