"""What the soak's runs execute: `python job.py batch|stream`, or `warm` in here. Writes down that it ran, when, and under which grant.

SOAK        the folder: jobs.jsonl gets a line at start and end, forced to the disk; beats/ a file with when a process was last alive
locks/      a file for each (operator, subject) whose runs may not overlap, locked while a run lives: who cannot have it has met another
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

FOLDER = os.environ["SOAK"]
with open(os.environ["PGSIG_RUN_FILE"], encoding="utf-8") as file:  # noqa: PTH123 - a start should not pay for pathlib
    ABOUT: dict[str, Any] = json.load(file)
NAME = f"{ABOUT['namespace']}.{ABOUT['operator']}.{ABOUT['subject']}"
BOOK = os.open(f"{FOLDER}/jobs.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def note(what: str, **more: Any) -> None:
    line = {"what": what, "name": NAME, "run": ABOUT["id"], "epoch": ABOUT["epoch"], "attempt": ABOUT["attempt"], "at": now(),
            "pid": os.getpid(), **more}  # fmt: skip
    os.write(BOOK, json.dumps(line).encode() + b"\n")
    os.fsync(BOOK)


def lock() -> None:
    """Held until this process is no more."""
    handle = os.open(f"{FOLDER}/locks/{NAME}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("met", holder=os.pread(handle, 200, 0).decode())
        return
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps([ABOUT["id"], ABOUT["epoch"], os.getpid()]).encode(), 0)


def chance(percent: int, salt: str) -> bool:
    """The same answer for the same grant."""
    return hash((ABOUT["id"], ABOUT["epoch"], len(salt))) % 100 < percent


def batch() -> int:
    select.select([], [], [], (ABOUT["id"] % 7) * 0.01)
    if chance(10, "emit"):
        from pgsig import run
        from pgsig.errors import PgsigError

        tag = f"{ABOUT['id']}-{ABOUT['epoch']}"
        try:
            run.progress(1, 2)
            run.checkpoint(tag)
            position = run.emit("load.done", {"tag": tag}, ABOUT["subject"] or "none", event_id=tag)
            run.result({"run": ABOUT["id"]})
            note("emitted", signal=position)
        except PgsigError as error:
            note("refused", code=error.code)
    return 3 if chance(4, "fail") else 0


def stubborn() -> int:
    """Does not end when it is asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def stream() -> int:
    from pgsig import run
    from pgsig.errors import PgsigError

    run.handle_stop()
    beats = os.open(f"{FOLDER}/beats/{ABOUT['id']}-{ABOUT['epoch']}", os.O_WRONLY | os.O_CREAT, 0o600)

    @run.on_reload
    def again(reload: run.Reload) -> None:
        note("reloaded", reload=reload.id)

    count = 0
    try:
        run.ready()
    except PgsigError as error:  # the grant is over, or the database is away for longer than a minute
        note("refused", code=error.code)
    while not run.stopping.wait(0.1):
        os.pwrite(beats, f"{now():.6f}\n".encode(), 0)
        count += 1
        if count % 30 == 0 and not os.path.exists(f"{FOLDER}/quiet"):  # noqa: PTH110
            tag = f"{ABOUT['id']}-{ABOUT['epoch']}-{count}"
            try:
                note("emitted", signal=run.emit("load.done", {"tag": tag}, ABOUT["subject"], event_id=tag))
            except PgsigError as error:
                note("refused", code=error.code)
                if error.code in ("PS402", "PS403"):
                    return 1
    return 0


def do(work: Callable[[], int]) -> int:
    note("start")
    if ABOUT["operator"] != "front":  # of which two may live while one takes over
        lock()
    exit_code = work()
    note("end", code=exit_code)
    sys.stdout.flush()
    return exit_code


def warm() -> None:
    """As `python job.py batch`, called by a child of the fork server."""
    sys.exit(do(batch))


if __name__ == "__main__":
    os._exit(do(stubborn if ABOUT["operator"] == "stubborn" else batch if sys.argv[1] == "batch" else stream))
