"""Characters that cannot be seen or that turn text around are shown as what they are, so that no value can pass for another."""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

# Control, format (bidirectional marks, zero width), surrogate and private characters, line separators, and blank fillers.
_SPECIAL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e0fff]"
)


def visible(text: object) -> Markup:
    """The text escaped for HTML, its invisible characters as labels like U+202E."""
    if isinstance(text, Markup):
        return text
    plain, parts, at = str(text), [], 0
    for found in _SPECIAL.finditer(plain):
        parts.append(escape(plain[at : found.start()]))
        name = unicodedata.name(found[0], "control character").lower()
        parts.append(Markup('<span class="odd" title="{}">U+{:04X}</span>').format(name, ord(found[0])))
        at = found.end()
    parts.append(escape(plain[at:]))
    return Markup("").join(parts)


def plain(text: object, most: int | None = None) -> str:
    """The same without markup, fit for attributes and titles too; cut to a length if one is given."""
    cut = str(text)
    cut = cut if most is None or len(cut) <= most else cut[: most - 1] + "…"
    return _SPECIAL.sub(lambda found: f"‹U+{ord(found[0]):04X}›", cut)
