"""FIND: what "true" means for each form, in one place: the signals that make a node true, or None where it is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pgsig.condition import Absent, Debounce, Group, Leaf, Node, Not, Tick, Window, leaves
from pgsig.condition.calendar import window_of
from pgsig.decide.state import Entry, Levels, Pending


@dataclass(frozen=True, slots=True)
class View:
    """What a condition looks at: signals waited with, the levels that hold, the time. after: only signals later than this position."""

    pending: Pending
    levels: Levels
    now: float = 0.0
    after: int = 0

    def entries(self, leaf: int) -> list[Entry]:
        return [entry for entry in self.pending.get(leaf, ()) if entry.id > self.after and entry.ok]


def find(node: Node, view: View) -> list[Entry] | None:
    """The signals that make a node true, oldest first; [] where levels alone do; None where it is not true."""
    if isinstance(node, Leaf | Tick):
        return _leaf(node, view)
    if isinstance(node, Not):
        return [] if find(node.part, view) is None else None
    if isinstance(node, Absent):
        return _leaf(node.watch, view)
    if isinstance(node, Debounce):
        return _debounce(node, view)
    if isinstance(node, Window):
        return _window(node, view)
    return _sequence(node, view) if node.kind == "seq" else _group(node, view)


def _leaf(leaf: Leaf | Tick, view: View) -> list[Entry] | None:
    if isinstance(leaf, Leaf) and leaf.mode == "sticky":
        level = view.levels.get(leaf.index)
        return [] if level is not None and level.ok else None
    entries = view.entries(leaf.index)
    if isinstance(leaf, Tick):
        return entries[:1] or None
    if leaf.total is not None:
        return _reaching(entries, leaf.total[1])
    if leaf.distinct is not None:
        entries = list({repr(entry.x): entry for entry in reversed(entries)}.values())[::-1]
    return entries[: leaf.count] if len(entries) >= leaf.count else None


def _reaching(entries: list[Entry], reaches: float) -> list[Entry] | None:
    total = 0.0
    for count, entry in enumerate(entries, 1):
        total += entry.x
        if total >= reaches:
            return entries[:count]
    return None


def _group(node: Group, view: View) -> list[Entry] | None:
    found = []
    for part in node.parts:
        here = find(part, view)
        if here is not None:
            found.append(here)
        elif node.kind == "all":
            return None  # whatever the others say
    need = {"all": len(node.parts), "any": 1}.get(node.kind, node.need)
    if len(found) < need:
        return None
    # any, at_least: those that were complete first
    chosen = found if node.kind == "all" else sorted(found, key=_completed)[:need]
    return [entry for here in chosen for entry in here]


def _sequence(node: Group, view: View) -> list[Entry] | None:
    found: list[Entry] = []
    # By position: what committed late may stand behind what came after it.
    ordered = {leaf.index: sorted(view.pending.get(leaf.index, ()), key=_id) for leaf in leaves(node)}
    view = replace(view, pending={**view.pending, **ordered})
    for part in node.parts:
        here = find(part, view)
        if here is None:
            return None
        found += here
        view = replace(view, after=max([view.after, *(entry.id for entry in here)]))
    return found


def _debounce(node: Debounce, view: View) -> list[Entry] | None:
    came = sorted((entry for leaf in leaves(node) for entry in view.entries(leaf.index)), key=_id)
    if not came or view.now < due_after_quiet(node, came) or find(node.part, view) is None:
        return None
    return came


def due_after_quiet(node: Debounce, came: list[Entry]) -> float:
    """When the wait of a debounce is over, if nothing more comes."""
    last = max(entry.at for entry in came) + node.quiet
    return last if node.most is None else min(last, min(entry.at for entry in came) + node.most)


def _window(node: Window, view: View) -> list[Entry] | None:
    numbers = [leaf.index for leaf in leaves(node)]
    begins: dict[float, Pending] = {}
    for number in numbers:
        for entry in view.pending.get(number, ()):
            begin, _ = window_of(entry.at, node.length, node.zone)
            begins.setdefault(begin, {}).setdefault(number, []).append(entry)
    for begin in sorted(begins):
        inside = {number: begins[begin].get(number, []) for number in numbers}
        if (found := find(node.part, replace(view, pending={**view.pending, **inside}))) is not None:
            return found
    return None


def _completed(found: list[Entry]) -> int:
    return max((entry.id for entry in found), default=0)


def _id(entry: Entry) -> int:
    return entry.id
