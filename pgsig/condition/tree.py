"""A condition as a tree of frozen nodes. `parse` makes it from canonical JSON, `dump` writes it back; nothing here knows time or rows.

Leaves are numbered in reading order: a rule's state refers to them by that number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pgsig.model import Json

Mode = Literal["edge", "latest", "changed", "sticky"]
GroupKind = Literal["all", "any", "seq", "at_least"]


class _Missing:
    """Stands for "no `eq` given": `None` is a value that a signal may have."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()


@dataclass(frozen=True, slots=True)
class Leaf:
    """Signals of one pattern that satisfy every filter.

    mode: edge (each match counts, oldest first), latest (only the newest match, older ones are superseded), changed (an edge when the
    value differs from the last one), sticky (a level: the last match's truth, never consumed). count: matches that it takes.
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

    @property
    def level(self) -> bool:
        return self.mode == "sticky"


@dataclass(frozen=True, slots=True)
class Tick:
    """A trigger of the operator's own. It matches the tick signals that the trigger `name` emits; `spec` is for the clock."""

    index: int
    pattern: str
    name: str
    spec: Json
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """all: every part. any: the part that was true first. seq: every part, each after the one before. at_least: `need` of the parts."""

    kind: GroupKind
    parts: tuple[Node, ...]
    need: int = 0
    within: float | None = None
    label: str | None = None

    @property
    def level(self) -> bool:
        return all(part.level for part in self.parts if not isinstance(part, Tick)) and not any(
            isinstance(p, Tick) for p in self.parts
        )


@dataclass(frozen=True, slots=True)
class Not:
    """True while a level is not."""

    part: Node
    label: str | None = None

    @property
    def level(self) -> bool:
        return True


Node = Leaf | Tick | Group | Not


def leaves(node: Node) -> Iterator[Leaf | Tick]:
    """The leaves of a tree, in reading order."""
    if isinstance(node, Leaf | Tick):
        yield node
    elif isinstance(node, Not):
        yield from leaves(node.part)
    else:
        for part in node.parts:
            yield from leaves(part)


def is_level(node: Node) -> bool:
    """Whether a node is made of levels alone: it is true for a while, instead of happening."""
    return False if isinstance(node, Tick) else node.level
