"""What is executed, and in which environment: command, target, variables."""

from __future__ import annotations

import re

from pgsig.definition.reading import escape
from pgsig.definition.values import Wrong, shown
from pgsig.model import Json

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# These decide what code a program runs, whatever its command says; PGSIG_ is what a run is told about itself.
REDIRECTING = re.compile(
    r"LD_.*|DYLD_.*|PATH|PYTHONHOME|PYTHONSTARTUP|BASH_ENV|ENV|IFS|SHELLOPTS|BASHOPTS|NODE_OPTIONS|PERL5OPT|RUBYOPT|PGSIG_.*"
)
SECRET_NAME = re.compile(r"(?i)(.*_)?(password|passwd|passphrase|token|secret|key|credentials?)")
SECRET_VALUE = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----")


def command(value: Json, where: str, wrong: Wrong) -> Json:
    """A program and its arguments."""
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
            f"{shown(value[0])} is one program's name with spaces in it, no shell splits it",
            f'write [{", ".join(value[0].split())}]; for a shell: [sh, -c, "{value[0]}"]',
            "PS524",
        )
    elif sum(len(part) for part in value) > 100_000:
        wrong(where, "a command has at most 100000 characters", "put the text into a file", "PS524")
    return value


def target(value: Json, where: str, wrong: Wrong) -> Json:
    """A function, as module:function."""
    if not isinstance(value, str) or not TARGET.fullmatch(value):
        wrong(
            where,
            f"{shown(value)} does not name a function",
            "write module:function, for instance jobs:train",
            "PS524",
        )
    return value


def environment(value: Json, where: str, wrong: Wrong) -> Json:
    """Variables for the job. What looks like a secret is refused."""
    if not isinstance(value, dict):
        wrong(where, "env is an object of names and texts", code="PS525")
        return value
    for name, text in value.items():
        place = f"{where}/{escape(name)}"
        if not isinstance(text, str):
            wrong(place, f"a variable is a text, not {shown(text)}", "quote it", "PS525")
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


def pass_env(value: Json, where: str, wrong: Wrong) -> Json:
    """Names of the runner's variables that the job gets."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        wrong(where, "pass_env is a list of names of the runner's variables", code="PS525")
        return value
    for i, name in enumerate(value):
        _variable(name, f"{where}/{i}", wrong)
    return value


def _variable(name: str, where: str, wrong: Wrong) -> bool:
    if not VARIABLE.fullmatch(name):
        wrong(where, f"{shown(name)} is not the name of a variable", "letters, digits and _", "PS525")
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
