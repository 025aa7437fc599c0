"""Canonical JSON to a condition tree. Finds every mistake at once and names its place as a JSON pointer."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any

from pgsig.condition import calendar, duration, pattern
from pgsig.condition.dump import digest
from pgsig.condition.tree import (
    MISSING,
    Absent,
    Debounce,
    Group,
    GroupKind,
    Leaf,
    Mode,
    Node,
    Not,
    Tick,
    Window,
    is_level,
    leaves,
)
from pgsig.errors import Problem
from pgsig.model import Json

FORMS = (
    "signal",
    "all",
    "any",
    "seq",
    "at_least",
    "not",
    "absent",
    "cron",
    "every",
    "calendar",
    "at",
    "times",
    "trigger",
)
TICKS = ("cron", "every", "calendar", "at", "times", "trigger")
OF_A_TICK = frozenset({"tz", "begin", "end", "jitter", "missed", "params", "label"})
TIMED = frozenset({"debounce", "max_wait", "window", "tz", "lateness"})
BESIDE: dict[str, frozenset[str]] = {
    "signal": frozenset(
        {
            "eq",
            "where",
            "source",
            "subject",
            "latest",
            "changed",
            "sticky",
            "count",
            "distinct",
            "sum",
            "met_by",
            "within",
            "label",
        }
    )
    | TIMED,
    "all": frozenset({"within", "label"}) | TIMED,
    "any": frozenset({"within", "label"}) | TIMED,
    "seq": frozenset({"within", "label"}) | TIMED,
    "at_least": frozenset({"of", "within", "label"}) | TIMED,
    "not": frozenset({"label"}),
    "absent": frozenset({"for", "after", "label"}),
    "cron": OF_A_TICK,
    "every": OF_A_TICK | {"anchor"},
    "calendar": OF_A_TICK | {"anchor", "time"},
    "at": frozenset({"tz", "missed", "params", "label"}),
    "times": OF_A_TICK | {"of"},
    "trigger": OF_A_TICK,
}
DEEPEST = 32
MOST_PARTS = 100
FUNCTION = re.compile(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*")
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
        key = tree if isinstance(tree, str) and re.fullmatch(r"[A-Za-z0-9_.*-]{1,200}", tree) else None
        context.wrong(
            where,
            f"a condition is an object like {{signal: model.trained}}, not {_name(tree)}",
            f"write {{signal: {key}}}" if key else f"use one of {', '.join(FORMS)}",
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
    node: Node | None
    if form == "signal":
        node = _signal(tree, where, context)
    elif form == "absent":
        return _absent(tree, where, context)
    elif form in TICKS:
        return _tick(form, tree, where, context)
    elif form == "not":
        return _not(tree, where, context, depth)
    else:
        node = _group(form, tree, where, context, depth)  # type: ignore[arg-type]
    return _timed(node, tree, where, context) if node is not None else None


def _signal(tree: dict[str, Any], where: str, context: Context) -> Node:
    index = context.number()
    key = _pattern(tree["signal"], f"{where}/signal", context)
    for name in ("where", "source", "subject", "distinct"):
        if name in tree and not isinstance(tree[name], str):
            context.wrong(f"{where}/{name}", f"{name} is a text, not {_name(tree[name])}", code="PS503")
    mode = _mode(tree, where, context)
    count, total = _count(tree, where, context), _total(tree, where, context)
    several = count > 1 or total is not None
    met_by = tree.get("met_by")
    if met_by is not None and (not isinstance(met_by, str) or not FUNCTION.fullmatch(met_by)):
        context.wrong(
            f"{where}/met_by", "met_by names a SQL function with its schema", "for instance ops.is_met", "PS503"
        )
    if met_by is not None and mode in ("sticky", "latest"):
        context.wrong(f"{where}/met_by", f"met_by does not go with {mode}", "keep one", "PS506")
    if several and mode != "edge":
        one = "count" if count > 1 else "sum"
        context.wrong(
            f"{where}/{one}", f"{one} does not go with {mode}: there is one match at a time", "keep one", "PS506"
        )
    if count > 1 and total is not None:
        context.wrong(
            f"{where}/sum", "count and sum exclude each other", "keep one, or join two conditions by all", "PS506"
        )
    if "distinct" in tree and count == 1:
        context.wrong(f"{where}/distinct", "distinct says what count counts", "add count: 2 or more", "PS506")
    leaf = Leaf(
        index, key, tree.get("eq", MISSING), tree.get("where"), tree.get("source"), tree.get("subject"), mode, count,
        tree.get("label"), tree.get("distinct"), total, met_by,
    )  # fmt: skip
    if "within" not in tree:
        return leaf
    if not several:
        context.wrong(
            f"{where}/within", "within needs several parts", "add count, or put it on all, any or seq", "PS506"
        )
    return Group("all", (leaf,), within=_length(tree["within"], f"{where}/within", context))


def _mode(tree: dict[str, Any], where: str, context: Context) -> Mode:
    said: list[Mode] = []
    modes: tuple[Mode, ...] = ("latest", "changed", "sticky")
    for mode in modes:
        if mode in tree and not isinstance(tree[mode], bool):
            context.wrong(f"{where}/{mode}", f"{mode} is true or false", code="PS503")
        elif tree.get(mode):
            said.append(mode)
    if len(said) > 1:
        context.wrong(where, f"{' and '.join(said)} exclude each other", "keep one", "PS506")
    return said[0] if said else "edge"


def _count(tree: dict[str, Any], where: str, context: Context) -> int:
    count = tree.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000:
        context.wrong(f"{where}/count", "count is a whole number from 1 to 10000", code="PS503")
        return 1
    return count


def _total(tree: dict[str, Any], where: str, context: Context) -> tuple[str, float] | None:
    if "sum" not in tree:
        return None
    given = tree["sum"]
    reaches = given.get("reaches") if isinstance(given, dict) else None
    if (
        not isinstance(given, dict) or set(given) != {"of", "reaches"} or not isinstance(given["of"], str)
        or isinstance(reaches, bool) or not isinstance(reaches, int | float) or reaches <= 0
    ):  # fmt: skip
        context.wrong(
            f"{where}/sum",
            "sum says what is added up and the number it has to reach",
            'for instance {of: "$.rows", reaches: 100}',
            "PS503",
        )
        return None
    return given["of"], float(reaches)


def _absent(tree: dict[str, Any], where: str, context: Context) -> Absent:
    watch = Leaf(context.number(), _pattern(tree["absent"], f"{where}/absent", context), mode="watch")
    after = (
        Leaf(context.number(), _pattern(tree["after"], f"{where}/after", context), mode="arm")
        if "after" in tree
        else None
    )
    if "for" not in tree:
        context.wrong(where, "absent says for how long nothing came", "add for: 5m", "PS507")
    length = _length(tree["for"], f"{where}/for", context) if "for" in tree else None
    return Absent(watch, after, length or 1.0, tree.get("label"))


def _not(tree: dict[str, Any], where: str, context: Context, depth: int) -> Not | None:
    part = _node(tree["not"], f"{where}/not", context, depth + 1)
    if part is None:
        return None
    if not is_level(part):
        context.wrong(
            f"{where}/not",
            "only a level can be negated: a signal that has not come may still come",
            "add sticky: true, or use absent",
            "PS504",
        )
    return Not(part, tree.get("label"))


def _group(kind: GroupKind, tree: dict[str, Any], where: str, context: Context, depth: int) -> Group | None:
    name = "of" if kind == "at_least" else kind
    given = tree.get(name)
    if not isinstance(given, list) or not given:
        context.wrong(f"{where}/{name}", f"{name} is a list of at least one condition", code="PS507")
        return None
    if len(given) > MOST_PARTS:
        context.wrong(f"{where}/{name}", f"{name} has at most {MOST_PARTS} parts", "split the rule", "PS508")
        return None
    read = [_node(part, f"{where}/{name}/{i}", context, depth + 1) for i, part in enumerate(given)]
    found = tuple(part for part in read if part is not None)
    need = tree["at_least"] if kind == "at_least" else 0
    if kind == "at_least" and (isinstance(need, bool) or not isinstance(need, int) or not 1 <= need <= len(given)):
        context.wrong(
            f"{where}/at_least", f"at_least is a whole number from 1 to {len(given)}, the number of parts", code="PS503"
        )
    if kind == "seq" and any(is_level(part) for part in found):
        context.wrong(
            f"{where}/seq",
            "a level has no place in a sequence: it does not happen",
            "put it beside the sequence in all",
            "PS506",
        )
    if kind in ("any", "at_least") and len({is_level(part) for part in found}) > 1:
        context.wrong(
            f"{where}/{name}",
            f"{name} mixes levels and signals: while the level holds, nothing would be waited for",
            "join the level by all",
            "PS506",
        )
    within = _length(tree["within"], f"{where}/within", context) if "within" in tree else None
    return Group(kind, found, need, within, tree.get("label")) if len(found) == len(given) else None


def _timed(node: Node, tree: dict[str, Any], where: str, context: Context) -> Node:
    """Wrap a node into the window and the debounce that were said beside it."""
    for key, needed in (("max_wait", "debounce"), ("tz", "window"), ("lateness", "window")):
        if key in tree and needed not in tree:
            context.wrong(f"{where}/{key}", f"{key} goes with {needed}", f"add {needed}, or leave {key} out", "PS502")
    for key in ("window", "debounce"):
        if key in tree and any(
            isinstance(leaf, Leaf) and leaf.mode in ("sticky", "watch", "arm") for leaf in leaves(node)
        ):
            context.wrong(
                f"{where}/{key}",
                f"{key} is for signals that happen, not for levels or absence",
                "put the level beside it in all",
                "PS506",
            )
    if "window" in tree:
        length = _length(tree["window"], f"{where}/window", context) or 86400.0
        late = _length(tree["lateness"], f"{where}/lateness", context) if "lateness" in tree else 0.0
        zone = tree.get("tz", "UTC")
        for part, why in calendar.problems(length, zone):
            context.wrong(f"{where}/{part}", why, code="PS511" if part == "tz" else "PS503")
        node = Window(node, length, str(zone), late or 0.0)
    if "debounce" in tree:
        quiet = _length(tree["debounce"], f"{where}/debounce", context) or 1.0
        most = _length(tree["max_wait"], f"{where}/max_wait", context) if "max_wait" in tree else None
        if most is not None and most < quiet:
            context.wrong(f"{where}/max_wait", "max_wait is not shorter than debounce", "give it more time", "PS503")
        node = Debounce(node, quiet, most)
    return node


def _tick(form: str, tree: dict[str, Any], where: str, context: Context) -> Tick:
    spec = {key: value for key, value in tree.items() if key != "label"}
    length = _length(tree["every"], f"{where}/every", context) if form == "every" else None
    if length is not None:
        spec["every"] = duration.text(length)
    if length is not None or form != "every":
        context.problems.extend(trigger_problems(spec, where))
    if "jitter" in spec and not context.problems:
        spec["jitter"] = duration.text(duration.seconds(spec["jitter"]))
    # What is the default anyway is left out: it does not make another trigger.
    spec = {key: value for key, value in spec.items() if (key, value) not in (("missed", "latest"), ("params", {}))}
    return Tick(context.number(), f"tick.{context.operator}", trigger_name(spec), spec, tree.get("label"))


def trigger_name(spec: Json) -> str:
    """A trigger's name follows from what it says, so that one that did not change keeps its last due time through an apply."""
    form = next(key for key in TICKS if key in spec)
    return f"{form}-{digest(spec)[:8]}"


def trigger_problems(spec: dict[str, Any], where: str) -> list[Problem]:
    """What is wrong with a periodic trigger. The expression itself is tried with APScheduler."""
    from pgsig.condition import schedule  # imports APScheduler: only who declares a trigger pays for it

    return schedule.problems(spec, where)


def _pattern(key: Json, where: str, context: Context) -> str:
    if (why := pattern.problem(key)) is not None:
        context.wrong(where, why, code="PS505")
    return str(key)


def _length(value: Json, where: str, context: Context) -> float | None:
    try:
        return duration.seconds(value)
    except ValueError as error:
        context.wrong(where, str(error), code="PS503")
        return None


NAMES = {
    type(None): "nothing",
    bool: "true or false",
    str: "a text",
    list: "a list",
    dict: "an object",
    int: "a number",
    float: "a number",
}


def _name(value: Json) -> str:
    return NAMES.get(type(value), type(value).__name__)


def _escape(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")
