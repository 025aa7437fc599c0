"""Terminal output as safe HTML: colours become classes, every other escape sequence is dropped, everything else is escaped."""

from __future__ import annotations

import re

from markupsafe import Markup

from pgsig.pages.visible import visible

# CSI sequences, OSC sequences to their BEL or ST, two-character escapes; a lone escape at last.
_SEQUENCE = re.compile(
    r"\x1b\[([0-9;:]*)([ -/]*[@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]|\x1b"
)
_SWITCHES = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "struck"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("struck",)}


def to_html(text: str) -> Markup:
    """The text with its colours. What a carriage return overwrote is left out, as a terminal would."""
    style: dict[str, str] = {}
    parts: list[Markup] = []
    at = 0
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    for found in _SEQUENCE.finditer(text):
        parts.append(_span(text[at : found.start()], style))
        at = found.end()
        if found[2] == "m":
            _apply(found[1] or "0", style)
    parts.append(_span(text[at:], style))
    return Markup("").join(parts)


def _span(text: str, style: dict[str, str]) -> Markup:
    if not text:
        return Markup("")
    if not style:
        return visible(text)
    return Markup('<span class="{}">{}</span>').format(" ".join(sorted(style.values())), visible(text))


def _apply(codes: str, style: dict[str, str]) -> None:
    numbers = [int(code) if code.isdigit() else 0 for code in codes.replace(":", ";").split(";")][:32]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            style.clear()
        elif code in _SWITCHES:
            style[_SWITCHES[code]] = f"ansi-{_SWITCHES[code]}"
        elif code in _OFF:
            for name in _OFF[code]:
                style.pop(name, None)
        elif code in (39, 49):
            style.pop("fg" if code == 39 else "bg", None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style["fg"] = f"ansi-fg-{code - 30 if code < 90 else code - 82}"
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style["bg"] = f"ansi-bg-{code - 40 if code < 100 else code - 92}"
        elif code in (38, 48) and numbers:
            _extended("fg" if code == 38 else "bg", numbers, style)


def _extended(layer: str, numbers: list[int], style: dict[str, str]) -> None:
    """256 colours and true colour: the first sixteen are kept, the rest goes without, as inline styles are forbidden here."""
    mode = numbers.pop(0)
    colour = numbers[:1] if mode == 5 else []
    del numbers[: 1 if mode == 5 else 3]
    if colour and colour[0] < 16:
        style[layer] = f"ansi-{layer}-{colour[0]}"
    else:
        style.pop(layer, None)
