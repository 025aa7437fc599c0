"""EXPLAIN: a condition's evaluation as a value: one node for each of the tree, with what it has, what it needs, and the evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pgsig.condition import MISSING, Leaf, Node, Not, Tick
from pgsig.condition.duration import text as length
from pgsig.model import Json

if TYPE_CHECKING:
    from pgsig.decide.advance import Entry

Pending = Mapping[int, Sequence["Entry"]]
Levels = Mapping[int, "Entry"]


def explain(node: Node, pending: Pending, levels: Levels, used: Iterable[Entry] | None = None) -> Json:
    """Each node as {text, met, have, need, evidence, label, children}. used: at a firing, the signals that it consumes."""
    ids = None if used is None else {entry.id for entry in used}
    return _node(node, pending, levels, ids)


def _node(node: Node, pending: Pending, levels: Levels, used: set[int] | None) -> dict[str, Any]:
    if isinstance(node, Leaf | Tick):
        return _leaf(node, pending, levels, used)
    parts = [node.part] if isinstance(node, Not) else node.parts
    children = [_node(part, pending, levels, used) for part in parts]
    have = sum(child["met"] for child in children)
    if isinstance(node, Not):
        text, met, have, need = "not", have == 0, int(have == 0), 1
    else:
        need = {"any": 1, "at_least": node.need}.get(node.kind, len(children))
        text = {"all": "all of", "any": "any of", "seq": "in this order", "at_least": f"at least {need} of"}[node.kind]
        if node.within is not None:
            text += f" within {length(node.within)}"
        met = have >= need
    return _labelled(node, {"text": text, "met": met, "have": have, "need": need, "children": children})


def _leaf(leaf: Leaf | Tick, pending: Pending, levels: Levels, used: set[int] | None) -> dict[str, Any]:
    if isinstance(leaf, Leaf) and leaf.mode == "sticky":
        level = levels.get(leaf.index)
        met = level is not None and level.ok
        return _labelled(
            leaf,
            {"text": describe(leaf), "met": met, "have": int(met), "need": 1, "evidence": [level.id] if level else []},
        )
    held = [entry for entry in pending.get(leaf.index, ()) if used is None or entry.id in used]
    need = leaf.count if isinstance(leaf, Leaf) else 1
    have = sum(entry.ok for entry in held)
    return _labelled(
        leaf,
        {
            "text": describe(leaf),
            "met": have >= need,
            "have": have,
            "need": need,
            "evidence": [entry.id for entry in held],
        },
    )


def _labelled(node: Node, document: dict[str, Any]) -> dict[str, Any]:
    if node.label is not None:
        document["label"] = node.label
    return document


def describe(leaf: Leaf | Tick) -> str:
    """A leaf in words, close to how it was written."""
    if isinstance(leaf, Tick):
        zone = f" {leaf.spec['tz']}" if "tz" in leaf.spec else ""
        form = next(key for key in ("cron", "every", "at") if key in leaf.spec)
        return f"{form} {leaf.spec[form]}{zone}"
    words = [leaf.pattern]
    if leaf.eq is not MISSING:
        words.append("= " + json.dumps(leaf.eq, ensure_ascii=False))
    if leaf.where is not None:
        words.append(f"where {leaf.where}")
    if leaf.source is not None:
        words.append(f"from {leaf.source}")
    if leaf.subject is not None:
        words.append(f"about {leaf.subject}")
    if leaf.mode != "edge":
        words.append(f"({leaf.mode})")
    if leaf.count > 1:
        words.append(f"× {leaf.count}")
    return " ".join(words)


def render(tree: Json, indent: int = 0) -> list[str]:
    """The tree as lines of text, one a node: ✓ met, … partly there, ✗ nothing yet."""
    sign = "✓" if tree["met"] else "…" if tree["have"] else "✗"
    count = f"  {tree['have']} of {tree['need']}" if tree["need"] > 1 or tree.get("children") else ""
    evidence = f"  signals {', '.join(map(str, tree['evidence'][:5]))}" if tree.get("evidence") else ""
    label = f"  ({tree['label']})" if tree.get("label") else ""
    lines = [f"{'  ' * indent}{sign} {tree['text']}{count}{evidence}{label}"]
    for child in tree.get("children", ()):
        lines += render(child, indent + 1)
    return lines
