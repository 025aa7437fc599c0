"""What goes wrong, and when: a pure function of the seed, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pgsig import failpoints

WORKERS = ("w0", "w1", "w2", "w3")
RUNNERS = ("r0", "r1", "r2")
CLOCKS = ("c0", "c1")
EMITTERS = ("e0", "e1", "e2")
SLOTS = (*WORKERS, *RUNNERS, *CLOCKS, *EMITTERS)

# How often each kind comes, relative to the others. forks: the fork server of a runner.
WEIGHTS = {
    "kill": 22, "kill job": 12, "kill guard": 5, "kill backend": 4, "freeze": 14, "freeze job": 3, "freeze guard": 2,
    "freeze backend": 3, "crash postgres": 4, "cut": 8, "stall": 7, "refuse": 5, "mute": 8, "terminate": 5, "terminate all": 2,
    "end": 5, "failpoint": 20, "deploy": 3, "kill forks": 5, "freeze forks": 2,
}  # fmt: skip
LONGEST_STALL = 4.0  # seconds of a network that says nothing
APART = 3.0  # seconds between a guard's fault and the freezing of its runner: both at once is more than the guard is a guard against


@dataclass(frozen=True, slots=True)
class Fault:
    """at: seconds from the beginning. target: a slot, or "". word: a detail. amount: seconds, or a choice from [0, 1)."""

    at: float
    kind: str
    target: str = ""
    word: str = ""
    amount: float = 0.0


def draw(seed: int, count: int, seconds: float, *, lease: float) -> list[Fault]:
    """`count` faults within `seconds`, in their order. lease: the runners', which a freeze may outlast by far."""
    dice = random.Random(seed)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    times = sorted(dice.uniform(0, seconds) for _ in range(count))
    return _apart([_one(dice, at, dice.choices(kinds, weights)[0], lease) for at in times])


def _one(dice: random.Random, at: float, kind: str, lease: float) -> Fault:
    amount = dice.random()
    match kind:
        case "kill" | "end":
            return Fault(at, kind, dice.choice((*WORKERS, *RUNNERS, *RUNNERS, *CLOCKS, *EMITTERS)), amount=amount)
        case "freeze":
            return Fault(at, kind, dice.choice((*WORKERS, *RUNNERS, *CLOCKS)), amount=lease * (0.2 + 2.3 * amount))
        case "kill guard" | "kill forks":
            return Fault(at, kind, dice.choice(RUNNERS))
        case "freeze guard" | "freeze forks" | "freeze job" | "freeze backend":
            return Fault(at, kind, dice.choice(RUNNERS), dice.choice(SLOTS), amount=0.2 + 2 * amount)
        case "cut" | "stall" | "refuse" | "mute":
            return Fault(at, kind, dice.choice(SLOTS), amount=LONGEST_STALL * amount)
        case "failpoint":
            name = dice.choice(sorted(failpoints.NAMES))
            role = failpoints.NAMES[name].role
            action = dice.choice(("kill9", "kill9", "raise", "stop", "sleep=1.5"))
            return Fault(
                at, kind, dice.choice(homes(role)), f"{name}={action}:{dice.randint(1, 6)}", amount=1 + 4 * amount
            )
    return Fault(at, kind, amount=amount)


def homes(role: str, runners: Sequence[str] = RUNNERS) -> Sequence[str]:
    """The slots whose processes come past a failpoint of a role."""
    return {
        "worker": WORKERS,
        "runner": runners,
        "guard": runners,
        "clock": CLOCKS,
        "client": ("e1",),
        "web": ("e2",),
        "apply": ("a0",),
    }[role]


def _apart(faults: list[Fault]) -> list[Fault]:
    """Turn freezes of a runner close upon a fault of its guard into kills: a frozen runner without a guard overlaps, and may."""
    guards = [
        fault for fault in faults if "guard" in fault.kind or (fault.kind == "failpoint" and "guard." in fault.word)
    ]
    frozen = [fault for fault in faults if fault.kind in ("freeze", "failpoint") and fault.target in RUNNERS]
    bad = {
        id(one) for one in frozen for guard in guards
        if one is not guard and one.target == guard.target and abs(one.at - guard.at) < APART + guard.amount + one.amount
    }  # fmt: skip
    return [Fault(f.at, "kill", f.target, amount=f.amount) if id(f) in bad else f for f in faults]
