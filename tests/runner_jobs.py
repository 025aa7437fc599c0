"""Python callables that tests run as jobs."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import psycopg

from pgsig import run


def tell() -> None:
    """A batch job that says all it knows, and leaves a result."""
    print("cause", [(signal.key, signal.value) for signal in run.cause], "params", run.params)
    first = run.emit("job.said", {"n": 1}, subject="s")
    second = run.emit_many([{"key": "job.said", "value": 2}, {"key": "job.said", "value": 3}])
    with psycopg.connect(os.environ["WHERE"]) as connection:
        run.emit("job.kept", connection=connection)
        connection.commit()
        run.emit("job.undone", connection=connection)
        connection.rollback()
    run.progress(3, 10, "on the way")
    run.checkpoint({"at": 7})
    run.result({"emitted": [first, *second]})


def counted(run: ModuleType) -> None:
    """Fails until its third attempt, and remembers by checkpoints."""
    seen = (run.checkpoint_value or 0) + 1
    run.checkpoint(seen)
    print(f"attempt {run.attempt} checkpoint {seen}")
    if seen < 3:
        raise SystemExit(4)


def serve() -> None:
    """A service that is ready when a file says so, reloads, and ends when asked."""
    run.handle_stop()

    @run.on_reload
    def again(reload: run.Reload) -> None:
        print("reloading with", [signal.value for signal in reload.cause])
        if any(signal.value == "bad" for signal in reload.cause):
            raise ValueError("a bad configuration")

    gate = os.environ.get("GATE")
    while gate and not Path(gate).exists() and not run.stopping.wait(0.02):
        pass
    run.ready()
    run.stopping.wait()
    print("ended in good order")


def listen() -> None:
    """Follows signals until it is asked to stop."""
    print("listening")
    for signal in run.signals("config.**"):
        print("heard", signal.key, signal.value)
    print("done listening")


def hear_reloads() -> None:
    """Uses the iterator in place of the decorator."""
    for reload in run.reloads():
        print("reload", [signal.key for signal in reload.cause])
