"""SQL/JSON paths as frozen nodes: what `jsonpath_parse` makes and `jsonpath` evaluates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pgsig.condition.numeric import Number

Scalar = Number | str | bool | None


class Unsupported(ValueError):
    """A path has a part that is read by Postgres alone, or by nobody. part: what it is."""

    def __init__(self, path: str, part: str) -> None:
        super().__init__(f'"{path}": {part}')
        self.path, self.part = path, part


@dataclass(frozen=True, slots=True)
class Const:
    value: Scalar


@dataclass(frozen=True, slots=True)
class Root:
    """`$`, the whole value."""


@dataclass(frozen=True, slots=True)
class Here:
    """`@`, what a filter looks at."""


@dataclass(frozen=True, slots=True)
class Last:
    """`last`, the last index of the array around it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One accessor. kind: key, keys (.*), items ([*]), index, filter, method."""

    kind: Literal["key", "keys", "items", "index", "filter", "method"]
    name: str = ""
    spans: tuple[tuple[Node, Node | None], ...] = ()
    filter: Node | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """A base, and accessors after it."""

    base: Node
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """Arithmetic of two: + - * / %."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Signed:
    sign: str
    part: Node


@dataclass(frozen=True, slots=True)
class Test:
    """What is true, false or unknown. kind: a comparison, &&, ||, !, exists, starts, like, unknown."""

    kind: str
    left: Node
    right: Node | None = None
    flags: str = ""


Node = Const | Root | Here | Last | Access | Sum | Signed | Test
