"""What may stand beside a condition's form at its top level: it belongs to the whole rule, not to the condition.

by      what an instance of the rule is: "subject" (default), "none", or a SQL/JSON path into the value
max     a limit like "3/1h": firings above it are recorded as limited, and do nothing
then    what they do instead: START, STOP, RESTART or RELOAD
shadow  true: the rule decides, is recorded and explained, and does nothing
"""

from __future__ import annotations

import difflib
from typing import Any

from pgsig.condition import duration
from pgsig.definition.values import Wrong
from pgsig.model import Action, Json

KEYS = ("by", "max", "then", "shadow")
THEN = tuple(action.value for action in Action if action is not Action.NONE)


def split(tree: Json, action: str, where: str, wrong: Wrong) -> tuple[Json, str, dict[str, Any]]:
    """A condition without what belongs to its rule; `by`; the other options in their canonical form, without defaults.

    action: what the rule does. What is wrong goes to `wrong`: PS503 for a value, PS506 for what does not fit together.
    """
    if not isinstance(tree, dict):
        return tree, "subject", {}
    options: dict[str, Any] = {}
    if "max" in tree:
        options["max"] = _limit(tree["max"], f"{where}/max", wrong)
    if "then" in tree:
        options["then"] = _then(tree, action, where, wrong)
    if "shadow" in tree:
        if not isinstance(tree["shadow"], bool):
            wrong(f"{where}/shadow", "shadow is true or false", code="PS503")
        elif tree["shadow"]:
            options["shadow"] = True
    return {key: value for key, value in tree.items() if key not in KEYS}, _by(tree, where, wrong), options


def _by(tree: dict[str, Any], where: str, wrong: Wrong) -> str:
    by = tree.get("by", "subject")
    if not isinstance(by, str) or not (by in ("subject", "none") or by.startswith(("$", "strict $", "lax $"))):
        wrong(f"{where}/by", "by is subject, none, or a path into the value", "for instance $.model_id", "PS503")
        return "subject"
    return by


def _limit(value: Json, where: str, wrong: Wrong) -> str:
    try:
        if not isinstance(value, str):
            raise ValueError("a limit is a text of a count and a duration")
        count, length = duration.limit(value)
    except ValueError as error:
        wrong(where, str(error), "for instance 3/1h: three in an hour", "PS503")
        return ""
    return f"{count}/{duration.text(length)}"


def _then(tree: dict[str, Any], action: str, where: str, wrong: Wrong) -> str:
    place = f"{where}/then"
    given = tree["then"]
    word = given.upper() if isinstance(given, str) else ""
    if word not in THEN or given not in (word, word.lower()):
        near = difflib.get_close_matches(word, THEN, 1)
        fix = "leave it out to do nothing" if word == "NONE" else f"did you mean {near[0]}?" if near else ""
        wrong(place, f"then is one of {', '.join(THEN)}", fix, "PS503")
    elif "max" not in tree:
        wrong(place, "then says what happens above max", "add max: 3/1h, or leave then out", "PS506")
    elif word == action.upper():
        wrong(place, f"above its limit the rule would do {word} all the same", "leave max and then out", "PS506")
    return word
