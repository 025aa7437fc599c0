"""The definitions in force, compiled for matching. When somebody applies or pauses a workflow, its part is replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pgsig.condition import MISSING, Absent, Debounce, Group, Leaf, Node, Tick, Window, leaves, parse, parts, walk
from pgsig.condition.pattern import PatternIndex
from pgsig.model import Action, Json, Operator, Rule, State

Path = tuple[str, str]  # of a workflow: its namespace and its name


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRule:
    """A rule with its tree. simple: one edge that fires at each match, so that it keeps no state. plain: a simple START by subject, and not
    in shadow. sure: a simple rule that every signal of its key meets. asks: whether Postgres is asked something about its signals.

    spans: (leaf numbers, seconds) of each `within`. windows: (leaf numbers, window) of each calendar window. absents: its absences.
    timed: whether time alone can change what it says. custom: whether a SQL function has a say. given: parameters that its ticks hand to
    runs: (whether the rule never fires without that tick, the source of the tick, the parameters).
    """

    rule: Rule
    operator: Operator
    root: Node
    leaves: tuple[Leaf | Tick, ...]
    simple: bool
    plain: bool
    sure: bool
    asks: bool
    spans: tuple[tuple[frozenset[int], float], ...]
    windows: tuple[tuple[frozenset[int], Window], ...]
    absents: tuple[Absent, ...]
    timed: bool
    custom: bool
    since_xmax: int
    since_open: frozenset[int]
    given: tuple[tuple[bool, str, Json], ...] = ()

    def is_older(self, xid: int) -> bool:
        """Whether a transaction was visible when the rule was made: its signals are not for this rule."""
        return xid < self.since_xmax and xid not in self.since_open


@dataclass(slots=True)
class Catalog:
    """Who is interested in which key, by namespace. timed: (namespace, key) of the timer signals of operators whose rules know time.
    paused: how, by operator, of those that are.

    revisions: of each lane, as they were when this was loaded. custom: whether any rule is. heeds_starts: whether any may ask for the
    signal of a run that is starting, which each run emits at the moment in which its job should begin.
    """

    operators: dict[int, Operator] = field(default_factory=dict)
    rules: dict[int, CompiledRule] = field(default_factory=dict)
    interest: dict[str, PatternIndex[tuple[CompiledRule, Leaf | Tick]]] = field(default_factory=dict)
    manual: dict[tuple[str, str], Operator] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)
    depth_limit: int = 100
    timed: set[tuple[str, str]] = field(default_factory=set)
    paused: dict[int, str] = field(default_factory=dict)
    of_workflow: dict[Path, list[Operator]] = field(default_factory=dict)
    _custom: set[int] = field(default_factory=set)
    _heeding: set[int] = field(default_factory=set)

    @property
    def custom(self) -> bool:
        return bool(self._custom)

    @property
    def heeds_starts(self) -> bool:
        return bool(self._heeding)

    def add(self, operator: Operator) -> None:
        """Compile its rules. One whose condition cannot be read (written by a newer pgsig) raises ValueError naming it."""
        self.operators[operator.id] = operator
        self.of_workflow.setdefault((operator.namespace, operator.workflow), []).append(operator)
        self.manual[operator.namespace, f"manual.{operator.path}"] = operator
        if operator.paused:
            self.paused[operator.id] = operator.paused
        interest = self.interest.setdefault(operator.namespace, PatternIndex())
        for rule in operator.rules:
            compiled = compile_rule(rule, operator)
            self.rules[rule.id] = compiled
            if compiled.custom:
                self._custom.add(rule.id)
            if compiled.timed:
                self.timed.add((operator.namespace, f"timer.{operator.path}"))
            for leaf in compiled.leaves:
                interest.add(leaf.pattern, (compiled, leaf))
                if _may_be_a_start(leaf.pattern):
                    self._heeding.add(rule.id)

    def replace(self, workflows: Iterable[Path], operators: Iterable[Operator]) -> None:
        """Workflows changed: these are their operators now. It takes as long as these have rules, however many others there are. Where it
        raises, as `add` does, the catalog is of no use any more."""
        for path in workflows:
            for operator in self.of_workflow.pop(path, ()):
                self._remove(operator)
        for operator in operators:
            self.add(operator)

    def _remove(self, operator: Operator) -> None:
        del self.operators[operator.id], self.manual[operator.namespace, f"manual.{operator.path}"]
        self.paused.pop(operator.id, None)
        self.timed.discard((operator.namespace, f"timer.{operator.path}"))
        interest = self.interest[operator.namespace]
        for rule in operator.rules:
            compiled = self.rules.pop(rule.id)
            for leaf in compiled.leaves:
                interest.remove(leaf.pattern, (compiled, leaf))
            self._custom.discard(rule.id)
            self._heeding.discard(rule.id)

    def expected(self, namespace: str, key: str) -> list[Operator]:
        """The operators that each signal of a key leads to an order for, at its subject; none where it may lead to others or to nothing."""
        if namespace not in self.interest or (namespace, key) in self.manual or (namespace, key) in self.timed:
            return []
        found: dict[int, Operator] = {}
        for rule, leaf in self.interest[namespace][key]:
            anybody = isinstance(leaf, Leaf) and leaf.source is None and leaf.subject is None
            if not (anybody and rule.sure and rule.rule.by == "subject" and not rule.rule.shadow):
                return []
            found[rule.operator.id] = rule.operator
        return [found[number] for number in sorted(found)]


def build(operators: Iterable[Operator], *, depth_limit: int = 100) -> Catalog:
    """Compile definitions. Raises ValueError as `Catalog.add` does."""
    catalog = Catalog(depth_limit=depth_limit)
    for operator in operators:
        catalog.add(operator)
    return catalog


def _may_be_a_start(pattern: str) -> bool:
    segments = pattern.split(".")
    return segments[0] in ("run", "*", "**") and segments[-1] in (State.STARTING, "*", "**")


def compile_rule(rule: Rule, operator: Operator) -> CompiledRule:
    root, problems = parse(rule.condition, operator=operator.path)
    if root is None:
        raise ValueError(f"rule {rule.name} of {operator.path}: " + "; ".join(map(str, problems)))
    nodes = tuple(walk(root))
    xmax, running = _snapshot(rule.since)
    spans = tuple((_numbers(n), n.within) for n in nodes if isinstance(n, Group) and n.within is not None)
    windows = tuple((_numbers(n), n) for n in nodes if isinstance(n, Window))
    absents = tuple(n for n in nodes if isinstance(n, Absent))
    debounced = any(isinstance(n, Debounce) for n in nodes)
    listed = [n for n in nodes if isinstance(n, Leaf)]
    simple = is_simple(root) and rule.most is None
    asks = rule.by not in ("subject", "none") or any(n.where is not None or n.path is not None for n in listed)
    return CompiledRule(
        rule,
        operator,
        root,
        tuple(leaves(root)),
        simple=simple,
        plain=simple and rule.by == "subject" and rule.action is Action.START and not rule.shadow,
        sure=simple and not asks and all(n.eq is MISSING for n in listed),
        asks=asks,
        spans=spans,
        windows=windows,
        absents=absents,
        timed=bool(spans or windows or absents or debounced),
        custom=any(n.met_by for n in listed),
        since_xmax=xmax,
        since_open=running,
        given=tuple(_given(root, True)),
    )


def _given(node: Node, always: bool) -> Iterator[tuple[bool, str, Json]]:
    """The ticks below a node that hand parameters over. always: the rule does not fire without this node."""
    if isinstance(node, Tick) and "params" in node.spec:
        yield always, f"trigger:{node.name}", node.spec["params"]
    for part in parts(node):
        yield from _given(part, always and not (isinstance(node, Group) and node.kind in ("any", "at_least")))


def is_simple(root: Node) -> bool:
    """Whether a condition is one edge that fires at each match."""
    if isinstance(root, Leaf):
        return root.mode == "edge" and root.count == 1 and root.total is None and root.met_by is None
    return isinstance(root, Tick)


def _numbers(node: Node) -> frozenset[int]:
    return frozenset(leaf.index for leaf in leaves(node))


def _snapshot(text: str | None) -> tuple[int, frozenset[int]]:
    """xmax and the open transactions of a pg_snapshot's text, `xmin:xmax:xip,…`."""
    if not text:
        return 0, frozenset()
    _, xmax, running = text.split(":")
    return int(xmax), frozenset(int(xid) for xid in running.split(",") if xid)
