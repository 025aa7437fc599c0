"""What becomes of due times: which of them are due now, which were missed, and what a trigger's policy makes of those.

A due time is missed when nobody fired it within `GRACE`: every clock was away, or the database was. The policy of a trigger, `missed`:

none     missed times are left out
latest   the latest one is fired, unless one that is not missed is (the default)
all(n)   all are fired in their order, the latest n if there are more; `all` is all(100)

Every due time ends as a tick or in a gap that says why, and everything up to `Settled.until` is then settled for ever.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pgsig.condition.times import Times, due_between, last_due
from pgsig.model import Json

GRACE = timedelta(seconds=10)
USUAL_MOST, MOST = 100, 10_000  # of `all`
MOST_COUNTED = 1000
MOST_AT_ONCE = 10_000

_POLICY = re.compile(r"all\(\s*(\d{1,6})\s*\)")


@dataclass(frozen=True, slots=True)
class Policy:
    """How many of the missed times are fired, and whether also when another one is due."""

    most: int
    always: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Due times that do not become ticks. times: how many; None for more than a thousand."""

    first: datetime
    last: datetime
    times: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Settled:
    """ticks: due times that become ticks, in their order. until: everything up to here is settled by these and the gap."""

    ticks: tuple[datetime, ...]
    gap: Gap | None
    until: datetime


def policy(text: Json) -> Policy:
    """Read a policy. Raises ValueError."""
    found = _POLICY.fullmatch(text) if isinstance(text, str) else None
    if found and 1 <= int(found[1]) <= MOST:
        return Policy(int(found[1]), True)
    if found:
        raise ValueError(f"all takes a whole number from 1 to {MOST}")
    usual = {"none": Policy(0, False), "latest": Policy(1, False), "all": Policy(USUAL_MOST, True)}
    if not isinstance(text, str) or text not in usual:
        raise ValueError(f'"{text}" is not a way to treat missed times')
    return usual[text]


def jitter(seed: str, due: datetime, most: float) -> timedelta:
    """How much later than it is due a time is fired: the same for every clock, evenly spread over `most` seconds."""
    if not most:
        return timedelta(0)
    mark = hashlib.sha256(f"{seed} {due.timestamp():.6f}".encode()).digest()
    return timedelta(seconds=int.from_bytes(mark[:8], "big") / 2**64 * most)


def settle(
    trigger: Times, since: datetime, now: datetime, how: Policy, *, seed: str = "", jitter_most: float = 0.0
) -> Settled | None:
    """What is to be done about the due times in (since, now]; None for nothing."""
    first = trigger.next(since)
    if first is None or first > now:
        return None
    edge = max(since, now - GRACE - timedelta(seconds=jitter_most))
    fresh = []
    for due in due_between(trigger, since if first > edge else edge, now, MOST_AT_ONCE):
        if due + jitter(seed, due, jitter_most) > now:
            break
        fresh.append(due)
    old = last_due(trigger, since, edge, max(1, how.most)) if first <= edge else []
    if not old:
        return Settled(tuple(fresh), None, fresh[-1]) if fresh else None
    fired = old[len(old) - how.most :] if how.always or not fresh else []
    if not how.most:
        fired = []
    gap = gap_between(trigger, since, fired[0] if fired else old[-1], "missed", inclusive=not fired)
    ticks = (*fired, *fresh)
    return Settled(ticks, gap, ticks[-1] if fresh else old[-1])


def gap_between(trigger: Times, since: datetime, last: datetime, why: str, *, inclusive: bool) -> Gap | None:
    """The due times after `since` and up to `last` as a gap; None if there are none."""
    found = due_between(trigger, since, last, MOST_COUNTED + 1)
    if found and found[-1] == last and not inclusive:
        found.pop()
    if not found:
        return None
    if len(found) <= MOST_COUNTED:
        return Gap(found[0], found[-1], len(found), why)
    end = last if inclusive else last_due(trigger, since, last - timedelta(microseconds=1))[-1]
    return Gap(found[0], end, None, why)


Mode = Literal["hold", "collapse", "drop"]
# Rule 8: what comes while something is paused, as policies for what a paused trigger has missed when it is resumed.
AT_RESUME: dict[str, Policy] = {"hold": Policy(MOST, True), "collapse": Policy(1, True), "drop": Policy(0, False)}
