"""ADVANCE: one signal meets one instance of one rule. The state absorbs it; while the condition is true, the rule fires and consumes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pgsig.condition import Leaf, Tick
from pgsig.decide.catalog import CompiledRule
from pgsig.decide.explain import explain
from pgsig.decide.find import View, find
from pgsig.decide.pass_time import complete_absences, expired, is_late
from pgsig.decide.state import Entry, Levels, RuleState
from pgsig.model import Json, Outcome, Signal

MOST_WAITING = 10_000  # signals that one leaf of an instance waits with; the largest `count`

Hit = tuple[
    Leaf | Tick, bool, Json
]  # a leaf that names the signal's key, whether the signal satisfies it, what is at its path


class Firing(NamedTuple):
    """A rule fired. evidence: what it consumed, or the signal itself where levels alone made it fire. nth: counts those of a cause.

    limited: it fired more often than its limit allows.
    """

    nth: int
    evidence: tuple[int, ...]
    depth: int
    explanation: Json
    limited: bool = False


@dataclass(slots=True)
class Advance:
    """What became of it: firings in order, and how signals ended (id, outcome, which firing, detail)."""

    firings: list[Firing] = field(default_factory=list)
    outcomes: list[tuple[int, Outcome, int | None, str | None]] = field(default_factory=list)


def advance(
    rule: CompiledRule,
    state: RuleState,
    shared: RuleState | None,
    signal: Signal,
    hits: Iterable[Hit],
    *,
    visiting: bool = False,
    timer: bool = False,
) -> Advance:
    """Let `state` (changed in place) absorb a signal, then fire as often as the condition is true.

    shared: the state of the instance without subject, whose levels hold for every instance. visiting: the signal has no subject
    and reaches this instance from outside: a level of it is remembered in `shared` alone. timer: the signal says that time passed.
    """
    result = Advance()
    at = signal.at.timestamp()
    if not (_absorb(rule, state, signal, at, hits, visiting, result) or timer):
        return result
    if rule.timed:
        now = state.clock = max(state.clock, at)
        for over in complete_absences(rule, state, now, Entry(signal.id, now, signal.depth)):
            _supersede(state, over, signal, result)
        result.outcomes += [(gone, Outcome.EXPIRED, None, why) for gone, why in expired(rule, state, now)]
    else:
        now = at
    levels = levels_of(state, shared)
    while (found := find(rule.root, View(state.pending, levels, now))) is not None:
        used = sorted({entry.id: entry for entry in found}.values(), key=lambda entry: entry.id)
        nth = len(result.firings)
        evidence = tuple(entry.id for entry in used) or (signal.id,)
        depth = max((entry.depth for entry in used), default=signal.depth) + 1
        explanation = explain(rule.root, View(state.pending, levels, now), used)
        result.firings.append(Firing(nth, evidence, depth, explanation, _limited(rule, state, now)))
        if not used:  # levels alone: nothing to consume, so it fires once for each signal
            break
        state.drop({entry.id for entry in used})
        result.outcomes += [(entry.id, Outcome.CONSUMED, nth, None) for entry in used]
    return result


def _limited(rule: CompiledRule, state: RuleState, now: float) -> bool:
    """Count a firing against the rule's limit. True if it is above."""
    if rule.rule.most is None:
        return False
    count, length = rule.rule.most
    state.fired = [at for at in state.fired if at > now - length]
    if len(state.fired) >= count:
        return True
    state.fired.append(now)
    return False


def _absorb(
    rule: CompiledRule,
    state: RuleState,
    signal: Signal,
    at: float,
    hits: Iterable[Hit],
    visiting: bool,
    result: Advance,
) -> bool:
    touched = late = False
    newer: Entry | None = None
    for leaf, satisfied, x in hits:
        ok = satisfied
        mode = "edge" if isinstance(leaf, Tick) else leaf.mode
        if mode == "changed":
            known = f"{leaf.index}:{signal.key}:{signal.subject}"
            digest = hashlib.sha256(signal.value.encode()).hexdigest()[:16]
            ok, state.seen[known] = ok and state.seen.get(known) != digest, digest
        entry = Entry(signal.id, at, signal.depth, ok, x)
        if mode == "sticky":
            touched = True
            if not visiting:
                before = state.levels.get(leaf.index)
                state.levels[leaf.index] = entry
                _supersede(state, before, signal, result)
        elif mode in ("watch", "arm"):
            touched = _arm(rule, state, leaf, entry, signal, result) or touched
        elif ok and rule.windows and is_late(rule, state, leaf, at):
            late = True
        elif mode == "latest":
            gone = state.pending.get(leaf.index, [])
            if gone and gone[-1].id > signal.id:  # committed late: position says which is the newest
                newer = gone[-1]
                continue
            state.pending[leaf.index] = [entry]
            for old in gone:
                _supersede(state, old, signal, result)
            touched = True
        elif ok:
            waiting = state.pending.setdefault(leaf.index, [])
            waiting.append(entry)
            touched = True
            if len(waiting) > MOST_WAITING:
                result.outcomes.append((waiting[0].id, Outcome.EXPIRED, None, f"{MOST_WAITING} newer ones wait"))
                state.drop({waiting[0].id})
    if newer is not None and not state.holds(signal.id):
        result.outcomes.append((signal.id, Outcome.SUPERSEDED, None, f"by signal {newer.id}"))
    elif late and not touched:
        result.outcomes.append((signal.id, Outcome.LATE, None, "its window was closed"))
    return touched


def _arm(
    rule: CompiledRule, state: RuleState, leaf: Leaf | Tick, entry: Entry, signal: Signal, result: Advance
) -> bool:
    """A signal for one of the two ends of an absence: it begins, or begins anew."""
    absent = next(a for a in rule.absents if leaf.index == a.watch.index or (a.after and leaf.index == a.after.index))
    number = absent.watch.index
    since = state.armed.get(number)
    if leaf.index == number and since is None and absent.after is not None:
        return False  # not armed: it is not waited for
    state.armed[number] = entry
    _supersede(state, since, signal, result)
    # An absence that is complete but has not been used by the rest of the condition is over.
    stale = {old.id for old in state.pending.get(number, ())}
    if stale:
        state.drop(stale)
        result.outcomes += [(old, Outcome.EXPIRED, None, f"{signal.key} came") for old in sorted(stale)]
    return True


def _supersede(state: RuleState, old: Entry | None, signal: Signal, result: Advance) -> None:
    """One leaf let go of a signal. That is its end unless it has ended before, or another leaf still needs it."""
    if old is not None and not old.told and not state.holds(old.id):
        result.outcomes.append((old.id, Outcome.SUPERSEDED, None, f"by signal {signal.id}"))


def levels_of(state: RuleState, shared: RuleState | None) -> Levels:
    """The levels that hold here: the instance's own, or the one without subject where that is newer."""
    if shared is None or shared is state or not shared.levels:
        return state.levels
    levels = dict(shared.levels)
    for number, entry in state.levels.items():
        if number not in levels or levels[number].id < entry.id:
            levels[number] = entry
    return levels
