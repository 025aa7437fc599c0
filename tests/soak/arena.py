"""The processes of a soak, the server and the network between them, and how faults are done to them."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import clock_gettime, monotonic
from typing import Any

import psycopg

from pgsig.embedded import EmbeddedPostgres
from pgsig.runner import tree
from pgsig.store.database import connect
from pgsig.store.definitions import apply
from pgsig.store.migrate import migrate
from tests.soak.definition import document
from tests.soak.emitter import BOOTTIME, OWN, SUBJECTS
from tests.soak.evidence import lines
from tests.soak.nursery import Nursery
from tests.soak.proxy import HOST, Proxy
from tests.soak.schedule import EMITTERS, SLOTS, Fault

LEASE = 3.0
POLL = 0.5
CAPACITY = 12
ROLES = {"w": "worker", "r": "runner", "c": "clock", "e": "emitter", "a": "deployer"}


@dataclass(slots=True)
class Slot:
    """A place for a process. pid: 0 while there is none. stay_dead: it ended because it was to."""

    name: str
    port: int
    pid: int = 0
    started_at: float = 0.0
    failpoints: str = ""
    stay_dead: bool = False
    expected: bool = False  # its next end is a fault of ours


class Arena:
    """Made for one run: `open`, then faults with `strike`, with `tend` all the while, then `close`.

    signals, seconds: what the emitters are to reach, and when. say: where progress goes.
    """

    def __init__(
        self,
        seed: int,
        *,
        signals: int,
        seconds: float,
        slots: tuple[str, ...] = SLOTS,
        say: Callable[[str], None] = print,
    ) -> None:
        self.seed, self.signals, self.seconds, self.say = seed, signals, seconds, say
        self.folder = Path(tempfile.mkdtemp(prefix="pgsig-soak-"))
        self.folder.chmod(0o711)
        for name in ("locks", "beats", "logs"):
            (self.folder / name).mkdir()
        self.server = EmbeddedPostgres(
            self.folder / "postgres", fsync=True, settings={"max_connections": "200", "log_min_messages": "panic"}
        )
        self.names = slots
        self.slots: dict[str, Slot] = {}
        self.namespaces: list[str] = []
        self.struck: Counter[str] = Counter()
        self.crashes: list[str] = []  # ends that nobody ordered
        self.deploys = 0
        self.commands = 0.02
        self.small: tuple[str, ...] = ("w0", "w1")  # workers of small takes
        self.keep = False  # leave the folder, for whoever wants to look
        self._thawed: set[int] = set()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._admin: psycopg.Connection[Any] | None = None
        self._jobs_read = 0
        self._jobs: dict[int, int] = {}  # process: run

    # ── open and close ──

    def open(self) -> None:
        self.server.start()
        migrate(self.server.dsn())
        witness = Path(__file__).with_name("witness.sql").read_text(encoding="utf-8")
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute(witness.encode())
            connection.execute(
                "CREATE TABLE soak.first AS SELECT DISTINCT ON (lane) lane, s1 FROM pgsig_private.cursor ORDER BY lane, seq DESC"
            )
            self.namespaces = [row[0] for row in connection.execute(
                "SELECT DISTINCT ON (hashtextextended(n, 0) & 3) n FROM unnest(%s::text[]) n ORDER BY hashtextextended(n, 0) & 3, n",
                [["default", "north", "south", "east", "west", "here", "there"]],
            )][:3]  # fmt: skip
        for namespace in self.namespaces:
            with connect(self.server.dsn(), name="soak") as work:
                apply(work, document(namespace, self.folder))
        self.proxy = Proxy(lambda: self.server.port)
        self.nursery = Nursery()
        self.begin = clock_gettime(BOOTTIME)
        for name in (*self.names, "a0"):
            self.slots[name] = Slot(name, self.proxy.open(name))
        for name in self.names:
            self.spawn(name)

    def close(self) -> None:
        """End everything, also what is in a bad state."""
        for slot in self.slots.values():
            slot.stay_dead = slot.expected = True
            if slot.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slot.pid, signal.SIGKILL)
        self.nursery.close()
        # What the guards do, for the case that one of them was the last thing to be killed.
        mark = f"SOAK={self.folder}".encode()
        tree.kill_until_gone(lambda: tree.carriers(mark), threading.Event().wait)
        self.proxy.close()
        if self._admin is not None:
            self._admin.close()
        self.server.stop("immediate")
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ── processes ──

    def url(self, name: str) -> str:
        """The server's address through a slot's own wire."""
        return self.server.dsn().replace(f"@{HOST}:{self.server.port}/", f"@{HOST}:{self.slots[name].port}/")

    def spawn(self, name: str, failpoints: str = "") -> None:
        slot = self.slots[name]
        env = {
            "DATABASE_URL": self.url(name), "PGSIG_LEASE_SECONDS": str(LEASE), "PGSIG_POLL_SECONDS": str(POLL),
            # Small takes make large windows, and workers that are busy for a while.
            "PGSIG_BATCH": "4" if name in self.small else "1000",
            "PGSIG_CAPACITY": str(CAPACITY), "PGSIG_SPOOL": str(self.folder / "spool" / name), "PGSIG_FAILPOINTS": failpoints,
            "PGSIG_FAILPOINTS_LOG": str(self.folder / "failpoints.log"), "SOAK": str(self.folder), "SOAK_SLOT": name,
            "SOAK_SEED": str(self.seed), "SOAK_NAMESPACES": ",".join(self.namespaces), "SOAK_BEGIN": str(self.begin),
            "SOAK_SIGNALS": str(self.signals // len(EMITTERS) + 1), "SOAK_SECONDS": str(self.seconds),
            "SOAK_DEPLOY": str(self.deploys), "SOAK_COMMANDS": str(self.commands),
        }  # fmt: skip
        slot.pid = self.nursery.start(ROLES[name[0]], env, self.folder / "logs" / name)
        slot.started_at, slot.failpoints, slot.stay_dead, slot.expected = monotonic(), failpoints, False, False

    def tend(self, wait: float = 0.05) -> None:
        """What is due now, and processes that ended: they are started anew."""
        for pid, status in self.nursery.ended(wait):
            for slot in self.slots.values():
                if slot.pid == pid:
                    self._ended(slot, status)
        while self._later and self._later[0][0] <= monotonic():
            heapq.heappop(self._later)[2]()

    def _ended(self, slot: Slot, status: int) -> None:
        slot.pid = 0
        ours = slot.expected or slot.name == "a0" or slot.failpoints
        if not ours:
            self.crashes.append(f"{slot.name} ended with {os.waitstatus_to_exitcode(status)}")
        if not slot.stay_dead and slot.name != "a0":
            self.later(0.05, lambda: None if slot.pid or slot.stay_dead else self.spawn(slot.name))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._later, (monotonic() + seconds, self._number, what))

    def signal(self, name: str, number: signal.Signals) -> None:
        slot = self.slots[name]
        if slot.pid:
            slot.expected = slot.expected or number in (signal.SIGKILL, signal.SIGTERM)
            with contextlib.suppress(ProcessLookupError):
                os.kill(slot.pid, number)

    def beside(self, name: str, program: bytes) -> int | None:
        """The guard of a runner, or its fork server."""
        for process in tree.census().values():
            if process.parent == self.slots[name].pid and process.parent and not process.zombie:
                with contextlib.suppress(OSError):
                    if program in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                        return process.pid
        return None

    def jobs(self) -> list[int]:
        """Processes of jobs that are alive."""
        path = self.folder / "jobs.jsonl"
        if path.exists():
            with path.open("rb") as file:
                file.seek(self._jobs_read)
                whole, _, _ = file.read().rpartition(b"\n")
            self._jobs_read += len(whole) + bool(whole)
            for text in whole.splitlines():
                line = json.loads(text)
                if line["what"] == "start":
                    self._jobs[line["pid"]] = line["run"]
                elif line["what"] == "end":
                    self._jobs.pop(line["pid"], None)
        mark = f"SOAK={self.folder}".encode()
        self._jobs = {pid: run for pid, run in self._jobs.items() if tree.look(pid) and tree.marked(pid, mark)}
        return sorted(self._jobs)

    def ask(self, text: str, *given: Any) -> list[tuple[Any, ...]]:
        """A question past all proxies; waits for a server that is coming up."""
        until = monotonic() + 30
        while True:
            try:
                if self._admin is None or self._admin.closed:
                    self._admin = psycopg.connect(self.server.dsn(), autocommit=True, application_name="soak admin")
                result = self._admin.execute(text.encode(), given or None)
                return result.fetchall() if result.description else []
            except psycopg.OperationalError:
                if monotonic() > until:
                    raise
                with contextlib.suppress(psycopg.Error):
                    if self._admin is not None:
                        self._admin.close()
                self.tend(0.1)

    # ── faults ──

    def strike(self, fault: Fault) -> None:
        """Do a fault. Its end, where it has one, comes by itself later."""
        self.struck[fault.kind] += 1
        target = fault.target
        match fault.kind:
            case "kill":
                self.signal(target, signal.SIGKILL)
            case "end":
                self.signal(target, signal.SIGTERM)
            case "freeze":
                self.freeze(self.slots[target].pid, fault.amount)
            case "kill job" | "freeze job":
                alive = self.jobs()
                if alive:
                    pid = alive[int(fault.amount * 7919) % len(alive)]
                    if fault.kind == "kill job":
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    else:
                        self.freeze(pid, fault.amount)
            case "kill guard" | "freeze guard" | "kill forks" | "freeze forks":
                pid_ = self.beside(target, b"forkserver.py" if "forks" in fault.kind else b"pgsig.runner.guard")
                if pid_ and fault.kind.startswith("kill"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid_, signal.SIGKILL)
                else:
                    self.freeze(pid_ or 0, fault.amount)
            case "kill backend" | "freeze backend" | "terminate" | "terminate all":
                self.backends(fault)
            case "crash postgres":
                self.server.stop("immediate")
                self.server.start()
            case "cut":
                self.proxy.set(target, "cut")
            case "stall" | "refuse" | "mute":
                self.proxy.set(target, fault.kind)
                self.later(fault.amount, lambda: self.proxy.set(target, "flow"))
            case "failpoint":
                self.arm(fault)
            case "deploy":
                self.deploy()
            case _:
                raise ValueError(fault.kind)

    def freeze(self, pid: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        if not pid:
            return
        began = tree.look(pid)

        def thaw() -> None:
            now = tree.look(pid)
            if began and now and now.started == began.started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.later(seconds, thaw)

    def backends(self, fault: Fault) -> None:
        about = (
            "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pgsig "
            + ("(worker|runner) [^ ]+$" if fault.kind == "terminate" else "")  # those that listen
            + "' ORDER BY pid"
        )
        found = [row[0] for row in self.ask(about)]
        if not found:
            return
        chosen = found[int(fault.amount * 7919) % len(found)]
        if fault.kind == "kill backend":
            with contextlib.suppress(ProcessLookupError):
                os.kill(chosen, signal.SIGKILL)
        elif fault.kind == "freeze backend":
            self.freeze(chosen, fault.amount)
        else:
            with contextlib.suppress(psycopg.OperationalError):
                self.ask("SELECT pg_terminate_backend(p) FROM unnest(%s::int[]) p", found)

    def arm(self, fault: Fault) -> None:
        """Start the process anew with a failpoint armed; one that stops at it goes on after a while."""
        name = fault.target
        if name == "a0":
            self.deploy(fault.word)
            return
        slot = self.slots[name]
        slot.stay_dead = True
        self.signal(name, signal.SIGKILL)

        def again() -> None:
            if slot.pid:
                self.later(0.05, again)
            else:
                self.spawn(name, fault.word)

        self.later(0.02, again)
        if "=stop" in fault.word:
            for number in range(1, 8):
                self.later(number * max(1.0, fault.amount), self.thaw_stopped)

    def thaw_stopped(self) -> None:
        """SIGCONT to all that a failpoint has stopped, guards too."""
        for line in self.fired():
            pid, _, action = line
            if action == "stop" and pid not in self._thawed:
                self._thawed.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def fired(self) -> list[tuple[int, str, str]]:
        """Failpoints that happened: (process, name, action)."""
        path = self.folder / "failpoints.log"
        text = path.read_text() if path.exists() else ""
        return [(int(pid), name, action) for pid, name, action in (line.split() for line in text.splitlines())]

    def deploy(self, failpoints: str = "") -> None:
        self.deploys += 1
        self.signal("a0", signal.SIGKILL)
        self.spawn("a0", failpoints)

    # ── the end ──

    def calm(self) -> None:
        """No fault is left: everything flows, goes on, and is there."""
        while self._later:
            self.tend()
        self.thaw_stopped()
        for name, slot in self.slots.items():
            self.proxy.set(name, "flow")
            if slot.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slot.pid, signal.SIGCONT)
            if name == "a0":
                continue
            slot.stay_dead = False
            if slot.failpoints and slot.pid:
                self.signal(name, signal.SIGKILL)  # what is armed and was not reached shall not be
            elif not slot.pid:
                self.spawn(name)
        until = monotonic() + 30
        while monotonic() < until and any(
            not self.slots[name].pid or self.slots[name].failpoints for name in self.names
        ):
            self.tend()

    def order(self, key: str, times: int = 1) -> None:
        """Emit a signal for every subject of every namespace, past all proxies."""
        self.ask(
            "INSERT INTO pgsig.signals (namespace, key, subject, source)"
            " SELECT n, %s, s, %s FROM unnest(%s::text[]) n, unnest(%s::text[]) s, generate_series(1, %s)",
            *(key, OWN, self.namespaces, list(SUBJECTS), times),
        )

    def stop(self, *names: str) -> None:
        """End processes in order."""
        for name in names:
            self.slots[name].stay_dead = True
            self.signal(name, signal.SIGTERM)
        self.wait(lambda: not any(self.slots[name].pid for name in names), 60, f"{', '.join(names)} to end")

    def wait(self, ready: Callable[[], Any], seconds: float, about: str) -> bool:
        """Tend until it is so. False: it did not come."""
        until = monotonic() + seconds
        while not ready():
            if monotonic() > until:
                self.say(f"waited {seconds:g} s for {about}")
                return False
            self.tend(0.1)
        return True

    def emitted(self) -> int:
        """Signals that emitters know to be committed."""
        total = 0
        for name in EMITTERS:
            sizes: dict[Any, int] = {}
            for line in lines(self.folder / f"ledger-{name}.jsonl"):
                if "try" in line:
                    sizes[line["try"]] = len(line["signals"])
                total += sizes.get(line.get("done"), 0)
        return total

    def alive(self) -> dict[str, tuple[int, int]]:
        """Who holds the lock of its name: (run, epoch)."""
        found = {}
        for path in (self.folder / "locks").iterdir():
            with path.open("r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    run, epoch, _ = json.loads(file.read() or b"[0, 0, 0]")
                    found[path.name] = (run, epoch)
        return found


if __name__ == "__main__":
    sys.exit("python -m tests.soak")
