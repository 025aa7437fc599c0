"""Fields of an operator's `batch` or `streaming` object: what each may be, its default, its canonical form.

Canonical: defaults are left out, durations are in their shortest form, all else stays as it was written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pgsig.condition import duration
from pgsig.decide.health import LIVE_EVERY, LIVE_FAILURES, PROBE_TIMEOUT, READY_EVERY, READY_TIMEOUT
from pgsig.decide.plan import PLACEHOLDER
from pgsig.definition.accepts import accepts, unfit
from pgsig.definition.reading import escape
from pgsig.errors import Problem
from pgsig.model import Json, Kind

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# These decide what code a program runs, whatever its command says; PGSIG_ is what a run is told about itself.
REDIRECTING = re.compile(
    r"LD_.*|DYLD_.*|PATH|PYTHONHOME|PYTHONSTARTUP|BASH_ENV|ENV|IFS|SHELLOPTS|BASHOPTS|NODE_OPTIONS|PERL5OPT|RUBYOPT|PGSIG_.*"
)
SECRET_NAME = re.compile(r"(?i)(.*_)?(password|passwd|passphrase|token|secret|key|credentials?)")
SECRET_VALUE = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----")

Wrong = Callable[..., None]  # wrong(where, message, fix="", code="PS523")
Check = Callable[[Json, str, Wrong], Json]


def problems_of(problems: list[Problem]) -> Wrong:
    """A short way to add a problem."""

    def wrong(where: str, message: str, fix: str = "", code: str = "PS523") -> None:
        problems.append(Problem(code, message, where, fix))

    return wrong


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
    fix = (
        f"only {other} operators have it"
        if other
        else f"did you mean {near[0]}?"
        if near
        else f"use {', '.join(sorted(known))}"
    )
    wrong(where, f'"{name}" is not a key of {owner}', fix, "PS522")


def _text(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, str) or not value or len(value) > 4096:
        wrong(where, "a text of 1 to 4096 characters is needed")
    return value


def _name(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        wrong(where, f"{_shown(value)} is not a name", "a lower-case letter, then up to 62 of a-z 0-9 _ -")
    return value


def _duration(value: Json, where: str, wrong: Wrong) -> Json:
    try:
        return duration.text(duration.seconds(value))
    except ValueError as error:
        wrong(where, str(error))
        return value


def _flag(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, bool):
        wrong(where, f"true or false is needed, not {_shown(value)}")
    return value


def _number(low: int, high: int) -> Check:
    def check(value: Json, where: str, wrong: Wrong) -> Json:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            wrong(where, f"a whole number from {low} to {high} is needed, not {_shown(value)}")
        return value

    return check


def _choice(*words: str) -> Check:
    def check(value: Json, where: str, wrong: Wrong) -> Json:
        if value not in words:
            near = difflib.get_close_matches(str(value), words, 1)
            wrong(
                where,
                f"{_shown(value)} is none of {', '.join(words)}",
                f"did you mean {near[0]}?" if near else "",
            )
        return value

    return check


def _on_busy(value: Json, where: str, wrong: Wrong) -> Json:
    found = re.fullmatch(r"parallel\(\s*(\d{1,4})\s*\)", value) if isinstance(value, str) else None
    if found and 1 <= int(found[1]) <= 1000:
        return f"parallel({int(found[1])})"
    if found:
        wrong(where, "parallel takes a whole number from 1 to 1000", "for instance parallel(4)")
        return value
    return _choice("queue", "skip", "merge", "replace", "parallel(n)")(
        "" if value == "parallel(n)" else value, where, wrong
    )


def _command(value: Json, where: str, wrong: Wrong) -> Json:
    if isinstance(value, str):
        wrong(
            where,
            "a command is a list of texts, no shell splits it",
            f'write [{", ".join(value.split()) or "python, job.py"}]; for a shell: [sh, -c, "…"]',
            "PS524",
        )
    elif not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        wrong(where, "a command is a list of at least one text", "quote numbers", "PS524")
    elif not value[0].strip():
        wrong(f"{where}/0", "the program has no name", code="PS524")
    elif len(value) == 1 and " " in value[0]:
        wrong(
            f"{where}/0",
            f"{_shown(value[0])} is one program's name with spaces in it, no shell splits it",
            f'write [{", ".join(value[0].split())}]; for a shell: [sh, -c, "{value[0]}"]',
            "PS524",
        )
    elif sum(len(part) for part in value) > 100_000:
        wrong(where, "a command has at most 100000 characters", "put the text into a file", "PS524")
    return value


def _target(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, str) or not TARGET.fullmatch(value):
        wrong(
            where,
            f"{_shown(value)} does not name a function",
            "write module:function, for instance jobs:train",
            "PS524",
        )
    return value


def _env(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, dict):
        wrong(where, "env is an object of names and texts", code="PS525")
        return value
    for name, text in value.items():
        place = f"{where}/{escape(name)}"
        if not isinstance(text, str):
            wrong(place, f"a variable is a text, not {_shown(text)}", "quote it", "PS525")
        elif not _variable(name, place, wrong):
            continue
        elif (SECRET_NAME.fullmatch(name) and text) or SECRET_VALUE.match(text):
            wrong(
                place,
                "looks like a secret, and definitions are kept and shown",
                f"give it to the runner's environment and write pass_env: [{name}]",
                "PS525",
            )
    return value


def _pass_env(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        wrong(where, "pass_env is a list of names of the runner's variables", code="PS525")
        return value
    for i, name in enumerate(value):
        _variable(name, f"{where}/{i}", wrong)
    return value


def _variable(name: str, where: str, wrong: Wrong) -> bool:
    if not VARIABLE.fullmatch(name):
        wrong(where, f"{_shown(name)} is not the name of a variable", "letters, digits and _", "PS525")
    elif REDIRECTING.fullmatch(name):
        why = (
            "is what pgsig tells a run about itself"
            if name.startswith("PGSIG_")
            else "decides what code the program runs"
        )
        wrong(where, f"{name} {why}", "set it in the command: [env, …], or on the runner", "PS525")
    else:
        return True
    return False


def _params(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, dict):
        wrong(where, "params is an object of names and values")
    return value


def _labels(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, list) or len(value) > 20:
        wrong(where, "labels is a list of at most 20 names", "for instance [gpu]")
        return value
    for i, name in enumerate(value):
        _name(name, f"{where}/{i}", wrong)
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
        wrong(f"{where}/key", f"{_shown(key)} has a brace that stands for nothing", "{subject} or {params.NAME}")
    _number(1, 100_000)(value["max"], f"{where}/max", wrong)
    return value


def _params_from(value: Json, where: str, wrong: Wrong) -> Json:
    if not isinstance(value, dict) or len(value) > 100:
        wrong(where, "params_from is an object of names and SQL/JSON paths", "for instance {model: $.id}")
        return value
    for name, path in value.items():
        place = f"{where}/{escape(name)}"
        if not isinstance(path, str) or not path.startswith(("$", "strict $", "lax $")):
            wrong(place, f"{_shown(path)} is not a path into the value of a signal", "for instance $.id")
    return value


def _every(value: Json, where: str, wrong: Wrong) -> Json:
    found = _duration(value, where, wrong)
    if re.fullmatch(r"\d{1,2}ms", str(found)):
        wrong(where, f"{found} is too often to ask", "100ms or more")
    return found


def _url(value: Json, where: str, wrong: Wrong) -> Json:
    plain = value.replace("{port}", "1") if isinstance(value, str) else ""
    try:
        parts = urlsplit(plain)
        good = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"[!-~]+", plain)
    except ValueError:
        good = False
    if not good:
        fix = "for instance http://127.0.0.1:{port}/health, where {port} is the job's own PGSIG_PORT"
        wrong(where, f"{_shown(value)} is not an http:// address", fix)
    elif "@" in plain.split("/")[2]:
        wrong(where, "an address with a password would be kept and shown", "use a command, and pass_env", "PS525")
    elif re.search(r"[{}]", plain):
        wrong(where, f"{_shown(value)} has a brace that stands for nothing", "{port}")
    return value


def _forms(forms: Mapping[str, Mapping[str, tuple[Check, Any]]], fix: str, words: tuple[str, ...] = ()) -> Check:
    """An object that has one of some keys, which decides what else it may have; or one of some words."""

    def check(value: Json, where: str, wrong: Wrong) -> Json:
        if isinstance(value, str) and words:
            return _choice(*words)(value, where, wrong)
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


def _shown(value: Json) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


_NOTHING = object()  # a default that no value equals
_READY = {"every": (_every, READY_EVERY), "timeout": (_duration, PROBE_TIMEOUT)}
_LIVE = {
    "every": (_every, LIVE_EVERY),
    "timeout": (_duration, PROBE_TIMEOUT),
    "failures": (_number(1, 100), LIVE_FAILURES),
}
READY: dict[str, dict[str, tuple[Check, Any]]] = {
    "http": {"http": (_url, _NOTHING), **_READY},
    "command": {"command": (_command, _NOTHING), **_READY},
}
LIVE: dict[str, dict[str, tuple[Check, Any]]] = {
    "heartbeat": {"heartbeat": (_duration, _NOTHING)},
    "http": {"http": (_url, _NOTHING), **_LIVE},
    "command": {"command": (_command, _NOTHING), **_LIVE},
}
COMMON: dict[str, tuple[Check, Any]] = {
    "command": (_command, _NOTHING),
    "python": (_target, _NOTHING),
    "env": (_env, {}),
    "pass_env": (_pass_env, []),
    "cwd": (_text, _NOTHING),
    "grace": (_duration, _NOTHING),
    "pool": (_name, "default"),
    "priority": (_number(-100, 100), 0),
    "params": (_params, {}),
    "accepts": (accepts, _NOTHING),
    "params_from": (_params_from, {}),
    "labels": (_labels, []),
    "concurrency": (_concurrency, _NOTHING),
    "reload_by": (_choice("api", "HUP", "USR1", "USR2"), "api"),
    "reload_timeout": (_duration, _NOTHING),
    "live": (_forms(LIVE, "for instance {heartbeat: 30s}"), _NOTHING),
    "autostart": (_flag, False),
    "warm": (_flag, True),
}
FIELDS: dict[Kind, dict[str, tuple[Check, Any]]] = {
    Kind.BATCH: {
        **COMMON,
        "timeout": (_duration, _NOTHING),
        "retries": (_number(0, 1000), 0),
        "retry_delay": (_duration, "1s"),
        "on_busy": (_on_busy, "queue"),
        "queue_limit": (_number(1, 100_000), 100),
    },
    Kind.STREAMING: {
        **COMMON,
        "restart": (_choice("always", "on_failure", "never"), "always"),
        "replicas": (_number(1, 100), 1),
        "handover": (_choice("stop_first", "start_first"), "stop_first"),
        "ready": (_forms(READY, 'for instance {http: "http://127.0.0.1:{port}/health"}', ("start", "api")), "start"),
        "ready_timeout": (_duration, READY_TIMEOUT),
        "on_lease_loss": (_choice("stop", "keep"), "stop"),
    },
}
