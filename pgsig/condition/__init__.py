"""Conditions: their form (`tree`), how they are written (`parse`), the keys they name (`pattern`), when triggers are due
(`schedule`).

Nothing in this folder reads a clock, a file or a database.
"""

from pgsig.condition.parse import digest, dump, parse
from pgsig.condition.tree import MISSING, Group, Leaf, Node, Not, Tick, is_level, leaves

__all__ = ["MISSING", "Group", "Leaf", "Node", "Not", "Tick", "digest", "dump", "is_level", "leaves", "parse"]
