"""pgsig: jobs that start, stop, restart and reload the moment the signals they wait for are committed.

    from pgsig import Client, Workflow, signal, every

Importing this module reads nothing and connects to nothing; each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgsig.client import Client
    from pgsig.definition.conditions import (
        Condition,
        absent,
        all_of,
        any_of,
        at,
        at_least,
        calendar,
        cron,
        every,
        seq,
        signal,
        times_all,
        times_any,
        trigger,
    )
    from pgsig.definition.workflow import Workflow
    from pgsig.errors import Conflict, InvalidInput, NotFound, PgsigError, Unavailable

__version__ = "0.1.0"
__all__ = [
    "Client",
    "Condition",
    "Conflict",
    "InvalidInput",
    "NotFound",
    "PgsigError",
    "Unavailable",
    "Workflow",
    "__version__",
    "absent",
    "all_of",
    "any_of",
    "at",
    "at_least",
    "calendar",
    "cron",
    "every",
    "seq",
    "signal",
    "times_all",
    "times_any",
    "trigger",
]

_HOMES = {
    "pgsig.client": ("Client",),
    "pgsig.definition.workflow": ("Workflow",),
    "pgsig.errors": ("Conflict", "InvalidInput", "NotFound", "PgsigError", "Unavailable"),
    "pgsig.definition.conditions": (
        *("Condition", "absent", "all_of", "any_of", "at", "at_least", "calendar", "cron", "every", "seq"),
        *("signal", "times_all", "times_any", "trigger"),
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
