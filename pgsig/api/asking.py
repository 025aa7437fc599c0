"""Query parameters: checked by name and type, all problems at once; and opaque cursors for lists."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Request

from pgsig.api.body import printable, text_problem
from pgsig.api.problems import Refusal
from pgsig.errors import Problem
from pgsig.store.reading import Direction, Page, Place

MOST = 500  # rows of a page: a larger `limit` is taken as this one
USUAL = 100
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_CURSOR = re.compile(r"p1:([0-9]{1,18})")


class Asked:
    """The query parameters of one request. Ask for each, then `done()`.

    Raises Refusal: 422 from `done` with everything wrong, 400 for a cursor that is not one of ours.
    """

    def __init__(self, request: Request, names: Iterable[str]) -> None:
        self.arguments = request.args
        self.problems: list[Problem] = []
        known = sorted(names)
        for name in request.args:
            if name not in known:
                self._wrong(name, f'unknown parameter "{printable(name)}"', f"use {', '.join(known) or 'none'}")
            elif len(request.args.getlist(name)) > 1:
                self._wrong(name, f"{name} is given more than once", "give it once")

    def text(self, name: str) -> str | None:
        """A text, None where it is missing or empty."""
        value = self.arguments.get(name)
        if value and (problem := text_problem(value)):
            self._wrong(name, f"{name} {problem}", "leave the character out")
        return value or None

    def words(self, name: str, allowed: Iterable[str]) -> tuple[str, ...] | None:
        """Comma-separated words out of a set; None where there are none."""
        text = self.arguments.get(name)
        if not text:
            return None
        known, found = list(allowed), tuple(text.split(","))
        for word in found:
            if word not in known:
                self._wrong(name, f'"{printable(word)}" is not a {name}', f"use {', '.join(known)}")
        return found

    def number(self, name: str, usual: int, low: int, high: int) -> int:
        """A whole number; above `high` it is taken as `high`, below `low` it is refused."""
        text = self.arguments.get(name)
        if text is None:
            return usual
        if not _NUMBER.fullmatch(text):
            self._wrong(name, f"{name} is a whole number", f"{low} to {high}")
            return usual
        if int(text) < low:
            self._wrong(name, f"{name} is {int(text)}, the least is {low}", f"{low} to {high}")
        return min(int(text), high)

    def limit(self) -> int:
        return self.number("limit", USUAL, 1, MOST)

    def place(self) -> Place:
        """Where the page begins: `before` a cursor, `after` one, or at the newest."""
        if self.arguments.get("before") and self.arguments.get("after"):
            self._wrong("after", "before and after exclude each other", "give one")
        for name, direction in (("before", "older"), ("after", "newer")):
            if text := self.arguments.get(name):
                return Place(position(text, name), direction)  # type: ignore[arg-type]  # the two literals above
        return Place()

    def done(self) -> None:
        if self.problems:
            raise Refusal(422, "the query is not understood", problems=self.problems)

    def _wrong(self, name: str, message: str, fix: str) -> None:
        self.problems.append(Problem("PS622", message, f"?{printable(name)}", fix))


def cursor(place: int) -> str:
    """A position as a cursor that clients only hand back."""
    return base64.urlsafe_b64encode(f"p1:{place}".encode()).decode().rstrip("=")


def position(text: str, name: str) -> int:
    """The position in a cursor. Raises Refusal 400."""
    try:
        found = _CURSOR.fullmatch(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        )
    except (binascii.Error, UnicodeDecodeError, ValueError):
        found = None
    if found is None:
        raise Refusal(
            400, "not a cursor of this API", where=f"?{name}", fix="hand back `next` or the Link header as they came"
        )
    return int(found[1])


def paged(
    name: str, page: Page, items: list[Any], request: Request, direction: Direction
) -> tuple[Mapping[str, Any], dict[str, str]]:
    """A page as a document and headers: the items, `next` to go on with, and the same as a Link. There are no totals."""
    document = {name: items, "next": cursor(page.next) if page.next is not None else None}
    if page.next is None:
        return document, {}
    side = "before" if direction == "older" else "after"
    query = {key: value for key, value in request.args.items() if key not in ("before", "after")}
    target = f"{request.path}?{urlencode({**query, side: document['next']})}"
    return document, {"Link": f'<{target}>; rel="next"'}
