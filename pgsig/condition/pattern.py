"""Patterns over keys: `*` stands for one segment, a trailing `**` for any number of further ones (also none)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_SEGMENT = re.compile(r"[a-z0-9_:-]+|\*")
MOST_WILDCARDS = 8


def problem(pattern: object) -> str | None:
    """What is wrong with a pattern, or None."""
    if not isinstance(pattern, str) or not pattern:
        return "a signal's key is a text like model.trained"
    if len(pattern.encode()) > 200:
        return "a key has at most 200 bytes"
    segments = pattern.split(".")
    if segments[-1] == "**":
        segments.pop()
        if not segments:
            return '"**" alone matches every signal: begin with a segment, for instance model.**'
    for segment in segments:
        if segment == "**":
            return '"**" stands only at the end; use * for one segment'
        if not _SEGMENT.fullmatch(segment):
            return f'"{pattern}" is not a key: lower-case letters, digits, _ : - in segments joined by dots; * for a whole segment'
    if segments.count("*") > MOST_WILDCARDS:
        return f"a pattern has at most {MOST_WILDCARDS} wildcards"
    if all(segment == "*" for segment in segments):
        return f'"{pattern}" matches every signal of its length: name at least one segment'
    return None


def matches(pattern: str, key: str) -> bool:
    """Whether one key is one of a pattern's."""
    wanted, found = pattern.split("."), key.split(".")
    if wanted[-1] == "**":
        wanted.pop()
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(w in ("*", f) for w, f in zip(wanted, found, strict=True))


class PatternIndex(Generic[T]):
    """Who is interested in a key. The cost of a look-up grows with the segments of the key, not with the number of patterns."""

    def __init__(self, entries: Iterable[tuple[str, T]] = ()) -> None:
        self._exact: dict[str, list[T]] = {}
        self._root: _Node[T] = _Node()
        self._wild = 0  # entries with a wildcard
        for pattern, item in entries:
            self.add(pattern, item)

    def add(self, pattern: str, item: T) -> None:
        if "*" not in pattern:
            self._exact.setdefault(pattern, []).append(item)
            return
        self._wild += 1
        node = self._root
        segments = pattern.split(".")
        for segment in segments[:-1]:
            node = node.next.setdefault(segment, _Node())
        if segments[-1] == "**":
            node.rest.append(item)
        else:
            node.next.setdefault(segments[-1], _Node()).here.append(item)

    def remove(self, pattern: str, item: T) -> None:
        """Take back what was added. Raises ValueError where another item was, KeyError where the pattern was not."""
        if "*" not in pattern:
            self._exact[pattern].remove(item)
            if not self._exact[pattern]:
                del self._exact[pattern]
            return
        segments = pattern.split(".")
        way = [self._root]
        for segment in segments[:-1]:
            way.append(way[-1].next[segment])
        if segments[-1] == "**":
            way[-1].rest.remove(item)
        else:
            way.append(way[-1].next[segments[-1]])
            way[-1].here.remove(item)
        self._wild -= 1
        for number in range(len(way) - 1, 0, -1):
            if way[number].next or way[number].here or way[number].rest:
                break
            del way[number - 1].next[segments[number - 1]]

    def __getitem__(self, key: str) -> list[T]:
        """The items of every pattern that the key matches; exact ones first."""
        found = self._exact.get(key)
        if not self._wild:
            return found or []
        return [*(found or ()), *self._walk(key.split("."))]

    def _walk(self, segments: list[str]) -> Iterator[T]:
        nodes = [self._root]
        for segment in segments:
            below: list[_Node[T]] = []
            for node in nodes:
                yield from node.rest
                below += [after for step in (segment, "*") if (after := node.next.get(step)) is not None]
            nodes = below
            if not nodes:
                return
        for node in nodes:
            yield from node.rest
            yield from node.here


class _Node(Generic[T]):
    __slots__ = ("here", "next", "rest")

    def __init__(self) -> None:
        self.next: dict[str, _Node[T]] = {}
        self.here: list[T] = []
        self.rest: list[T] = []
