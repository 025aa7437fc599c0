"""Bodies of requests: strict JSON, and objects whose fields are known. Everything wrong with a body is found before it is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from pgsig.api.problems import Refusal
from pgsig.errors import Problem
from pgsig.model import Json

DEEPEST = 64
KINDS: dict[type, str] = {str: "a text", dict: "an object", int: "a whole number", bool: "true or false"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def text_of(request: Request) -> str:
    """The body as text. Raises Refusal: 415 for another content type or an encoding, 413 when too large, 400 if it is not UTF-8."""
    if request.mimetype != "application/json":
        raise Refusal(415, "the body is to be JSON", where="Content-Type", fix="send Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refusal(415, "an encoded body is not read", where="Content-Encoding", fix="send the body as it is")
    data = request.get_data(cache=False)
    # Werkzeug cuts a body without a length off at the limit, in silence: that it is full means that there is more.
    if (
        request.content_length is None
        and request.max_content_length is not None
        and len(data) >= request.max_content_length
    ):
        raise RequestEntityTooLarge
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8 at byte {error.start}", fix="encode it as UTF-8") from error


def loads(text: str) -> Json:
    """Decode JSON as RFC 8259 means it. Raises Refusal 400: malformed, nested too deep, a name twice, NaN, a number out of range."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_no_longer_than_400,
        )
    except RecursionError as error:
        raise Refusal(400, f"the JSON is nested deeper than {DEEPEST}", fix="flatten it") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Refusal(
            400, f"the body is not JSON: {error.msg.lower()} at {place}", fix="send one JSON value"
        ) from error
    if _deeper(value, DEEPEST):
        raise Refusal(400, f"the JSON is nested deeper than {DEEPEST}", fix="flatten it")
    return value


def check_fields(
    item: Json, fields: Mapping[str, type | None], where: str, *, required: tuple[str, ...] = (), code: str = "PS622"
) -> list[Problem]:
    """What is wrong with one object. fields: the names it may have, each with its type, None for any."""
    if not isinstance(item, dict):
        return [Problem(code, "an object is needed here", where, f"with {', '.join(fields)}")]
    found = []
    for name, value in item.items():
        pointer = f"{where}/{escape(name)}"
        if name not in fields:
            found.append(Problem(code, f'unknown field "{printable(name)}"', pointer, f"use {', '.join(fields)}"))
        elif (kind := fields[name]) is not None and type(value) is not kind:
            found.append(Problem(code, f"{name} is {KINDS[kind]}", pointer, "leave it out, or correct it"))
        elif kind is int and abs(value) >= 2**63:
            found.append(Problem(code, f"{name} is out of range", pointer, "send an id as it came"))
        elif isinstance(value, str) and (problem := text_problem(value)):
            found.append(Problem(code, f"{name} {problem}", pointer, "leave the character out"))
    found += [Problem(code, f"{name} is needed", f"{where}/{name}", "add it") for name in required if name not in item]
    return found


def text_problem(text: str) -> str | None:
    """What keeps Postgres from storing a text, or None."""
    if "\0" in text:
        return "contains a NUL character"
    return "contains half of a surrogate pair" if _SURROGATE.search(text) else None


def escape(name: str) -> str:
    """A name as one step of a JSON pointer."""
    return printable(name).replace("~", "~0").replace("/", "~1")


def printable(text: str, most: int = 60) -> str:
    """The beginning of a caller's text, without characters that play tricks in a terminal or a log."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:most])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(400, f'the name "{printable(twice)}" stands twice in one object', fix="keep one of them")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Refusal(400, f"{name} is not JSON", fix="send null, or a text")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")) or len(text) > 400:
        raise Refusal(400, f"the number {printable(text, 30)} is out of range", fix="stay within 1e308, or send a text")
    return number


def _no_longer_than_400(text: str) -> int:
    if len(text) > 400:
        raise Refusal(400, "a number has more than 400 digits", fix="send a text")
    return int(text)


def _deeper(value: Json, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)
