"""EXPLAIN: a condition's evaluation as a value: one node for each of the tree, with what it has, what it needs, and the evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from pgsig.condition import MISSING, Absent, Debounce, Group, Leaf, Node, Not, Tick, Window, parts
from pgsig.condition.duration import text as length
from pgsig.condition.parse import TICKS
from pgsig.decide.find import View, find
from pgsig.decide.state import Entry
from pgsig.model import Json


def explain(node: Node, view: View, used: Iterable[Entry] | None = None) -> Json:
    """Each node as {text, met, have, need, evidence, label, children}. used: at a firing, the signals that it consumes."""
    if used is not None:
        ids = {entry.id for entry in used}
        kept = {leaf: [entry for entry in entries if entry.id in ids] for leaf, entries in view.pending.items()}
        view = replace(view, pending=kept)
    return _node(node, view)


def words(root: Leaf | Tick) -> dict[str, Any]:
    """The explanation of a rule of one edge, which is the same each time that it fires, but for the evidence."""
    tree = _node(root, View({}, {})) | {"met": True, "have": 1}
    del tree["evidence"]
    return tree


def _node(node: Node, view: View) -> dict[str, Any]:
    if isinstance(node, Leaf | Tick):
        tree = _leaf(node, view)
    elif isinstance(node, Absent):
        tree = {**_leaf(node.watch, view), "text": _absence(node)}
    else:
        children = [_node(part, view) for part in parts(node)]
        have = sum(child["met"] for child in children)
        met = find(node, view) is not None
        text, need = _words(node, len(children))
        tree = {
            "text": text,
            "met": met,
            "have": int(met) if isinstance(node, Not) else have,
            "need": need,
            "children": children,
        }
    label = None if isinstance(node, Debounce | Window) else node.label
    return tree if label is None else {**tree, "label": label}


def _words(node: Node, parts_of_it: int) -> tuple[str, int]:
    if isinstance(node, Not):
        return "not", 1
    if isinstance(node, Debounce):
        most = f", {length(node.most)} at most" if node.most is not None else ""
        return f"quiet for {length(node.quiet)}{most}", 1
    if isinstance(node, Window):
        late = f", {length(node.lateness)} late at most" if node.lateness else ""
        return f"in one window of {length(node.length)} {node.zone}{late}", 1
    if not isinstance(node, Group):
        raise TypeError(node)
    need = {"any": 1, "at_least": node.need}.get(node.kind, parts_of_it)
    text = {"all": "all of", "any": "any of", "seq": "in this order", "at_least": f"at least {need} of"}[node.kind]
    return (text if node.within is None else f"{text} within {length(node.within)}"), need


def _leaf(leaf: Leaf | Tick, view: View) -> dict[str, Any]:
    if isinstance(leaf, Leaf) and leaf.mode == "sticky":
        level = view.levels.get(leaf.index)
        met = level is not None and level.ok
        return {
            "text": describe(leaf),
            "met": met,
            "have": int(met),
            "need": 1,
            "evidence": [level.id] if level else [],
        }
    held = view.pending.get(leaf.index, ())
    have, need = float(sum(entry.ok for entry in held)), float(leaf.count if isinstance(leaf, Leaf) else 1)
    if isinstance(leaf, Leaf) and leaf.total is not None:
        have, need = 0.0, leaf.total[1]
        for entry in held:  # one after the other, as the rule adds them up
            have += entry.x
    elif isinstance(leaf, Leaf) and leaf.distinct is not None:
        have = len({repr(entry.x) for entry in held})
    return {
        "text": describe(leaf),
        "met": have >= need,
        "have": _number(have),
        "need": _number(need),
        "evidence": [entry.id for entry in held],
    }


def _number(x: float) -> float | int:
    return int(x) if float(x).is_integer() else x


def _absence(node: Absent) -> str:
    after = f" after {node.after.pattern}" if node.after else ""
    return f"no {node.watch.pattern} for {length(node.length)}{after}"


def describe(leaf: Leaf | Tick) -> str:
    """A leaf in words, close to how it was written."""
    if isinstance(leaf, Tick):
        zone = f" {leaf.spec['tz']}" if "tz" in leaf.spec else ""
        form = next(key for key in TICKS if key in leaf.spec)
        given = leaf.spec[form] if isinstance(leaf.spec[form], str) else _json(leaf.spec[form])
        return f"{form} {given}{zone}"
    words = [leaf.pattern]
    if leaf.eq is not MISSING:
        words.append("= " + _json(leaf.eq))
    if leaf.where is not None:
        words.append(f"where {leaf.where}")
    if leaf.source is not None:
        words.append(f"from {leaf.source}")
    if leaf.subject is not None:
        words.append(f"about {leaf.subject}")
    if leaf.mode in ("latest", "changed", "sticky"):
        words.append(f"({leaf.mode})")
    if leaf.count > 1:
        words.append(f"× {leaf.count}")
    if leaf.distinct is not None:
        words.append(f"with different {leaf.distinct}")
    if leaf.total is not None:
        words.append(f"until {leaf.total[0]} adds up to {_number_text(leaf.total[1])}")
    return " ".join(words)


def _json(value: Json) -> str:
    """JSON as Postgres writes it: numbers without exponents."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_json(name)}: {_json(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _number_text(x: float) -> str:
    """A number in at most 15 digits, without an exponent."""
    return format(Decimal(f"{float(x):.15g}").normalize() + 0, "f")


def render(tree: Json, indent: int = 0) -> list[str]:
    """The tree as lines of text, one a node: ✓ met, … partly there, ✗ nothing yet. `seen`, where there is one, below its leaf."""
    sign = "✓" if tree["met"] else "…" if tree["have"] else "✗"
    count = f"  {_number_text(tree['have'])} of {_number_text(tree['need'])}"
    count = count if tree["need"] > 1 or "children" in tree else ""
    evidence = f"  signals {', '.join(map(str, tree['evidence'][:5]))}" if tree.get("evidence") else ""
    label = f"  ({tree['label']})" if tree.get("label") else ""
    lines = [f"{'  ' * indent}{sign} {tree['text']}{count}{evidence}{label}"]
    if seen := tree.get("seen"):
        lines.append(f"{'  ' * indent}    {seen['text']}")
    for child in tree.get("children", ()):
        lines += render(child, indent + 1)
    return lines
