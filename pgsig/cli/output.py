"""What commands print: aligned tables for people, JSON for machines, and nothing that could play tricks on
a terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

COLOURS = {
    "running": "green",
    "succeeded": "green",
    "ready": "green",
    "ok": "green",
    "failed": "red",
    "lost": "red",
    "problem": "red",
    "warning": "yellow",
    "retrying": "yellow",
    "starting": "cyan",
    "queued": "cyan",
    "added": "green",
    "new": "green",
    "changed": "yellow",
    "removed": "red",
}
WIDEST = 60  # characters of a cell
# What sets colours, bold, italic and the like. Not 8, which hides.
_COLOUR = re.compile(
    r"(\x1b\[(?:(?:[0-79]|[1-9]\d|10[0-7]|[34]8;5;\d{1,3}|[34]8;2;\d{1,3};\d{1,3};\d{1,3})?(?:;(?=[\dm])|(?=m)))*m)"
)
# Characters that turn the direction of text around, or that take no room: two different names could look
# the same.
INVISIBLE = frozenset(
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)


def harmless(text: str, *, lines: bool = False) -> str:
    """Control characters, ANSI escapes and invisible characters written out.

    lines: tabs and line ends may stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _harmless(c) or (lines and c in "\n\t") else _written(c) for c in text)


def coloured(text: str) -> str:
    """Lines of a job for a terminal: its colours as it set them, up to the end of each line, or none where they are not wanted; all else
    that could steer a terminal, or hide something, is written out."""
    return (
        "".join(_coloured(line) for line in text.splitlines(keepends=True))
        if "\x1b" in text
        else harmless(text, lines=True)
    )


def _coloured(line: str) -> str:
    body, end = (line[:-1], "\n") if line.endswith("\n") else (line, "")
    parts = _COLOUR.split(body)  # between the pieces of text the sequences
    wanted = colourful()
    told = "".join(
        (part if wanted else "") if odd % 2 else harmless(part, lines=True) for odd, part in enumerate(parts)
    )
    return told + ("\x1b[0m" if wanted and len(parts) > 1 else "") + end


def _harmless(c: str) -> bool:
    return unicodedata.category(c) not in ("Cc", "Cs", "Cn", "Zl", "Zp") and c not in INVISIBLE


def _written(c: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c) or (
        f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"
    )


def colourful() -> bool:
    """Whether stdout is a terminal that wants colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None) -> str:
    """The text in a colour, where colours are wanted."""
    return click.style(text, fg=colour) if colour and colourful() else text


def say(text: str) -> None:
    """Tell people something beside the data."""
    click.echo(harmless(text, lines=True), err=True)


def show(text: str) -> None:
    """A line of data."""
    click.echo(text, color=colourful())


def show_json(value: Any) -> None:
    """One JSON document on one line, or indented on a terminal."""
    click.echo(json.dumps(value, default=_plain, ensure_ascii=True, indent=2 if sys.stdout.isatty() else None))


def show_table(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, empty: str = "", right: Collection[str] = ()
) -> None:
    """Rows as aligned columns under their names. empty: said on stderr when there are none. right: the columns that are aligned there."""
    names = list(columns)
    if not rows:
        if empty:
            say(empty)
        return
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    widths = [max(_width(line[i]) for line in [names, *cells]) for i in range(len(names))]
    placed = [(width, name in right) for name, width in zip(names, widths, strict=True)]
    heads = [_padded(name.upper(), *place) for name, place in zip(names, placed, strict=True)]
    show(paint("  ".join(heads).rstrip(), "bright_black"))
    for line in cells:
        parts = [paint(_padded(text, *place), COLOURS.get(text)) for text, place in zip(line, placed, strict=True)]
        show("  ".join(parts).rstrip())


def cell(value: Any, widest: int = WIDEST) -> str:
    """A value in a table: one line, harmless, not too long."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return ago(value)
    text = value if isinstance(value, str) else json.dumps(value, default=_plain, ensure_ascii=False)
    text = harmless(text[: widest * 4])
    return text if len(text) <= widest else text[: widest - 1] + "…"


def ago(moment: datetime) -> str:
    """How long ago a moment was, in the largest fitting unit."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    sign, seconds = ("in " if seconds < 0 else ""), abs(seconds)
    for unit, size, until in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172800), ("d", 86400, float("inf"))):
        if seconds < until:
            return f"{sign}{int(seconds // size)}{unit}" + ("" if sign else " ago")
    return ""


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
