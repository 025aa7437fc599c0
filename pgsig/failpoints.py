"""Failpoints: named places where a fault can be made to happen, for tests and soak runs.

`PGSIG_FAILPOINTS="taken=kill9,reported=raise:3"` kills the process with SIGKILL at the first `taken`, and raises at the third `reported`.
Actions: kill9 (SIGKILL), stop (SIGSTOP), raise (FailpointError). Without the variable a failpoint costs one look at a dictionary.
"""

from __future__ import annotations

import os
import signal
import threading

_LOCK = threading.Lock()


class FailpointError(RuntimeError):
    """Raised at a failpoint whose action is `raise`."""


def _read(text: str) -> dict[str, tuple[str, int]]:
    points: dict[str, tuple[str, int]] = {}
    for part in filter(None, text.split(",")):
        name, _, action = part.partition("=")
        action, _, count = action.partition(":")
        if action not in ("kill9", "stop", "raise"):
            raise ValueError(
                f'PGSIG_FAILPOINTS: "{part}" has no action: use {name}=kill9, stop or raise, with :N for the Nth time'
            )
        points[name.strip()] = (action, int(count or 1))
    return points


_points = _read(os.environ.get("PGSIG_FAILPOINTS", ""))


def arm(text: str) -> None:
    """Set the failpoints of this process, as the environment variable would."""
    with _LOCK:
        _points.clear()
        _points.update(_read(text))


def reached(name: str) -> None:
    """Say that execution got here."""
    if name not in _points:
        return
    with _LOCK:
        action, left = _points[name]
        if left > 1:
            _points[name] = (action, left - 1)
            return
        del _points[name]
    if action == "raise":
        raise FailpointError(name)
    os.kill(os.getpid(), signal.SIGKILL if action == "kill9" else signal.SIGSTOP)
