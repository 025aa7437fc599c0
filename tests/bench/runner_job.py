"""What the runner's benchmark starts as jobs."""

import os
import time
from types import ModuleType


def stamp() -> None:
    """Its first line looks at the clock."""
    _write(f"{os.environ['PGSIG_RUN_ID']} {time.monotonic()}")


def first(run: ModuleType) -> None:
    """Says when it has done its work, and what follows from it."""
    _write(f"first {run.subject} {time.monotonic()}")
    run.emit("chain.went", subject=run.subject)


def second() -> None:
    """Its first line looks at the clock, too."""
    _write(f"second {os.environ['PGSIG_SUBJECT']} {time.monotonic()}")


def _write(text: str) -> None:
    file = os.open(os.environ["STAMPS"], os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{text}\n".encode())
    os.close(file)


def nothing() -> None:
    """A no-op."""
