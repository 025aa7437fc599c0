"""Fields of an operator's `batch` or `streaming` object: what each may be, its default, its canonical form.

Canonical: defaults are left out, durations are in their shortest form, all else stays as it was written.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from pgsig.decide.health import READY_TIMEOUT
from pgsig.decide.plan import PLACEHOLDER
from pgsig.definition.accepts import accepts, unfit
from pgsig.definition.probes import LIVE, READY, form_of
from pgsig.definition.programs import command, environment, pass_env, target
from pgsig.definition.reading import escape
from pgsig.definition.values import NOTHING, Fields, Wrong, choice, flag, length, number, plain_name, shown, text
from pgsig.model import Json, Kind


def canonical(kind: Kind, given: Json, where: str, wrong: Wrong) -> dict[str, Any]:
    """The canonical spec; what is wrong goes to `wrong`, and then the answer is of no use."""
    if not isinstance(given, dict):
        wrong(where, f"{kind} is an object like {{command: [python, job.py]}}")
        return {}
    fields = FIELDS[kind]
    spec: dict[str, Any] = {}
    for name, value in given.items():
        place = f"{where}/{escape(name)}"
        if name not in fields:
            unknown(name, fields, place, wrong, kind)
        elif value is not None:
            check, default = fields[name]
            result = check(value, place, wrong)
            if result != default or type(result) is not type(default):
                spec[name] = result
    if isinstance(spec.get("params"), dict) and isinstance(spec.get("accepts"), dict):
        for name, said in unfit(spec["params"], spec["accepts"]):
            wrong(f"{where}/params/{escape(name)}", said, "change it, or what accepts says", "PS517")
    if ("command" in given) == ("python" in given):
        said = "either command or python, not both" if "command" in given else "a command or a python target"
        wrong(where, f"an operator has {said}", "command: [python, job.py], or python: module:function", "PS524")
    if "warm" in given and "python" not in given:
        wrong(f"{where}/warm", "only a python target has an interpreter that could be warm", "leave it out", "PS524")
    if set(spec.get("env", ())) & set(spec.get("pass_env", ())):
        wrong(f"{where}/pass_env", "names a variable that env sets", "keep one", "PS525")
    if spec.get("handover") == "start_first" or spec.get("replicas", 1) != 1:
        for name in ("ready", "live"):
            if isinstance(probe := spec.get(name), dict) and "{port}" not in str(probe.get("http", "{port}")):
                said = "another run of it may answer at this address: several are alive at once"
                wrong(f"{where}/{name}/http", said, "write {port}, and let the job listen on its PGSIG_PORT")
    return spec


def unknown(name: str, known: Any, where: str, wrong: Wrong, owner: str) -> None:
    """A key that does not exist, with the one that was probably meant."""
    near = difflib.get_close_matches(name, sorted(known), 1, 0.55)
    other = next((kind for kind in Kind if kind != owner and owner in (*Kind,) and name in FIELDS[kind]), None)
    kinds = [kind for kind in Kind if owner == "an operator" and name in FIELDS[kind]]
    fix = (
        f"it stands inside {' or '.join(kinds)}"
        if kinds
        else f"only {other} operators have it"
        if other
        else f"did you mean {near[0]}?"
        if near
        else f"use {', '.join(sorted(known))}"
    )
    wrong(where, f'"{name}" is not a key of {owner}', fix, "PS522")


def _on_busy(value: Json, where: str, wrong: Wrong) -> Json:
    found = re.fullmatch(r"parallel\(\s*(\d{1,4})\s*\)", value) if isinstance(value, str) else None
    if found and 1 <= int(found[1]) <= 1000:
        return f"parallel({int(found[1])})"
    if found:
        wrong(where, "parallel takes a whole number from 1 to 1000", "for instance parallel(4)")
        return value
    return choice("queue", "skip", "merge", "replace", "parallel(n)")(
        "" if value == "parallel(n)" else value, where, wrong
    )


def _params(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, dict):
        wrong(where, "params is an object of names and values")
    return value


def _labels(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, list) or len(value) > 20:
        wrong(where, "labels is a list of at most 20 names", "for instance [gpu]")
        return value
    for i, name in enumerate(value):
        plain_name(name, f"{where}/{i}", wrong)
    return sorted(set(map(str, value)))


def _concurrency(value: Json, where: str, wrong: Wrong) -> Json:
    """{key, max}: of all runs with this key, whoever they belong to, so many are alive at once."""
    fix = 'for instance {key: "tenant {subject}", max: 2}'
    if not isinstance(value, dict) or set(value) != {"key", "max"}:
        wrong(where, "concurrency is an object of key and max", fix)
        return value
    key = value["key"]
    if not isinstance(key, str) or not 1 <= len(key) <= 200:
        wrong(f"{where}/key", "a key is a text of 1 to 200 characters", fix)
    elif re.search(r"[{}]", PLACEHOLDER.sub("", key)):
        wrong(f"{where}/key", f"{shown(key)} has a brace that stands for nothing", "{subject} or {params.NAME}")
    number(1, 100_000)(value["max"], f"{where}/max", wrong)
    return value


def _params_from(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, dict) or len(value) > 100:
        wrong(where, "params_from is an object of names and SQL/JSON paths", "for instance {model: $.id}")
        return value
    for name, path in value.items():
        place = f"{where}/{escape(name)}"
        if not isinstance(path, str) or not path.startswith(("$", "strict $", "lax $")):
            wrong(place, f"{shown(path)} is not a path into the value of a signal", "for instance $.id")
    return value


COMMON: Fields = {
    "command": (command, NOTHING),
    "python": (target, NOTHING),
    "env": (environment, {}),
    "pass_env": (pass_env, []),
    "cwd": (text, NOTHING),
    "grace": (length, NOTHING),
    "pool": (plain_name, "default"),
    "priority": (number(-100, 100), 0),
    "params": (_params, {}),
    "accepts": (accepts, NOTHING),
    "params_from": (_params_from, {}),
    "labels": (_labels, []),
    "concurrency": (_concurrency, NOTHING),
    "reload_by": (choice("api", "HUP", "USR1", "USR2"), "api"),
    "reload_timeout": (length, NOTHING),
    "live": (form_of(LIVE, "for instance {heartbeat: 30s}"), NOTHING),
    "autostart": (flag, False),
    "warm": (flag, True),
}
FIELDS: dict[Kind, Fields] = {
    Kind.BATCH: {
        **COMMON,
        "timeout": (length, NOTHING),
        "retries": (number(0, 1000), 0),
        "retry_delay": (length, "1s"),
        "on_busy": (_on_busy, "queue"),
        "queue_limit": (number(1, 100_000), 100),
    },
    Kind.STREAMING: {
        **COMMON,
        "restart": (choice("always", "on_failure", "never"), "always"),
        "replicas": (number(1, 100), 1),
        "handover": (choice("stop_first", "start_first"), "stop_first"),
        "ready": (form_of(READY, 'for instance {http: "http://127.0.0.1:{port}/health"}', ("start", "api")), "start"),
        "ready_timeout": (length, READY_TIMEOUT),
        "on_lease_loss": (choice("stop", "keep"), "stop"),
    },
}
