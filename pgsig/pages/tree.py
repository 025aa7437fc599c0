"""Conditions and explanations as trees to draw. Pure: canonical JSON in, nodes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgsig.condition.parse import TICKS
from pgsig.condition.words import words as clock_words
from pgsig.model import Json

GROUPS = {"all": "all of", "any": "any of", "seq": "in this order", "not": "not", "at_least": "at least"}
# What stands beside a form, in the order in which it is said.
BESIDE = (
    "eq", "where", "source", "subject", "changed", "latest", "sticky", "count", "distinct", "sum", "for", "after",
    "within", "debounce", "max_wait", "window", "lateness", "tz", "by",
)  # fmt: skip
FLAGS = {"changed": "value changed", "latest": "the newest only", "sticky": "as a level"}
DEEPEST = 40


@dataclass(frozen=True)
class Seen:
    """The last signal that a leaf could have meant, and what became of it."""

    id: int
    at: str
    value: str
    words: str
    because: str


@dataclass(frozen=True)
class Node:
    """One line of a tree. form: signal, all, any, …; detail: what stands beside it, in words. met is for explanations."""

    text: str
    form: str = ""
    detail: str = ""
    label: str = ""
    children: tuple[Node, ...] = ()
    met: bool | None = None
    partly: bool = False
    count: str = ""
    seen: Seen | None = None
    evidence: tuple[int, ...] = ()


def of_condition(tree: Json, depth: int = 0) -> Node:
    """The tree of a condition. What is not known here is shown as its JSON, never left out."""
    if not isinstance(tree, dict) or depth > DEEPEST:
        return Node(_json(tree), "unknown")
    label = str(tree.get("label") or "")
    for form, words in GROUPS.items():
        if form in tree:
            parts = tree.get("of", []) if form == "at_least" else tree[form]
            parts = parts if isinstance(parts, list) else [parts]
            text = f"{words} {tree[form]} of" if form == "at_least" else words
            return Node(text, form, _detail(tree), label, tuple(of_condition(part, depth + 1) for part in parts))
    if "signal" in tree:
        return Node(str(tree["signal"]), "signal", _detail(tree), label)
    if "absent" in tree:
        return Node(f"no {tree['absent']}", "absent", _detail(tree), label)
    for form in TICKS:
        if form in tree:
            return Node(clock_words(tree), "clock", _detail({"by": tree["by"]} if "by" in tree else {}), label)
    return Node(_json(tree), "unknown", "", label)


def sentence(tree: Json) -> str:
    """A condition on one line."""
    return _sentence(of_condition(tree))


def _sentence(node: Node) -> str:
    head = f"{node.text} {node.detail}".strip()
    if not node.children:
        return head
    if node.form in ("all", "any", "seq"):
        joint = {"all": " and ", "any": " or ", "seq": ", then "}[node.form]
        inner = joint.join(f"({_sentence(c)})" if len(c.children) > 1 else _sentence(c) for c in node.children)
        return f"({inner}) {node.detail}" if node.detail else inner
    return f"{head} " + ", ".join(_sentence(child) for child in node.children)


@dataclass(frozen=True)
class Wait:
    """One thing that a condition listens for. clock: a periodic trigger instead of a signal. negated: it holds things back."""

    text: str
    predicate: str
    clock: bool = False
    negated: bool = False


def waits(tree: Json, *, negated: bool = False, depth: int = 0) -> Iterator[Wait]:
    """Everything that a condition listens for, in reading order."""
    if not isinstance(tree, dict) or depth > DEEPEST:
        return
    if "signal" in tree or "absent" in tree:
        name = str(tree.get("signal", tree.get("absent")))
        yield Wait(name, _detail(tree) or ("none comes" if "absent" in tree else "any value"), negated=negated)
    elif any(form in tree for form in TICKS):
        yield Wait(clock_words(tree), "", clock=True)
        return  # a combination is one trigger, whatever it is made of
    for form in ("all", "any", "seq", "of", "not"):
        parts = tree.get(form, [])
        for part in parts if isinstance(parts, list) else [parts]:
            yield from waits(part, negated=negated or form == "not", depth=depth + 1)


def of_explanation(tree: Json, depth: int = 0) -> Node | None:
    """The tree of a recorded explanation; None if there is none."""
    if not isinstance(tree, dict) or depth > DEEPEST:
        return None
    children = tuple(node for part in tree.get("children") or [] if (node := of_explanation(part, depth + 1)))
    have, need = tree.get("have"), tree.get("need")
    evidence = tuple(item for item in tree.get("evidence") or [] if isinstance(item, int))
    return Node(
        str(tree.get("text", "")), label=str(tree.get("label") or ""), children=children, met=tree.get("met"),
        partly=bool(have) and not tree.get("met"),
        count=f"{have}/{need}" if isinstance(need, int) and need > 1 else "",
        seen=_seen(tree.get("seen")), evidence=evidence,
    )  # fmt: skip


def _seen(found: Json) -> Seen | None:
    if not isinstance(found, dict):
        return None
    return Seen(*(found[name] for name in ("id", "at", "value", "words", "because")))


def _detail(tree: dict[str, Any]) -> str:
    words = []
    for name in BESIDE:
        if name not in tree or tree[name] is False:
            continue
        value = tree[name]
        if name == "eq":
            words.append(f"= {_json(value)}")
        elif name in FLAGS:
            words.append(FLAGS[name])
        elif name == "count":
            words.append(f"× {value}")
        else:
            words.append(f"{name} {value if isinstance(value, str | int | float) else _json(value)}")
    return ", ".join(words)


def _json(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"
