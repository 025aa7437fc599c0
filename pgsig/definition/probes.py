"""Readiness and liveness: the forms of `ready` and `live`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from pgsig.decide.health import LIVE_EVERY, LIVE_FAILURES, PROBE_TIMEOUT, READY_EVERY
from pgsig.definition.programs import command
from pgsig.definition.reading import escape
from pgsig.definition.values import NOTHING, Check, Fields, Wrong, choice, length, number, shown
from pgsig.model import Json


def every(value: Json, where: str, wrong: Wrong) -> Json:
    """A length of time between two probes."""
    found = length(value, where, wrong)
    if re.fullmatch(r"\d{1,2}ms", str(found)):
        wrong(where, f"{found} is too often to ask", "100ms or more")
    return found


def url(value: Json, where: str, wrong: Wrong) -> Json:
    """An http:// address; {port} stands for the port of the job."""
    plain = value.replace("{port}", "1") if isinstance(value, str) else ""
    try:
        parts = urlsplit(plain)
        good = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"[!-~]+", plain)
    except ValueError:
        good = False
    if not good:
        fix = "for instance http://127.0.0.1:{port}/health, where {port} is the job's own PGSIG_PORT"
        wrong(where, f"{shown(value)} is not an http:// address", fix)
    elif "@" in plain.split("/")[2]:
        wrong(where, "an address with a password would be kept and shown", "use a command, and pass_env", "PS525")
    elif re.search(r"[{}]", plain):
        wrong(where, f"{shown(value)} has a brace that stands for nothing", "{port}")
    return value


def form_of(forms: Mapping[str, Fields], fix: str, words: tuple[str, ...] = ()) -> Check:
    """An object that has one of some keys, which decides what else it may have; or one of some words."""

    def check(value: Json, where: str, wrong: Wrong) -> Json:
        if isinstance(value, str) and words:
            return choice(*words)(value, where, wrong)
        found = [name for name in forms if isinstance(value, dict) and name in value]
        if len(found) != 1:
            wrong(
                where,
                f"{' or '.join(words)}{', or ' if words else ''}an object with one of {', '.join(forms)} is needed",
                fix,
            )
            return value
        fields, given = forms[found[0]], {}
        for name, part in value.items():
            place = f"{where}/{escape(name)}"
            if name not in fields:
                wrong(place, f'"{name}" does not go with {found[0]}', f"use {', '.join(fields)}", "PS522")
            elif part is not None:
                check, default = fields[name]
                result = check(part, place, wrong)
                if result != default:
                    given[name] = result
        return given

    return check


_READY = {"every": (every, READY_EVERY), "timeout": (length, PROBE_TIMEOUT)}
_LIVE = {
    "every": (every, LIVE_EVERY),
    "timeout": (length, PROBE_TIMEOUT),
    "failures": (number(1, 100), LIVE_FAILURES),
}
READY: dict[str, Fields] = {
    "http": {"http": (url, NOTHING), **_READY},
    "command": {"command": (command, NOTHING), **_READY},
}
LIVE: dict[str, Fields] = {
    "heartbeat": {"heartbeat": (length, NOTHING)},
    "http": {"http": (url, NOTHING), **_LIVE},
    "command": {"command": (command, NOTHING), **_LIVE},
}
