"""The definitions in force, compiled for matching. Rebuilt when somebody applies a workflow, shared by all batches until then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pgsig.condition import Group, Leaf, Node, Not, Tick, leaves, parse
from pgsig.condition.pattern import PatternIndex
from pgsig.model import Operator, Rule


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRule:
    """A rule with its tree. simple: one edge that fires at each match, so that it keeps no state.

    windows: (leaf numbers, seconds) of each `within`. levels: numbers of its sticky leaves.
    """

    rule: Rule
    operator: Operator
    root: Node
    leaves: tuple[Leaf | Tick, ...]
    simple: bool
    windows: tuple[tuple[frozenset[int], float], ...]
    levels: frozenset[int]
    since_xmax: int
    since_open: frozenset[int]

    def is_older(self, xid: int) -> bool:
        """Whether a transaction was visible when the rule was made: its signals are not for this rule."""
        return xid < self.since_xmax and xid not in self.since_open


@dataclass(slots=True)
class Catalog:
    """Who is interested in which key, by namespace. revisions: of each lane, as they were when this was loaded."""

    operators: dict[int, Operator] = field(default_factory=dict)
    rules: dict[int, CompiledRule] = field(default_factory=dict)
    interest: dict[str, PatternIndex[tuple[CompiledRule, Leaf | Tick]]] = field(default_factory=dict)
    manual: dict[tuple[str, str], Operator] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)
    depth_limit: int = 100


def build(operators: Iterable[Operator], revisions: dict[int, int] | None = None, depth_limit: int = 100) -> Catalog:
    """Compile definitions. A rule whose condition cannot be read (written by a newer pgsig) raises ValueError naming it."""
    catalog = Catalog(revisions=revisions or {}, depth_limit=depth_limit)
    for operator in operators:
        catalog.operators[operator.id] = operator
        catalog.manual[operator.namespace, f"manual.{operator.path}"] = operator
        interest = catalog.interest.setdefault(operator.namespace, PatternIndex())
        for rule in operator.rules:
            compiled = compile_rule(rule, operator)
            catalog.rules[rule.id] = compiled
            for leaf in compiled.leaves:
                interest.add(leaf.pattern, (compiled, leaf))
    return catalog


def compile_rule(rule: Rule, operator: Operator) -> CompiledRule:
    root, problems = parse(rule.condition, operator=operator.path)
    if root is None:
        raise ValueError(f"rule {rule.name} of {operator.path}: " + "; ".join(map(str, problems)))
    found = tuple(leaves(root))
    xmax, running = _snapshot(rule.since)
    return CompiledRule(
        rule, operator, root, found,
        simple=isinstance(root, Tick) or (isinstance(root, Leaf) and root.mode == "edge" and root.count == 1),
        windows=tuple(_windows(root)),
        levels=frozenset(leaf.index for leaf in found if isinstance(leaf, Leaf) and leaf.level),
        since_xmax=xmax, since_open=running,
    )  # fmt: skip


def _windows(node: Node) -> Iterable[tuple[frozenset[int], float]]:
    if isinstance(node, Group):
        if node.within is not None:
            yield frozenset(leaf.index for leaf in leaves(node)), node.within
        for part in node.parts:
            yield from _windows(part)
    elif isinstance(node, Not):
        yield from _windows(node.part)


def _snapshot(text: str | None) -> tuple[int, frozenset[int]]:
    """xmax and the open transactions of a pg_snapshot's text, `xmin:xmax:xip,…`."""
    if not text:
        return 0, frozenset()
    _, xmax, running = text.split(":")
    return int(xmax), frozenset(int(xid) for xid in running.split(",") if xid)
