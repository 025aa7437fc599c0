"""A job's side of `pgsig.runner.door`. Needs nothing but Python's own library."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
from functools import cache
from time import monotonic
from typing import Any

from pgsig.errors import Conflict, NotFound, PgsigError, Unavailable

PATIENCE = 60.0  # seconds for which a call is repeated while the database is away and nothing was done
LONG_POLL = 25.0  # seconds that a call waits for something to happen


@cache
def about() -> dict[str, Any]:
    """The run's file. Raises PgsigError PS401 outside a run."""
    path = os.environ.get("PGSIG_RUN_FILE")
    if not path:
        raise PgsigError("this is not a run", code="PS401", fix="pgsig.run works in a job that a runner has started")
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        raise PgsigError(f"the run's file cannot be read: {error}", code="PS401", where=path) from error


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a first call should not pay for pathlib
        found: dict[str, Any] = json.load(file)
    return found


def call(method: str, path: str, body: Any = None, *, stopping: threading.Event) -> Any:
    """Ask the runner. What failed before anything was done is repeated for a minute, unless `stopping`; what may
    have been done is not."""
    run = about()
    until, pause = monotonic() + PATIENCE, 0.1
    while True:
        status, answer = _exchange(run, method, path, body)
        if status == 200:
            return answer
        error = _error(status, answer)
        # PS010, PS011: there was no connection. Later than that, a signal might be sent twice.
        if error.code not in ("PS010", "PS011") or monotonic() > until or stopping.is_set():
            raise error
        stopping.wait(random.uniform(pause / 2, pause))  # noqa: S311 - jitter
        pause = min(pause * 2, 2.0)


def _exchange(run: dict[str, Any], method: str, path: str, body: Any) -> tuple[int, Any]:
    """One request and its answer, over a connection of their own. By hand: `http.client` reads an answer's few headers with a parser for
    mail, and in a job that has just begun that takes longer than the request."""
    host, _, port = run["url"].removeprefix("http://").rpartition(":")
    text = b"" if method == "GET" else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {run['token']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    try:
        with socket.socket() as line:
            line.settimeout(LONG_POLL * 3)
            line.connect((host, int(port)))
            line.sendall(head.encode("ascii") + text)
            return _answer(line)
    except (OSError, ValueError) as error:
        raise Unavailable(f"the runner cannot be reached: {error}", code="PS408", fix="it may be ending") from error


def _answer(line: socket.socket) -> tuple[int, Any]:
    """The status and the JSON value of an answer. Raises OSError where it breaks off, ValueError where it is no answer of a runner."""
    length = 0
    with line.makefile("rb") as file:
        first = file.readline()
        while header := file.readline().rstrip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        text = file.read(length)
    if not first or len(text) < length:
        raise ConnectionError("the answer broke off")
    return int(first[9:12]), json.loads(text)


def _error(status: int, answer: Any) -> PgsigError:
    found = answer.get("error", {}) if isinstance(answer, dict) else {}
    problem = (found.get("errors") or [found])[0]
    kind = {404: NotFound, 409: Conflict, 503: Unavailable}.get(status, PgsigError)
    text = {name: str(problem.get(name, "")) for name in ("where", "fix")}
    return kind(str(problem.get("message", f"status {status}")), code=str(problem.get("code", "PS499")), **text)


def rehearse() -> None:
    """Do once, without a runner, what a call does: a forked job that calls later finds modules and pages ready."""
    with contextlib.suppress(ValueError):
        _read(os.devnull)
    with contextlib.suppress(PgsigError):  # at a port where nobody can be
        _exchange({"url": "http://127.0.0.1:0", "token": ""}, "POST", "/emit", {"key": "", "value": None})
    ours, theirs = socket.socketpair()
    answer = b'{"ids": [1]}\n'
    with ours, theirs:
        head = f"HTTP/1.1 200 OK\r\nServer: pgsig\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}"
        theirs.sendall(f"{head}\r\n\r\n".encode() + answer)
        _answer(ours)
