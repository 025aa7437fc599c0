"""Calls a Python callable as a job: `python call.py module:function`. Ends with 0, or with 1 and a traceback on stderr; where there is
nothing to call, a line before it says so.

The function takes nothing, or one parameter named `run`, which gets the module `pgsig.run`. SystemExit passes through.
Started by its path, so that neither the job's folder nor its packages decide which pgsig the runner speaks to.
"""

# ruff: noqa: PTH100, PTH109, PTH120
# A start should not pay for pathlib.
from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def main(target: str) -> None:
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    # Python put this folder first: its neighbours' names are not to be found by the job's imports.
    sys.path[:] = [os.getcwd(), *(entry for entry in sys.path if os.path.abspath(entry) != here)]
    package = os.path.dirname(os.path.dirname(here))
    if package not in sys.path:
        sys.path.append(package)
    sys.argv = [target]

    import importlib

    module, _, path = target.partition(":")
    if not module or not path:
        sys.exit(f"pgsig: {target}: this is not module:function")
    try:
        function = importlib.import_module(module)
    except Exception as error:
        # A log is read from its top: first what it means for the job, then where it happened.
        sys.stderr.write(f"pgsig: {target}: {module} cannot be imported: {type(error).__name__}: {error}\n")
        raise
    for name in path.split("."):
        try:
            function = getattr(function, name)
        except AttributeError:
            sys.exit(f"pgsig: {target}: there is no function {path} in {module}")
    if not callable(function):
        sys.exit(f"pgsig: {target}: {path} of {module} is not a function")

    if _takes_run(function):
        from pgsig import run

        function(run=run)
    else:
        function()


def _takes_run(function: Callable[..., Any]) -> bool:
    """Whether a callable has a parameter named `run`. A plain function's own code tells; `inspect` would ask twice as many pages."""
    from types import FunctionType

    if isinstance(function, FunctionType) and not function.__dict__:
        code = function.__code__
        return "run" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    import inspect

    return "run" in inspect.signature(function).parameters


if __name__ == "__main__":
    main(sys.argv[1])
