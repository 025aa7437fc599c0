"""ADVANCE: one signal meets one instance of one rule. The state absorbs it; while the condition is true, the rule fires and consumes.

What "true" and "consumed" mean for each form stands in one place, `find`: it answers with the signals that make a node true, or None.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pgsig.condition import Group, Leaf, Node, Not, Tick
from pgsig.decide.catalog import CompiledRule
from pgsig.decide.explain import explain
from pgsig.model import Json, Outcome, Signal


@dataclass(frozen=True, slots=True)
class Entry:
    """A signal that a leaf holds. at: seconds since the epoch, database time. ok: false only for a `latest` that does not satisfy."""

    id: int
    at: float
    depth: int = 0
    ok: bool = True


@dataclass(slots=True)
class RuleState:
    """What one instance of a rule remembers. pending: signals waited with, by leaf, in their order. levels: the last signal of a level.

    seen: digest of the last value, for leaves that look for a change.
    """

    pending: dict[int, list[Entry]] = field(default_factory=dict)
    levels: dict[int, Entry] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, body: Json) -> RuleState:
        return cls(
            {int(k): [Entry(*entry) for entry in v] for k, v in body.get("pending", {}).items()},
            {int(k): Entry(*v) for k, v in body.get("levels", {}).items()},
            dict(body.get("seen", {})),
        )

    def to_json(self) -> Json | None:
        """Readable JSON, or None when there is nothing to remember."""
        body: dict[str, Any] = {}
        if any(self.pending.values()):
            body["pending"] = {str(k): [_row(entry) for entry in v] for k, v in self.pending.items() if v}
        if self.levels:
            body["levels"] = {str(k): _row(v) for k, v in self.levels.items()}
        if self.seen:
            body["seen"] = self.seen
        return {"version": 1, **body} if body else None


def _row(entry: Entry) -> list[Any]:
    return [entry.id, entry.at, entry.depth, entry.ok]


@dataclass(frozen=True, slots=True)
class Firing:
    """A rule fired. evidence: what it consumed, and a level alone where nothing else made it fire. nth: counts firings of one cause."""

    nth: int
    evidence: tuple[int, ...]
    depth: int
    explanation: Json


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
    hits: Iterable[tuple[Leaf | Tick, bool]],
    visiting: bool = False,
) -> Advance:
    """Let `state` (changed in place) absorb a signal, then fire as often as the condition is true.

    shared: the state of the instance without subject, whose levels hold for every instance. hits: the leaves that name the signal's key,
    and whether it satisfies each. visiting: the signal has no subject and reaches this instance from outside: a level of it is
    remembered in `shared` alone.
    """
    result = Advance()
    at = signal.at.timestamp()
    if not _absorb(state, signal, at, hits, visiting, result):
        return result
    _expire(rule, state, at, result)
    levels = _levels(state, shared)
    while (found := find(rule.root, state.pending, levels)) is not None:
        used = sorted({entry.id: entry for entry in found}.values(), key=lambda entry: entry.id)
        nth = len(result.firings)
        evidence = tuple(entry.id for entry in used) or (signal.id,)
        depth = max((entry.depth for entry in used), default=signal.depth) + 1
        result.firings.append(Firing(nth, evidence, depth, explain(rule.root, state.pending, levels, used)))
        if not used:  # levels alone: nothing to consume, so it fires once for each signal
            break
        ids = {entry.id for entry in used}
        for leaf, entries in state.pending.items():
            state.pending[leaf] = [entry for entry in entries if entry.id not in ids]
        result.outcomes += [(entry.id, Outcome.CONSUMED, nth, None) for entry in used]
    return result


def _absorb(
    state: RuleState,
    signal: Signal,
    at: float,
    hits: Iterable[tuple[Leaf | Tick, bool]],
    visiting: bool,
    result: Advance,
) -> bool:
    touched = False
    for leaf, satisfied in hits:
        ok = satisfied
        mode = "edge" if isinstance(leaf, Tick) else leaf.mode
        if mode == "changed":
            known = f"{leaf.index}:{signal.key}:{signal.subject}"
            digest = hashlib.sha256(signal.value.encode()).hexdigest()[:16]
            ok, state.seen[known] = ok and state.seen.get(known) != digest, digest
        entry = Entry(signal.id, at, signal.depth, ok)
        if mode == "sticky":
            touched = True
            if visiting:
                continue
            before = state.levels.get(leaf.index)
            state.levels[leaf.index] = entry
            if before is not None:
                result.outcomes.append((before.id, Outcome.SUPERSEDED, None, f"by signal {signal.id}"))
        elif mode == "latest":
            for old in state.pending.get(leaf.index, ()):
                result.outcomes.append((old.id, Outcome.SUPERSEDED, None, f"by signal {signal.id}"))
            state.pending[leaf.index] = [entry]
            touched = True
        elif ok:
            state.pending.setdefault(leaf.index, []).append(entry)
            touched = True
    return touched


def _expire(rule: CompiledRule, state: RuleState, now: float, result: Advance) -> None:
    for leaf_numbers, length in rule.windows:
        gone = {
            entry.id for number in leaf_numbers for entry in state.pending.get(number, ()) if entry.at < now - length
        }
        if gone:
            for number, entries in state.pending.items():
                state.pending[number] = [entry for entry in entries if entry.id not in gone]
            result.outcomes += [(gone_id, Outcome.EXPIRED, None, "older than within") for gone_id in sorted(gone)]


def _levels(state: RuleState, shared: RuleState | None) -> dict[int, Entry]:
    """The levels that hold here: the instance's own, or the one without subject where that is newer."""
    if shared is None or shared is state or not shared.levels:
        return state.levels
    levels = dict(shared.levels)
    for number, entry in state.levels.items():
        if number not in levels or levels[number].id < entry.id:
            levels[number] = entry
    return levels


def find(node: Node, pending: dict[int, list[Entry]], levels: dict[int, Entry], after: int = 0) -> list[Entry] | None:
    """The signals later than position `after` that make a node true, oldest first; [] where levels alone do; None where it is not true."""
    if isinstance(node, Leaf | Tick):
        return _find_leaf(node, pending, levels, after)
    if isinstance(node, Not):
        return [] if find(node.part, pending, levels, after) is None else None
    if node.kind == "seq":
        return _find_sequence(node, pending, levels, after)
    parts = [found for part in node.parts if (found := find(part, pending, levels, after)) is not None]
    if node.kind == "all":
        return _joined(parts) if len(parts) == len(node.parts) else None
    # any, at_least: those that were true first
    need = 1 if node.kind == "any" else node.need
    if len(parts) < need:
        return None
    return _joined(sorted(parts, key=_completed)[:need])


def _find_leaf(
    leaf: Leaf | Tick, pending: dict[int, list[Entry]], levels: dict[int, Entry], after: int
) -> list[Entry] | None:
    if isinstance(leaf, Leaf) and leaf.mode == "sticky":
        level = levels.get(leaf.index)
        return [] if level is not None and level.ok else None
    entries = [entry for entry in pending.get(leaf.index, ()) if entry.id > after and entry.ok]
    count = leaf.count if isinstance(leaf, Leaf) else 1
    return entries[:count] if len(entries) >= count else None


def _find_sequence(
    node: Group, pending: dict[int, list[Entry]], levels: dict[int, Entry], after: int
) -> list[Entry] | None:
    found: list[Entry] = []
    for part in node.parts:
        here = find(part, pending, levels, after)
        if here is None:
            return None
        found += here
        after = max([after, *(entry.id for entry in here)])
    return found


def _joined(parts: list[list[Entry]]) -> list[Entry]:
    return [entry for part in parts for entry in part]


def _completed(found: list[Entry]) -> int:
    return max((entry.id for entry in found), default=0)
