"""Canonical JSON to a condition tree and back. Parsing finds every mistake at once and names its place as a JSON pointer."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pgsig.condition import duration, pattern
from pgsig.condition.tree import MISSING, Group, GroupKind, Leaf, Node, Not, Tick, is_level
from pgsig.errors import Problem
from pgsig.model import Json

FORMS = ("signal", "all", "any", "seq", "at_least", "not", "cron", "every", "at")
BESIDE: dict[str, frozenset[str]] = {
    "signal": frozenset(
        {"eq", "where", "source", "subject", "latest", "changed", "sticky", "count", "within", "label"}
    ),
    "all": frozenset({"within", "label"}),
    "any": frozenset({"within", "label"}),
    "seq": frozenset({"within", "label"}),
    "at_least": frozenset({"of", "within", "label"}),
    "not": frozenset({"label"}),
    "cron": frozenset({"tz", "jitter", "label"}),
    "every": frozenset({"tz", "anchor", "jitter", "label"}),
    "at": frozenset({"tz", "label"}),
}
DEEPEST = 32
MOST_PARTS = 100
STATES = ("queued", "starting", "running", "ready", "retrying", "succeeded", "failed", "stopped", "lost")


@dataclass
class Context:
    """Where a condition stands: its operator's path (for ticks), and the problems found so far."""

    operator: str
    problems: list[Problem] = field(default_factory=list)
    leaves: int = 0

    def wrong(self, where: str, message: str, fix: str = "", code: str = "PS501") -> None:
        self.problems.append(Problem(code, message, where, fix))

    def number(self) -> int:
        self.leaves += 1
        return self.leaves - 1


def parse(tree: Json, *, operator: str, where: str = "") -> tuple[Node | None, list[Problem]]:
    """Read one condition. operator: `workflow.operator` that it stands at. Returns the tree, or None and what is wrong."""
    context = Context(operator)
    node = _node(tree, where, context, 0)
    if not context.problems and node is not None and is_level(node) and not isinstance(node, Leaf):
        context.wrong(
            where,
            "a condition of levels alone never happens",
            "join it with a signal that does: all: [{signal: …}, {not: …}]",
            "PS509",
        )
    return (None if context.problems else node), context.problems


def _node(tree: Json, where: str, context: Context, depth: int) -> Node | None:
    if depth > DEEPEST:
        context.wrong(where, f"conditions nest at most {DEEPEST} deep", "split the rule", "PS508")
        return None
    if not isinstance(tree, dict):
        context.wrong(
            where,
            f"a condition is an object like {{signal: model.trained}}, not {_name(tree)}",
            f"use one of {', '.join(FORMS)}",
        )
        return None
    forms = [form for form in FORMS if form in tree]
    if len(forms) != 1:
        said = f"has {' and '.join(forms)}" if forms else f"has none of {', '.join(FORMS)}"
        near = [hint for key in tree for hint in difflib.get_close_matches(str(key), FORMS, 1)] if not forms else []
        context.wrong(
            where,
            f"a condition has one form, this one {said}",
            f"did you mean {near[0]}?" if near else "write one condition object for each",
        )
        return None
    form = forms[0]
    for key in tree:
        if key != form and key not in BESIDE[form]:
            near = difflib.get_close_matches(str(key), BESIDE[form], 1)
            context.wrong(f"{where}/{_escape(key)}", f'"{key}" does not go with {form}',
                          f"did you mean {near[0]}?" if near else f"{form} takes {', '.join(sorted(BESIDE[form]))}", "PS502")  # fmt: skip
    label = tree.get("label")
    if label is not None and (not isinstance(label, str) or not 0 < len(label) <= 100):
        context.wrong(f"{where}/label", "a label is a text of 1 to 100 characters", code="PS503")
    if form == "signal":
        return _leaf(tree, where, context)
    if form in ("cron", "every", "at"):
        return _tick(form, tree, where, context)
    if form == "not":
        part = _node(tree["not"], f"{where}/not", context, depth + 1)
        if part is not None and not is_level(part):
            context.wrong(f"{where}/not", "only a level can be negated: a signal that has not come may still come",
                          "add sticky: true, or use absent", "PS504")  # fmt: skip
        return Not(part, label) if part is not None else None
    return _group(form, tree, where, context, depth)  # type: ignore[arg-type]


def _leaf(tree: dict[str, Any], where: str, context: Context) -> Leaf | None:
    index = context.number()
    if (why := pattern.problem(tree["signal"])) is not None:
        context.wrong(f"{where}/signal", why, code="PS505")
    for name in ("where", "source", "subject"):
        if name in tree and not isinstance(tree[name], str):
            context.wrong(f"{where}/{name}", f"{name} is a text, not {_name(tree[name])}", code="PS503")
    modes = [mode for mode in ("latest", "changed", "sticky") if tree.get(mode)]
    for mode in ("latest", "changed", "sticky"):
        if mode in tree and not isinstance(tree[mode], bool):
            context.wrong(f"{where}/{mode}", f"{mode} is true or false", code="PS503")
    if len(modes) > 1:
        context.wrong(where, f"{' and '.join(modes)} exclude each other", "keep one", "PS506")
    count = tree.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000:
        context.wrong(f"{where}/count", "count is a whole number from 1 to 10000", code="PS503")
        count = 1
    if count > 1 and modes:
        context.wrong(
            f"{where}/count",
            f"count does not go with {modes[0]}: there is only one match at a time",
            "keep one",
            "PS506",
        )
    leaf = Leaf(index, str(tree["signal"]), tree.get("eq", MISSING), tree.get("where"), tree.get("source"), tree.get("subject"),
                modes[0] if modes else "edge", count, tree.get("label"))  # type: ignore[arg-type]  # fmt: skip
    if "within" in tree:
        length = _length(tree["within"], f"{where}/within", context)
        if count == 1:
            context.wrong(
                f"{where}/within", "within needs several parts", "add count, or put it on all, any or seq", "PS506"
            )
        return Group("all", (leaf,), within=length)  # type: ignore[return-value]
    return leaf


def _group(kind: GroupKind, tree: dict[str, Any], where: str, context: Context, depth: int) -> Group | None:
    name = "of" if kind == "at_least" else kind
    given = tree.get(name)
    if not isinstance(given, list) or not given:
        context.wrong(f"{where}/{name}", f"{name} is a list of at least one condition", code="PS507")
        return None
    if len(given) > MOST_PARTS:
        context.wrong(f"{where}/{name}", f"{name} has at most {MOST_PARTS} parts", "split the rule", "PS508")
        return None
    parts = [_node(part, f"{where}/{name}/{i}", context, depth + 1) for i, part in enumerate(given)]
    need = tree["at_least"] if kind == "at_least" else 0
    if kind == "at_least" and (isinstance(need, bool) or not isinstance(need, int) or not 1 <= need <= len(given)):
        context.wrong(
            f"{where}/at_least", f"at_least is a whole number from 1 to {len(given)}, the number of parts", code="PS503"
        )
    if kind == "seq" and any(part is not None and is_level(part) for part in parts):
        context.wrong(
            f"{where}/seq",
            "a level has no place in a sequence: it does not happen",
            "put it beside the sequence in all",
            "PS506",
        )
    if kind in ("any", "at_least") and len({is_level(part) for part in parts if part is not None}) > 1:
        context.wrong(f"{where}/{name}", f"{name} mixes levels and signals: while the level holds, nothing would be waited for",
                      "join the level by all", "PS506")  # fmt: skip
    within = _length(tree["within"], f"{where}/within", context) if "within" in tree else None
    if context.problems or any(part is None for part in parts):
        return None
    return Group(kind, tuple(part for part in parts if part is not None), need, within, tree.get("label"))


def _tick(form: str, tree: dict[str, Any], where: str, context: Context) -> Tick:
    spec = {key: value for key, value in tree.items() if key != "label"}
    if form == "every" and (length := _length(tree["every"], f"{where}/every", context)) is not None:
        spec["every"] = duration.text(length)
    context.problems.extend(trigger_problems(spec, where))
    return Tick(context.number(), f"tick.{context.operator}", trigger_name(spec), spec, tree.get("label"))


def trigger_name(spec: Json) -> str:
    """A trigger's name follows from what it says, so that one that did not change keeps its last due time through an apply."""
    form = next(key for key in ("cron", "every", "at") if key in spec)
    return f"{form}-{digest(spec)[:8]}"


def trigger_problems(spec: dict[str, Any], where: str) -> list[Problem]:
    """What is wrong with a periodic trigger. The expression itself is tried with APScheduler."""
    from pgsig.condition import schedule  # imports APScheduler: only who declares a trigger pays for it

    return schedule.problems(spec, where)


def _length(value: Json, where: str, context: Context) -> float | None:
    try:
        return duration.seconds(value)
    except ValueError as error:
        context.wrong(where, str(error), code="PS503")
        return None


def dump(node: Node) -> Json:
    """The canonical JSON of a tree: what was not said is left out, durations are in their shortest form."""
    tree: dict[str, Any]
    if isinstance(node, Leaf):
        tree = {"signal": node.pattern}
        if node.eq is not MISSING:
            tree["eq"] = node.eq
        for name in ("where", "source", "subject"):
            if getattr(node, name) is not None:
                tree[name] = getattr(node, name)
        if node.mode != "edge":
            tree[node.mode] = True
        if node.count > 1:
            tree["count"] = node.count
    elif isinstance(node, Tick):
        tree = dict(node.spec)
    elif isinstance(node, Not):
        tree = {"not": dump(node.part)}
    elif len(node.parts) == 1 and isinstance(node.parts[0], Leaf) and node.within is not None and node.kind == "all":
        return {**dump(node.parts[0]), "within": duration.text(node.within)}
    else:
        parts = [dump(part) for part in node.parts]
        tree = {"at_least": node.need, "of": parts} if node.kind == "at_least" else {node.kind: parts}
        if node.within is not None:
            tree["within"] = duration.text(node.within)
    if node.label is not None:
        tree["label"] = node.label
    return tree


def digest(tree: Json) -> str:
    """A name for a JSON value that does not depend on the order of its keys."""
    return hashlib.sha256(
        json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def _name(value: Json) -> str:
    names = {
        type(None): "nothing",
        bool: "true or false",
        str: "a text",
        list: "a list",
        dict: "an object",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)


def _escape(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")
