"""Conditions: their form (`tree`), how they are written (`parse`), the keys they name (`pattern`), when triggers are due
(`schedule`).

Nothing in this folder reads a clock, a file or a database.
"""

from pgsig.condition.dump import digest, dump
from pgsig.condition.parse import parse
from pgsig.condition.tree import (
    MISSING,
    Absent,
    Debounce,
    Group,
    Leaf,
    Node,
    Not,
    Tick,
    Window,
    is_level,
    leaves,
    parts,
    walk,
)

__all__ = [
    "MISSING",
    "Absent",
    "Debounce",
    "Group",
    "Leaf",
    "Node",
    "Not",
    "Tick",
    "Window",
    "digest",
    "dump",
    "is_level",
    "leaves",
    "parse",
    "parts",
    "walk",
]
