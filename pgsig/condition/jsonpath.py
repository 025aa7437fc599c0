"""SQL/JSON paths without a database: what Postgres would say of a value, for the commonly used part of the language.

The part: lax mode, `$`, `@` in filters, members also quoted, `.*`, subscripts, filters, comparisons, `&&`, `||`, `!`, `exists`,
`is unknown`, `starts with`, `like_regex` with simple patterns, arithmetic, the methods in `METHODS`. The rest raises PgsigError PS570.
Tests compare it with Postgres; workers always ask Postgres.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from math import isfinite
from typing import Any

from pgsig.condition import jsonpath_tree as tree
from pgsig.condition.jsonpath_parse import parse_path
from pgsig.condition.jsonpath_regex import regex
from pgsig.condition.jsonpath_tree import Node, Step, Unsupported
from pgsig.condition.numeric import Number
from pgsig.errors import PgsigError

Truth = bool | None  # None: unknown
_FLOAT = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


class _Fails(Exception):
    """What Postgres calls an error of evaluation: it makes a predicate unknown and ends a path."""


def holds(path: str, value: str) -> bool | None:
    """Whether a predicate holds for a value's JSON text, as `jsonb_path_match(…, silent => true)` says: true, false or null.

    Raises PgsigError PS570 where the path is beyond the part that is understood here, ValueError where the value is not JSON.
    """
    found = []
    try:
        for item in _Evaluation(value).items(_compiled(path)):
            found.append(item)  # noqa: PERF402 - what came before an error counts
    except _Fails:
        pass
    except Unsupported as error:
        raise _refused(error) from error
    return found[0] if len(found) == 1 and isinstance(found[0], bool) else None


def text_at(path: str, value: str) -> str | None:
    """The first thing that a path selects of a value's JSON text, as text; None where there is nothing, or null. Raises as `holds`."""
    try:
        for item in _Evaluation(value).items(_compiled(path)):
            return item if isinstance(item, str) else None if item is None else _written(item)
    except _Fails:
        pass
    except Unsupported as error:
        raise _refused(error) from error
    return None


def check(path: str) -> None:
    """Raise PgsigError PS570 where a path is beyond what is understood here."""
    try:
        _compiled(path)
    except Unsupported as error:
        raise _refused(error) from error


def _refused(error: Unsupported) -> PgsigError:
    return PgsigError(
        f'the path "{error.path}" has a part that only Postgres can evaluate: {error.part}',
        code="PS570",
        where="path",
        fix="ask a database: WorkflowTest(…, database=URL), or --database-url",
    )


@lru_cache(maxsize=1000)
def _compiled(path: str) -> Node:
    return parse_path(path)


class _Evaluation:
    """One path over one value. here: what `@` is. last: what `last` is."""

    def __init__(self, value: str) -> None:
        self.root = self.here = json.loads(value, parse_float=Number.read, parse_int=Number.read)
        self.last: int | None = None

    def items(self, node: Node) -> Iterator[Any]:
        if isinstance(node, tree.Const):
            yield node.value
        elif isinstance(node, tree.Root):
            yield self.root
        elif isinstance(node, tree.Here):
            yield self.here
        elif isinstance(node, tree.Last):
            if self.last is None:
                raise Unsupported("last", "last outside of a subscript")
            yield Number(self.last)
        elif isinstance(node, tree.Access):
            for item in self.items(node.base):
                yield from self.walk(item, node.steps)
        elif isinstance(node, tree.Sum):
            yield self.computed(node)
        elif isinstance(node, tree.Signed):
            for item in self.flat(node.part):
                yield self.signed(node.sign, item)
        else:
            yield self.test(node)

    def flat(self, node: Node) -> list[Any]:
        """What an operand selects; in lax mode arrays stand for what is in them."""
        found: list[Any] = []
        for item in self.items(node):
            if isinstance(item, list):
                found += item
            else:
                found.append(item)
        return found

    # ── accessors ──

    def walk(self, item: Any, steps: tuple[Step, ...], unwrap: bool = True) -> Iterator[Any]:
        if not steps:
            yield item
            return
        step, rest = steps[0], steps[1:]
        looks_inside = step.kind in ("key", "keys", "filter") or (
            step.kind == "method" and step.name not in ("type", "size")
        )
        if looks_inside and unwrap and isinstance(item, list):
            for inner in item:
                yield from self.walk(inner, steps, unwrap=False)
            return
        for found in self.taken(step, item):
            yield from self.walk(found, rest)

    def taken(self, step: Step, item: Any) -> Iterator[Any]:
        if step.kind == "key":
            if isinstance(item, dict) and step.name in item:
                yield item[step.name]
        elif step.kind == "keys":
            if isinstance(item, dict):
                yield from (item[key] for key in sorted(item, key=_place))
        elif step.kind == "items":
            yield from item if isinstance(item, list) else [item]
        elif step.kind == "index":
            yield from self.indexed(step, item if isinstance(item, list) else [item])
        elif step.kind == "method":
            yield _method(step.name, item)
        elif step.filter is not None:
            before, self.here = self.here, item
            try:
                ok = self.test(step.filter)
            finally:
                self.here = before
            if ok:
                yield item

    def indexed(self, step: Step, items: list[Any]) -> Iterator[Any]:
        for begin, end in step.spans:
            before, self.last = self.last, len(items) - 1
            try:
                first = self.index(begin)
                final = first if end is None else self.index(end)
            finally:
                self.last = before
            yield from items[max(first, 0) : max(final + 1, 0)]

    def index(self, node: Node) -> int:
        found = list(self.items(node))
        if len(found) != 1 or not isinstance(found[0], Number):
            raise _Fails
        if not -(2**31) <= (number := found[0].trunc()) < 2**31:
            raise _Fails
        return number

    # ── arithmetic ──

    def computed(self, node: tree.Sum) -> Number:
        left, right = self.flat(node.left), self.flat(node.right)
        if (
            len(left) != 1
            or len(right) != 1
            or not isinstance(a := left[0], Number)
            or not isinstance(b := right[0], Number)
        ):
            raise _Fails
        try:
            if node.sign == "+":
                return a + b
            if node.sign == "-":
                return a - b
            if node.sign == "*":
                return a * b
            return a / b if node.sign == "/" else a % b
        except ZeroDivisionError as error:
            raise _Fails from error

    def signed(self, sign: str, item: Any) -> Number:
        if not isinstance(item, Number):
            raise _Fails
        return -item if sign == "-" else item

    # ── predicates ──

    def test(self, node: Node) -> Truth:
        if not isinstance(node, tree.Test):
            raise TypeError(node)
        if node.kind == "!":
            truth = self.test(node.left)
            return None if truth is None else not truth
        if node.kind == "unknown":
            return self.test(node.left) is None
        if node.kind == "exists":
            return self.exists(node.left)
        if node.kind in ("&&", "||") and node.right is not None:
            decides = node.kind == "||"
            left = self.test(node.left)
            if left is decides:
                return decides
            right = self.test(node.right)
            return right if right is decides or left is not None else None
        return self.compared(node)

    def exists(self, node: Node) -> Truth:
        try:
            # Postgres looks for the first thing only, and passes over what has no sign.
            if isinstance(node, tree.Signed):
                return any(isinstance(item, Number) for item in self.flat(node.part))
            return any(True for _ in self.items(node))
        except _Fails:
            return None

    def compared(self, node: tree.Test) -> Truth:
        if node.right is None:
            raise TypeError(node)
        try:
            left, right = self.flat(node.left), self.flat(node.right)
        except _Fails:
            return None
        truths = [_compare(node, a, b) for a in left for b in right]
        return True if True in truths else None if None in truths else False


def _compare(node: tree.Test, a: Any, b: Any) -> Truth:
    if node.kind in ("starts", "like"):
        if not isinstance(a, str):
            return None
        return a.startswith(b) if node.kind == "starts" else regex(b, node.flags).search(a) is not None
    if isinstance(a, Number) and isinstance(b, Number):
        order = a.cmp(b)
    elif type(a) is not type(b):
        return node.kind == "!=" if a is None or b is None else None
    elif a is None or isinstance(a, bool | str):
        order = 0 if a is None else (a > b) - (a < b)
    else:
        return None
    return {"==": order == 0, "!=": order != 0, "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[
        node.kind
    ]


def _method(name: str, item: Any) -> Any:
    if name == "type":
        kinds = {Number: "number", str: "string", bool: "boolean", list: "array", dict: "object", type(None): "null"}
        return kinds[type(item)]
    if name == "size":
        return Number(len(item) if isinstance(item, list) else 1)
    if name == "double":
        return _double(item)
    if not isinstance(item, Number):
        raise _Fails
    if name == "abs":
        return abs(item)
    return item.floor() if name == "floor" else item.ceiling()


def _double(item: Any) -> Number:
    if not isinstance(item, Number | str) or (isinstance(item, str) and not _FLOAT.fullmatch(item)):
        raise _Fails
    number = float(str(item))
    if not isfinite(number):
        raise _Fails
    return item if isinstance(item, Number) else Number.read(f"{number:.15g}")


def _written(item: Any) -> str:
    """A value as the text of a jsonb."""
    if isinstance(item, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(item[key])}" for key in sorted(item, key=_place)) + "}"
    if isinstance(item, list):
        return "[" + ", ".join(map(_written, item)) + "]"
    return str(item) if isinstance(item, Number) else json.dumps(item, ensure_ascii=False)


def _place(key: str) -> tuple[int, bytes]:
    """Where a jsonb keeps a key: shorter ones first."""
    raw = key.encode()
    return len(raw), raw
