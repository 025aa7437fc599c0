"""`like_regex` of SQL/JSON paths: patterns that Postgres and Python read alike, and the rest refused."""

from __future__ import annotations

import re
from functools import lru_cache

from pgsig.condition.jsonpath_tree import Unsupported

# One piece of a pattern that Postgres and Python read alike.
SIMPLE = re.compile(
    r"(?:[A-Za-z0-9 _,:;<>=@#&%!~'\"/-]|[^\x00-\x7f]|\\[dws.\\+*?^$()\[\]{}|/-]|\.|\^|\$|\((?!\?)|\)|\|"
    r"|\[\^?[A-Za-z0-9 _.,:@/]+(?:-[A-Za-z0-9][A-Za-z0-9 _.,:@/]*)*\]|[*+?]|\{\d{1,3}(?:,\d{0,3})?\})*"
)
CLASSES = {r"\d": "[0-9]", r"\w": "[A-Za-z0-9_]", r"\s": r"[ \t\n\r\f\v]", "$": r"\Z", "^": r"\A"}


@lru_cache(maxsize=1000)
def regex(pattern: str, flags: str) -> re.Pattern[str]:
    """A pattern to search with. Raises Unsupported."""
    option = re.IGNORECASE if "i" in flags else re.NOFLAG
    if set(flags) - set("iq"):
        raise Unsupported(pattern, f'the flags "{flags}" of like_regex')
    if "q" in flags:
        return re.compile(re.escape(pattern), option)
    if not SIMPLE.fullmatch(pattern):
        raise Unsupported(pattern, f'the regular expression "{pattern}"')
    # Written by itself where the two differ: classes are those of ASCII, ^ and $ are the ends of the text, [^…] never a line's end.
    text = re.sub(
        r"\\.|\[[^\]]*\]|[$^]",
        lambda found: found[0].replace("[^", "[^\\n") if found[0][0] == "[" else CLASSES.get(found[0], found[0]),
        pattern,
    )
    try:
        return re.compile(text, option)
    except re.error as error:
        raise Unsupported(pattern, f'the regular expression "{pattern}"') from error
