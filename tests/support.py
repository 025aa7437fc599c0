"""What tests share beside fixtures: waiting without sleeping, and parts that a machine may lack."""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn, TypeVar

import psycopg
import pytest

from pgsig.embedded.binaries import OLDEST_MAJOR, find_binaries

T = TypeVar("T")

FIRST_LOOK_AGAIN = 0.002  # seconds; doubled after each look, up to
LAST_LOOK_AGAIN = 0.05

CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
DEBIAN = Path("/usr/lib/postgresql")
# Programs beside Python's packages, and Debian's package of each; .ci/run installs them. older-postgres: a major before the tests' own.
PARTS = {
    "chromium": "chromium", "node": "nodejs", "curl": "curl", "pgbouncer": "pgbouncer", "older-postgres": "postgresql", "ip": "iproute2",
    "tc": "iproute2", "sysctl": "procps", "unshare": "util-linux", "nsenter": "util-linux", "mount": "mount",
}  # fmt: skip


def wait_for(
    ready: threading.Event | Callable[[], T],
    timeout: float = 10.0,
    *,
    wake: psycopg.Connection[Any] | None = None,
    about: str = "",
) -> T:
    """Return what `ready` gives as soon as it is true; fail the test when it is not within `timeout` seconds.

    An event is waited on. With `wake`, an autocommit connection that listens, `ready` is asked again on each
    notification; as notifications may be lost, also without one, but seldom. Otherwise it is asked often.
    """
    if isinstance(ready, threading.Event):
        if not ready.wait(timeout):
            give_up(timeout, about or "the event")
        return True  # type: ignore[return-value]  # an event has no value of its own
    deadline, pause, clock = monotonic() + timeout, FIRST_LOOK_AGAIN, threading.Event()
    while True:
        value = ready()
        if value:
            return value
        remaining = deadline - monotonic()
        if remaining <= 0:
            give_up(timeout, about or getattr(ready, "__name__", "the condition"), value)
        if wake is not None:
            for _ in wake.notifies(timeout=min(0.5, remaining), stop_after=1):
                pass
        else:
            clock.wait(min(pause, remaining))
            pause = min(pause * 2, LAST_LOOK_AGAIN)


def give_up(timeout: float, about: str, last: object = None) -> NoReturn:
    """Fail the test, saying what was waited for."""
    pytest.fail(f"waited {timeout:g} s for {about}" + (f"; last seen: {last!r}" if last is not None else ""))


def needs(part: str) -> str:
    """The path of a program of PARTS, `chromium` for any such browser, or the origin of a module, `python:NAME`.

    Without it the test is skipped; under CI=true, where every part is to be there, it fails.
    """
    found = find(part)
    if found is None:
        way_out = "make installs it" if part.startswith("python:") else f"apt install {PARTS[part]}"
        reason = f"needs {part}, which is not installed: {way_out}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def find(part: str) -> str | None:
    """Where a part is, None if it is missing."""
    if part.startswith("python:"):
        module = importlib.util.find_spec(part.removeprefix("python:"))
        return (module.origin or part) if module else None
    if part == "older-postgres":
        return older_postgres()
    names = CHROMIUM if part == "chromium" else (part,)
    return next((path for path in map(shutil.which, names) if path), None)


def older_postgres() -> str | None:
    """The programs of the oldest server beside the tests' own that pgsig supports, where Debian keeps them."""
    own = find_binaries().major
    there = {int(path.parents[1].name): path.parent for path in DEBIAN.glob("[0-9]*/bin/initdb")}
    older = [major for major in sorted(there) if OLDEST_MAJOR <= major < own]
    return str(there[older[0]]) if older else None
