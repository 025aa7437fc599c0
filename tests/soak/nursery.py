"""Forks the processes of a soak: a fork of something that has imported everything starts in milliseconds, a program in a second.

`Nursery` is the caller's end; `python -m tests.soak.nursery FD` the other, which has one thread and may fork. They speak JSON lines:
{id, role, env, log} there, {id, pid} and {pid, status} back. What it forked dies with it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1


class Nursery:
    """start: fork a role with an environment. ended: what has ended since the last look, as (process id, exit status)."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._line = ours
        self._rest = b""
        self._ended: list[tuple[int, int]] = []
        self._number = 0

    def start(self, role: str, env: Mapping[str, str], log: Path) -> int:
        self._number += 1
        said = {"id": self._number, "role": role, "env": dict(env), "log": str(log)}
        self._line.sendall(json.dumps(said).encode() + b"\n")
        while True:
            for answer in self._read(30.0):
                if answer.get("id") == self._number:
                    return int(answer["pid"])

    def ended(self, wait: float = 0.0) -> list[tuple[int, int]]:
        if not self._ended:
            self._read(wait)
        found, self._ended = self._ended, []
        return found

    def _read(self, wait: float) -> list[dict[str, Any]]:
        if not select.select([self._line], [], [], wait)[0]:
            return []
        data = self._line.recv(65536)
        if not data:
            raise RuntimeError("the nursery ended")
        *lines, self._rest = (self._rest + data).split(b"\n")
        answers = [json.loads(line) for line in lines]
        self._ended += [(answer["pid"], answer["status"]) for answer in answers if "status" in answer]
        return [answer for answer in answers if "id" in answer]

    def close(self) -> None:
        self._line.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# ── the other end ──


def roles() -> dict[str, Callable[[], Any]]:
    """What can be forked: each makes an object with `run` and `stop` from the environment."""
    from pgsig.clock import Clock
    from pgsig.runner.loop import Runner
    from pgsig.settings import Settings
    from pgsig.worker import Worker
    from tests.soak.deployer import Deployer
    from tests.soak.emitter import Emitter

    def name() -> str:
        return os.environ["SOAK_SLOT"]

    return {
        "worker": lambda: Worker(Settings.from_env(), name=name()),
        "runner": lambda: Runner(Settings.from_env(), name=name()),
        "clock": lambda: Clock(Settings.from_env(), name=name()),
        "emitter": Emitter,
        "deployer": Deployer,
    }


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    known = roles()
    import pgsig.runner.guard
    import pgsig.web  # noqa: F401 - imported before the forks, as everything

    gc.collect()
    gc.freeze()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    rest = b""
    while True:
        ready, _, _ = select.select([line.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                tell(line, {"pid": pid, "status": status})
        if line.fileno() in ready:
            data = hear(line)
            if not data:
                os._exit(0)
            *lines, rest = (rest + data).split(b"\n")
            for text in lines:
                order = json.loads(text)
                pid = os.fork()
                if pid == 0:
                    os.close(woken)
                    os.close(wake)
                    line.close()
                    become(known[order["role"]], order["env"], order["log"])
                tell(line, {"id": order["id"], "pid": pid})


def hear(line: socket.socket) -> bytes:
    try:
        return line.recv(65536)
    except ConnectionResetError:
        return b""


def tell(line: socket.socket, what: dict[str, int]) -> None:
    try:
        line.sendall(json.dumps(what).encode() + b"\n")
    except OSError:
        os._exit(0)  # whoever asked is gone


def become(role: Callable[[], Any], env: dict[str, str], log: str) -> None:
    """Be that role until it ends. Never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(env)
        from pgsig import failpoints

        failpoints.arm(env.get("PGSIG_FAILPOINTS", ""))
        logging.basicConfig(level="WARNING", format="%(asctime)s %(process)d %(name)s %(message)s")
        what = role()
        signal.signal(signal.SIGTERM, lambda *_: what.stop())
        what.run()
        code = 0
    except BaseException:
        logging.getLogger("soak").exception("ended")
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
