"""`python -m tests.soak.sweep`: kill a process at each failpoint, so many times each, under load; then let everything rest, and judge.

--times N     kills at each name; default 100          --only TEXT …   names that contain one of them          --seed N   of the emitters
--minutes N   to give up after; default 90             --json PATH   default tests/soak/sweep.json
--partial     names that were not reached in time are told and are no failure
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from pgsig.failpoints import NAMES
from tests.soak.__main__ import text_of
from tests.soak.arena import LEASE, Arena
from tests.soak.checker import judge
from tests.soak.schedule import CLOCKS, EMITTERS, WORKERS, homes
from tests.soak.soak import Plan, come_to_rest, report

REPORT = Path(__file__).with_name("sweep.json")
PATIENCE = 25.0  # seconds for a process to come past its failpoint; then it gets another
GUARDS_PATIENCE = 2.0  # seconds for a guard to come past its own once its runner is dead
RUNNERS = tuple(f"r{number}" for number in range(4))  # most names are theirs
RATE = 25  # signals a second
NEED_SERVICES = ("link.ready", "link.was_ready", "link.reload", "link.reloaded", "link.ordered", "run.stopping")
COMMANDS = 0.08  # of them order services about: without, some names are never reached


@dataclass
class Home:
    """A slot whose process is killed at one name after the other."""

    name: str
    queue: deque[str] = field(default_factory=deque)
    at: str = ""  # the failpoint that its process has
    pid: int = 0
    since: float = 0.0
    gone: bool = False  # its process


class Sweep:
    def __init__(self, arena: Arena, names: list[str], times: int, seed: int) -> None:
        self.arena, self.say = arena, arena.say
        self.wanted = dict.fromkeys(names, times)
        self.reached: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        # Each slot is one, with nothing to come to if the kills are few.
        self.homes = {slot: Home(slot) for slot in arena.slots}
        dice = random.Random(seed)
        for name in names:
            slots = homes(NAMES[name].role, RUNNERS)
            for number in range(times):
                self.homes[slots[number % len(slots)]].queue.append(name)
        for home in self.homes.values():
            listed = list(home.queue)
            dice.shuffle(listed)
            home.queue = deque(listed)
        self._known = 0

    def run(self, until: float) -> None:
        begin, told = monotonic(), 0.0
        while any(home.queue or home.at for home in self.homes.values()) and monotonic() < until:
            self.arena.tend(0.02)
            self.look()
            for home in self.homes.values():
                if not home.at and home.queue:
                    self.begin(home)
            if monotonic() - told > 20:
                told = monotonic()
                self.say(
                    f"{told - begin:6.0f} s  {self.reached.total():5} of {sum(self.wanted.values())} kills,"
                    f" {self.missed.total()} not reached, {self.arena.emitted():6} signals, {len(self.arena.crashes)} unexpected ends"
                )

    def look(self) -> None:
        """Which failpoints were reached since the last look, and which will not be."""
        fired = self.arena.fired()
        for _, name, _ in fired[self._known :]:
            self.reached[name] += 1
            for home in self.homes.values():
                if home.at == name and self._is_past(home):
                    home.at = ""
                    break
        self._known = len(fired)
        for home in self.homes.values():
            if home.at and not home.gone and self.arena.slots[home.name].pid != home.pid:
                # It ended in another way; its guard may still have something to do.
                home.gone, home.since = True, min(home.since, monotonic() - PATIENCE + GUARDS_PATIENCE)
            if home.at and monotonic() - home.since > PATIENCE:
                self.missed[home.at] += 1
                self.say(f"{home.name} did not come past {home.at}")
                home.queue.append(home.at)
                home.at = ""

    def _is_past(self, home: Home) -> bool:
        """Whether it was this home's process, or its guard's: that one is told by being the only one with the name."""
        fired = {pid for pid, name, _ in self.arena.fired()[self._known :] if name == home.at}
        return home.pid in fired or NAMES[home.at].role == "guard"

    def begin(self, home: Home) -> None:
        slot = self.arena.slots[home.name]
        name = home.queue[0]
        if any(other.at == name and NAMES[name].role == "guard" for other in self.homes.values()):
            home.queue.rotate(-1)  # whose guard it was could not be told
            return
        if home.name == "a0":
            if slot.pid:
                return
            home.at = home.queue.popleft()
            self.arena.deploy(f"{name}=kill9")
        else:
            if slot.pid:
                slot.stay_dead = True
                self.arena.signal(home.name, signal.SIGKILL)
                return
            home.at = home.queue.popleft()
            self.arena.spawn(home.name, f"{name}=kill9")
        home.pid, home.since, home.gone = slot.pid, monotonic(), False
        self.provoke(home)

    def provoke(self, home: Home) -> None:
        """What does not happen by itself: a lease that runs out, a runner that dies, one that ends in order."""
        arena, pid, name = self.arena, home.pid, home.at

        def if_there(what: Callable[[], None]) -> Callable[[], None]:
            return lambda: what() if arena.slots[home.name].pid == pid and home.at == name else None

        if name.startswith("guard."):
            arena.later(1.5, if_there(lambda: arena.order("svc.restart")))  # it needs jobs
        if name in ("guard.fencing", "guard.fenced"):
            arena.later(4.0, if_there(lambda: arena.freeze(pid, LEASE * 1.5)))
        elif name in ("guard.burying", "guard.killing"):
            arena.later(3.0, if_there(lambda: arena.signal(home.name, signal.SIGKILL)))
        elif name in NEED_SERVICES:
            for seconds in range(2, 20, 3):
                order = "svc.reload" if "reload" in name and seconds % 2 else "svc.restart"
                arena.later(seconds, if_there(partial(arena.order, order)))
        elif name == "bell.armed":  # where signals never cease, nobody rests
            for emitter in EMITTERS:
                arena.later(5.0, if_there(partial(self.hush, emitter)))
            # Only the one on duty takes the bell, and it stays on duty for as long as it lives.
            for other in WORKERS:
                if other != home.name:
                    arena.later(3.0, if_there(partial(self.relieve, other)))
        elif name == "bell.disarmed":  # which of the workers comes to do it is not known
            for seconds in (1, 8, 15):
                arena.later(seconds, if_there(lambda: arena.order("load.item", 60)))
        elif name.startswith("reap."):
            others = [other for other in RUNNERS if other != home.name]
            for seconds in range(2, 20, 4):
                one = others[seconds % len(others)]
                arena.later(seconds, if_there(partial(arena.signal, one, signal.SIGKILL)))
        elif name == "run.killing":
            arena.later(2.0, if_there(lambda: arena.order("load.stubborn", 3)))
        elif name == "link.leaving":
            arena.later(2.0, if_there(lambda: arena.signal(home.name, signal.SIGTERM)))

    def relieve(self, worker: str) -> None:
        """End it, unless it has a failpoint of its own to come to."""
        if not self.homes[worker].at:
            self.arena.signal(worker, signal.SIGKILL)

    def hush(self, emitter: str) -> None:
        self.arena.freeze(self.arena.slots[emitter].pid, 2.0)


def sweep(
    times: int, *, only: Sequence[str] = ("",), seed: int = 1, minutes: float = 90, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Returns the report."""
    names = sorted(name for name in NAMES if any(text in name for text in only))
    begin = monotonic()
    slots = (*WORKERS, *RUNNERS, *CLOCKS, *EMITTERS)
    arena = Arena(seed, signals=10**9, seconds=10**9 / RATE, slots=slots, say=say)
    arena.commands, arena.small = COMMANDS, WORKERS
    try:
        arena.open()
        work = Sweep(arena, names, times, seed)
        work.run(begin + minutes * 60)
        arena.signals = arena.emitted()
        took = monotonic() - begin
        evidence = come_to_rest(arena, say)
        verdict = judge(evidence)
        whole = report(Plan(seed, 0, arena.signals, took / 60), arena, evidence, verdict, took)
        short = {name: work.reached[name] for name in names if work.reached[name] < times}
        return {
            "times": times, "names": len(names), "kills": work.reached.total(), "not_reached": short,
            **{key: value for key, value in whole.items() if key not in ("faults", "faults_by_kind", "minutes", "failpoints_reached")},
            "complete": not short, "good": verdict.good,
        }  # fmt: skip
    finally:
        arena.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.soak.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--json", type=Path, default=REPORT)
    parser.add_argument("--partial", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = sweep(
        given.times, only=given.only, seed=given.seed, minutes=given.minutes, say=lambda text: print(text, flush=True)
    )
    given.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(text_of(found))
    print(f"written to {given.json}")
    return 0 if found["good"] and (found["complete"] or given.partial) else 1


if __name__ == "__main__":
    sys.exit(main())
