"""What people give to tests and replays: workflows, moments, signals, and a database to ask."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pgsig.condition import pattern
from pgsig.definition import Definition, load, parse
from pgsig.definition.workflow import Workflow
from pgsig.errors import InvalidInput, Problem
from pgsig.memory import Ask, AskFunction
from pgsig.model import Json

OWN = ("run", "tick", "manual", "timer")  # first segments of keys that pgsig alone writes


def definition_of(workflow: Workflow | Definition | Json | str | Path) -> Definition:
    """The definition in whatever form it was given. Raises OSError and InvalidInput."""
    if isinstance(workflow, Definition):
        return workflow
    if isinstance(workflow, Workflow):
        return workflow.definition()
    return load(workflow) if isinstance(workflow, str | Path) else parse(workflow)


def moment_of(given: str | datetime) -> datetime:
    """A moment in UTC; one without a zone is meant so. Raises ValueError."""
    moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def checked(key: str, value: Json) -> str:
    """A value's JSON text, once key and value are what a database would take. Raises InvalidInput."""
    problems = []
    if (why := pattern.problem(key)) is not None or "*" in key:
        problems.append(Problem("PS101", why or f'a key that is emitted has no wildcard: "{key}"', "/key"))
    elif key.split(".", maxsplit=1)[0] in OWN:
        what = f"keys that begin with {', '.join(OWN)} are written by pgsig alone"
        problems.append(Problem("PS102", what, "/key", "use act, finish or advance"))
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        problems.append(Problem("PS112", f"not JSON: {error}", "/value"))
        text = "null"
    if problems:
        raise InvalidInput(problems, subject="the signal")
    return text


def asking(url: str, stack: ExitStack) -> tuple[Ask, AskFunction]:
    """Who answers what only Postgres can, over a connection that is closed with the stack. Raises Unavailable."""
    from pgsig.store import signals
    from pgsig.store.database import connect

    connection: Any = stack.enter_context(connect(url, name="test"))
    return partial(signals.ask, connection), partial(signals.ask_function, connection)
