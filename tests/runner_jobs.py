"""Python callables that tests run as jobs."""

from __future__ import annotations

import http.server
import json
import os
import threading
from pathlib import Path
from types import ModuleType

import psycopg

from pgsig import run
from pgsig.errors import PgsigError


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


def listen_anew() -> None:
    """Comes with a cursor from before what was dropped, says what it is told, and begins with what is left."""
    try:
        next(run.signals("config.**", after=os.environ["CURSOR"]))
    except PgsigError as error:
        print(error)
    print("heard", next(run.signals("config.**", after="oldest")).key)
    run.emit("config.last")
    print("heard", next(run.signals("config.**")).key)


def hear() -> None:
    """Writes the values of signals, one in a line."""
    print("listening")
    for signal in run.signals(os.environ["HEARS"]):
        print(json.dumps(signal.value))


def hear_reloads() -> None:
    """Uses the iterator in place of the decorator."""
    for reload in run.reloads():
        print("reload", [signal.key for signal in reload.cause])


def web() -> None:
    """Answers on its own port with the status that a file says, 503 where there is none."""
    run.handle_stop()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PGSIG_PORT"])), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run.stopping.wait()
    server.shutdown()


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = Path(os.environ["STATUS"])
        self.send_response(int(status.read_text()) if status.exists() else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def beat() -> None:
    """Shows signs of life in all ways, one after the other, each when a file says so."""
    run.handle_stop()
    folder = Path(os.environ["GATE"])
    for name, sign in (
        ("beat", run.heartbeat),
        ("said", lambda: run.progress(1)),
        ("waited", lambda: run._call("GET", "/reload")),
    ):
        while not (folder / name).exists() and not run.stopping.wait(0.02):
            pass
        print(name, flush=True)
        sign()
        (folder / f"{name}.done").touch()
    run.stopping.wait()
