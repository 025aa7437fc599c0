"""A condition as a tree of frozen nodes. `parse` makes it from canonical JSON, `dump` writes it back; nothing here knows time or rows.

Leaves are numbered in reading order: a rule's state refers to them by that number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pgsig.model import Json

Mode = Literal["edge", "latest", "changed", "sticky", "watch", "arm"]
GroupKind = Literal["all", "any", "seq", "at_least"]


class _Missing:
    """Stands for "no `eq` given": `None` is a value that a signal may have."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()


@dataclass(frozen=True, slots=True)
class Leaf:
    """Signals of one pattern that satisfy every filter.

    mode: edge (each match counts, oldest first), latest (only the newest match, older ones are superseded), changed (an edge when
    the value differs from the last one), sticky (a level: the last match's truth, never consumed); watch and arm are the two ends
    of an `Absent`. count: matches that it takes, with different values at `distinct` where that is given. total: (path, number that
    the sum of the values there has to reach). met_by: a SQL function (signal jsonb, state jsonb) → (state jsonb, met boolean) that
    says which matches count, with a state of its own.
    """

    index: int
    pattern: str
    eq: Json = MISSING
    where: str | None = None
    source: str | None = None
    subject: str | None = None
    mode: Mode = "edge"
    count: int = 1
    label: str | None = None
    distinct: str | None = None
    total: tuple[str, float] | None = None
    met_by: str | None = None

    @property
    def path(self) -> str | None:
        """The SQL/JSON path of what it counts or adds up, if any."""
        return self.total[0] if self.total else self.distinct


@dataclass(frozen=True, slots=True)
class Tick:
    """A trigger of the operator's own. It matches the tick signals that the trigger `name` emits; `spec` is for the clock."""

    index: int
    pattern: str
    name: str
    spec: Json
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """Armed by a match of `after`, true when `length` seconds pass without a match of `watch`. Without `after` the first match of
    `watch` arms it, and it is true again after each further `length` of silence."""

    watch: Leaf
    after: Leaf | None
    length: float
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """all: every part. any: the part that was true first. seq: every part, each after the one before. at_least: `need` of them.

    within: seconds in which all its signals have to lie.
    """

    kind: GroupKind
    parts: tuple[Node, ...]
    need: int = 0
    within: float | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Not:
    """True while a level is not."""

    part: Node
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Debounce:
    """True once its part is and nothing came for `quiet` seconds, or `most` seconds after the first; takes all that came."""

    part: Node
    quiet: float
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """True when its part is by signals of one calendar window. length: seconds that divide a day, a day, or a week. lateness:
    seconds after its end in which a window still takes signals; what is left of it then expires."""

    part: Node
    length: float
    zone: str = "UTC"
    lateness: float = 0.0


Node = Leaf | Tick | Absent | Group | Not | Debounce | Window


def parts(node: Node) -> tuple[Node, ...]:
    """The nodes directly below."""
    if isinstance(node, Group):
        return node.parts
    if isinstance(node, Not | Debounce | Window):
        return (node.part,)
    if isinstance(node, Absent):
        return (node.watch, node.after) if node.after else (node.watch,)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """A node and everything below it, in reading order."""
    yield node
    for part in parts(node):
        yield from walk(part)


def leaves(node: Node) -> Iterator[Leaf | Tick]:
    """The leaves of a tree, in reading order."""
    return (found for found in walk(node) if isinstance(found, Leaf | Tick))


def is_level(node: Node) -> bool:
    """Whether a node is made of levels alone: it is true for a while, instead of happening."""
    if isinstance(node, Leaf):
        return node.mode == "sticky"
    if isinstance(node, Group):
        return all(is_level(part) for part in node.parts)
    return isinstance(node, Not)
