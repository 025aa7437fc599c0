"""Answers as JSON. A signal's value is passed on as Postgres wrote it: decoding would round numbers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Response

from pgsig.store.reading import Row


class Raw(str):
    """JSON text that is put into an answer as it is."""

    __slots__ = ()


def reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response. datetimes become ISO 8601 in UTC, Raw is copied."""
    mark, raws = secrets.token_hex(8), []

    def default(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if isinstance(value, _Held):
            raws.append(value.text)
            return f"{mark}{len(raws) - 1}"
        raise TypeError(f"{type(value).__name__} is not for JSON")

    text = json.dumps(_hold(document), default=default, ensure_ascii=False)
    for index, raw in enumerate(raws):
        text = text.replace(f'"{mark}{index}"', raw, 1)
    return Response(text + "\n", status, headers, content_type="application/json")


class _Held:
    """Hides a Raw from the encoder, which would take it for any text."""

    def __init__(self, text: str) -> None:
        self.text = text


def _hold(value: Any) -> Any:
    if isinstance(value, Raw):
        return _Held(value)
    if isinstance(value, dict):
        return {name: _hold(item) for name, item in value.items()}
    return [_hold(item) for item in value] if isinstance(value, list | tuple) else value


def signal(row: Row) -> Row:
    """A signal as the API shows it."""
    return {**row, "value": Raw(row["value"])}


def plain(row: Row, *hidden: str) -> Row:
    """A row without what is only for us."""
    return {name: value for name, value in row.items() if name not in ("operator_id", *hidden)}
