"""Which signals a condition has to care for: read from its canonical JSON alone, without the code that is judged."""

from __future__ import annotations

import json
import re
from typing import Any

PREDICATES = {"$ > 1": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > 1}
BAD = '"bad"'  # makes an evaluation fail: put aside for every rule that names the key
HUGE = 4000  # characters of a number that cannot be read


def named(pattern: str, key: str) -> bool:
    text = "^" + re.escape(pattern).replace(r"\.\*\*", r"(\..*)?").replace(r"\*", r"[^.]+") + "$"
    return re.match(text, key) is not None


def interest(condition: Any, key: str, value: str) -> tuple[bool, bool]:
    """(must, may): whether a rule has to account for a signal, and whether it may."""
    if "signal" in condition:
        if not named(condition["signal"], key):
            return False, False
        if value == BAD:
            return True, True
        if len(value) > HUGE:
            return ("eq" in condition), True
        decoded = json.loads(value)
        wanted = condition.get("eq", decoded)
        met = wanted == decoded and isinstance(wanted, bool) == isinstance(decoded, bool)
        if "where" in condition:
            met = met and PREDICATES[condition["where"]](decoded)
        level = bool(condition.get("sticky") or condition.get("latest"))
        if condition.get("changed") or "distinct" in condition or "sum" in condition:
            return False, True
        return met or level, met or level
    if "absent" in condition:
        armed = "after" in condition and named(condition["after"], key)
        watched = named(condition["absent"], key)
        return armed or (watched and ("after" not in condition or value == BAD)), armed or watched
    if "not" in condition:
        return interest(condition["not"], key, value)
    parts = next(condition[form] for form in ("all", "any", "seq", "of") if form in condition)
    found = [interest(part, key, value) for part in parts]
    return any(must for must, _ in found), any(may for _, may in found)
