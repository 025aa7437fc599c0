"""A condition tree back to canonical JSON: what was not said is left out, durations are in their shortest form."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pgsig.condition import duration
from pgsig.condition.tree import MISSING, Absent, Debounce, Group, Leaf, Node, Not, Tick, Window
from pgsig.model import Json


def dump(node: Node) -> Json:
    """The canonical JSON of a tree; `parse` of it gives the tree back."""
    if isinstance(node, Debounce):
        tree = {**dump(node.part), "debounce": duration.text(node.quiet)}
        return tree if node.most is None else {**tree, "max_wait": duration.text(node.most)}
    if isinstance(node, Window):
        tree = {**dump(node.part), "window": duration.text(node.length)}
        if node.zone != "UTC":
            tree["tz"] = node.zone
        return {**tree, "lateness": duration.text(node.lateness)} if node.lateness else tree
    if isinstance(node, Leaf):
        tree = _leaf(node)
    elif isinstance(node, Tick):
        tree = dict(node.spec)
    elif isinstance(node, Not):
        tree = {"not": dump(node.part)}
    elif isinstance(node, Absent):
        tree = {"absent": node.watch.pattern, "for": duration.text(node.length)}
        if node.after is not None:
            tree["after"] = node.after.pattern
    else:
        tree = _group(node)
    if node.label is not None:
        tree["label"] = node.label
    return tree


def _leaf(leaf: Leaf) -> dict[str, Any]:
    tree: dict[str, Any] = {"signal": leaf.pattern}
    if leaf.eq is not MISSING:
        tree["eq"] = leaf.eq
    for name in ("where", "source", "subject", "distinct", "met_by"):
        if getattr(leaf, name) is not None:
            tree[name] = getattr(leaf, name)
    if leaf.mode != "edge":
        tree[leaf.mode] = True
    if leaf.count > 1:
        tree["count"] = leaf.count
    if leaf.total is not None:
        path, reaches = leaf.total
        tree["sum"] = {"of": path, "reaches": int(reaches) if reaches.is_integer() else reaches}
    return tree


def _group(group: Group) -> dict[str, Any]:
    within = {} if group.within is None else {"within": duration.text(group.within)}
    parts = [dump(part) for part in group.parts]
    first = group.parts[0]
    # The short form is for several matches of one leaf: `within` beside a single one would not be read again.
    several = isinstance(first, Leaf) and (first.count > 1 or first.total is not None)
    if group.kind == "all" and len(parts) == 1 and several and within and group.label is None:
        return {**parts[0], **within}
    if group.kind == "at_least":
        return {"at_least": group.need, "of": parts, **within}
    return {group.kind: parts, **within}


def digest(tree: Json) -> str:
    """A name for a JSON value that does not depend on the order of its keys."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
