"""The end of a forked job: all that an interpreter does when it ends, but for taking apart what was there before the job.

That would write to every page that the job shares with its server, for 8 ms, and nobody would be the better for it.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import weakref
from collections.abc import Collection, Mapping
from types import ModuleType


def leave(code: int, known: Mapping[str, ModuleType]) -> None:
    """End this process. known: modules that were there before. Returns where only the interpreter itself can do it: other threads
    are alive, or output cannot be written."""
    wait_for_threads = getattr(threading, "_shutdown", None)
    run_exit_functions = getattr(atexit, "_run_exitfuncs", None)
    if threading.active_count() > 1 or wait_for_threads is None or run_exit_functions is None:
        return
    if getattr(threading, "_threading_atexits", True):  # there is nobody to wait for
        wait_for_threads()
    run_exit_functions()
    _forget(_new(known))
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError, AttributeError):
        return
    os._exit(code)


def _new(known: Mapping[str, ModuleType]) -> list[str]:
    """The names of what was imported since. They are the last ones: to touch the others would copy the pages that they are on."""
    names = []
    for name in reversed(sys.modules):
        if name in known and sys.modules[name] is known[name]:
            break
        names.append(name)
    return names[::-1]


def _forget(names: Collection[str]) -> None:
    """Let go of modules, and of all that only they hold: files are flushed, and `__del__` is called."""
    alive: list[weakref.ref[ModuleType]] = []
    for name in names:
        module = sys.modules.pop(name, None)
        if isinstance(module, ModuleType):
            alive.append(weakref.ref(module))
        del module
    gc.collect()
    for held in alive:
        found = held()
        if found is not None:
            vars(found).clear()
    gc.collect()
