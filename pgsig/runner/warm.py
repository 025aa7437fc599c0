"""The runner's end of its fork server: children that need no interpreter any more. See `pgsig.runner.forkserver`.

A few children stand ready. One gets its order by a single message, and another is asked for meanwhile. Where the server is
not there yet, or slow, or dead, a job starts cold: nothing waits for it but for a moment.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from time import monotonic

from pgsig.runner import linux
from pgsig.runner.child import exit_of
from pgsig.runner.engine import Exit

log = logging.getLogger(__name__)
SERVER = str(Path(__file__).with_name("forkserver.py"))
SPARES = 2  # children that stand ready
FORKED_WITHIN = 0.5  # seconds for a child, before the job starts cold
TOLD_WITHIN = 0.05  # seconds in which an end is told usually
SILENT_FOR = 5.0  # seconds after which a server that does not answer is taken for dead
# What an interpreter, its loader and its libraries look at once, when they begin. Where a job has it otherwise it starts cold.
AT_START = re.compile(r"(PYTHON|LD_|LC_|MALLOC_|GLIBC_|OMP_|OPENBLAS_|MKL_|BLIS_|NUMEXPR_)\w*|LANG|HOME")
HONOURED = ("PYTHONPATH",)
CUSTOMISE = ("sitecustomize.py", "usercustomize.py")


def possible() -> bool:
    """Whether children can be forked and followed here: on Linux."""
    return sys.platform == "linux" and hasattr(os, "fork") and hasattr(os, "pidfd_open")


class Pool:
    """A fork server and its children. environment: what every job of this runner has.

    preload: modules that it imports beforehand. cells: the folder for their cgroups.
    """

    def __init__(
        self, environment: Mapping[str, str], preload: tuple[str, ...] = (), cells: Path | None = None
    ) -> None:
        self._own = dict(environment)
        self._spares: deque[WarmChild] = deque()
        self._ends: dict[int, list[bytes]] = {}
        self._awaited: set[int] = set()  # whose ends were asked for
        self._numbers = count(1)
        self._asked = 0
        self._came = False
        self._avoid_until = 0.0
        self.dead = False
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        given = json.dumps({
            "line": theirs.fileno(), "preload": preload, "path": path if preload else [], "cells": str(cells or ""),
        })  # fmt: skip
        room = {"PGSIG_RUN_FILE": "." * linux.ROOM}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, SERVER, given.ljust(256)], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                start_new_session=True, env=self._own | room,
            )  # fmt: skip
        self._replenish(b"fork")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ready(self) -> bool:
        """Whether a child stands ready."""
        self._hear(0.0)
        return bool(self._spares)

    def honours(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork can be what a new interpreter with this environment would be."""
        for name in {*environment, *self._own}:
            if environment.get(name) != self._own.get(name) and name not in HONOURED and AT_START.fullmatch(name):
                return False
        path = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
        return not any(os.path.exists(f"{entry}/{name}") for entry in path for name in CUSTOMISE)  # noqa: PTH110

    def start(self, target: str, environment: Mapping[str, str], cwd: str, output: int) -> WarmChild | None:
        """Call a target. output: a file descriptor. None: it has not begun, and must start cold."""
        parts = [target, cwd, *(f"{name}={value}" for name, value in environment.items())]
        if any("\0" in part for part in parts) or any("=" in name for name in environment):
            return None
        order = "\0".join(parts).encode("utf-8", "surrogateescape")
        while child := self._next():
            if child.take(order, output):
                return child
            if child.too_long:
                self._spares.append(child)
                return None
            self._send(b"bury %d 0" % child.pid)  # somebody has killed it
        return None

    def expect(self, starts: int) -> None:
        """So many starts come at once: their children are forked while the first of them begin."""
        self._hear(0.0)
        while not self.dead and self._came and len(self._spares) + self._asked < starts:
            self._asked += 1
            self._send(b"fork")

    def _next(self) -> WarmChild | None:
        self._hear(0.0)
        word = b"later" if self._spares else b"fork"
        if not self._spares and self._asked:
            self._send(b"now")
        if not self._spares and self._came and self._asked and monotonic() > self._avoid_until:
            until = monotonic() + FORKED_WITHIN
            while not self._spares and self._asked and not self.dead and (left := until - monotonic()) > 0:
                self._hear(left)
            if not self._spares:
                self._avoid_until = monotonic() + SILENT_FOR
        child = self._spares.popleft() if self._spares else None
        self._replenish(word)
        return child

    def _replenish(self, word: bytes) -> None:
        while not self.dead and len(self._spares) + self._asked < SPARES:
            self._asked += 1
            self._send(word)

    def ask(self, word: str, child: WarmChild) -> None:
        """Ask for the end of a child: `reap` or `bury`."""
        self._awaited.add(child.number)
        self._send(f"{word} {child.pid} {child.number}".encode())

    def answer(self, child: WarmChild, wait: float) -> list[bytes] | None:
        """What the server says within `wait` seconds: b"left", or b"end" and status, seconds, KiB; b"end" alone where it cannot tell."""
        until = monotonic() + wait
        while child.number not in self._ends and not self.dead and (left := until - monotonic()) > 0:
            self._hear(left)
        self._hear(0.0)
        said = self._ends.pop(child.number, [b"end"] if self.dead else None)
        if said and said[0] == b"end":
            self._awaited.discard(child.number)
        return said

    def _send(self, text: bytes) -> None:
        try:
            self._line.send(text, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.kill("does not listen")
        except OSError:
            self._lost()

    def _hear(self, wait: float) -> None:
        """Take in all that was said, waiting for the first word only."""
        poll = select.poll()
        if not self.dead:
            poll.register(self._line, select.POLLIN)
        while not self.dead and poll.poll(wait * 1000):
            wait = 0.0
            try:
                data, files, _, _ = socket.recv_fds(self._line, 128, 1)
            except OSError:
                data, files = b"", []
            word, *rest = data.split()[:5] or [b""]
            if word == b"child":
                self._asked -= 1
                self._came = True
                with contextlib.suppress(
                    OSError, IndexError
                ):  # gone, or no file descriptor is left for it: then it ends
                    self._spares.append(
                        WarmChild(
                            self, next(self._numbers), int(rest[0]), rest[1] == b"1", socket.socket(fileno=files[0])
                        )
                    )
            elif word == b"failed":
                self._asked -= 1
                log.warning("the fork server cannot fork: %s", os.strerror(int(rest[0])))
                self._avoid_until = monotonic() + SILENT_FOR
            elif word in {b"end", b"left"}:
                if int(rest[0]) in self._awaited:
                    self._ends.setdefault(int(rest[0]), [word, *rest[1:]])
            else:
                self._lost()

    def kill(self, why: str) -> None:
        """It is of no use: end it. The jobs go on."""
        log.error("the fork server %s", why)
        self._process.kill()
        self._lost()

    def _lost(self) -> None:
        if not self.dead:
            self.dead = True
            self._release()

    def _release(self) -> None:
        self._line.close()
        while self._spares:
            self._spares.pop().close()  # without a socket it ends
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Dismiss the server. No jobs are left."""
        self._lost()


class WarmChild:
    """A child of the fork server: ready, or a job. See `pgsig.runner.child`. number: its own among all of this pool. in_cell:
    whether it has a cgroup."""

    def __init__(self, pool: Pool, number: int, pid: int, in_cell: bool, channel: socket.socket) -> None:
        self.pool = pool
        self.number = number
        self.pid = pid
        self.in_cell = in_cell
        self.channel = channel
        self.too_long = False
        self._asked_at: float | None = None
        try:
            self.pidfd: int | None = os.pidfd_open(pid)
        except OSError:
            channel.close()
            raise

    @property
    def orphan(self) -> bool:
        return self.pool.dead

    def take(self, order: bytes, output: int) -> bool:
        """Give it an order. False: it cannot take it."""
        try:
            socket.send_fds(self.channel, [order], [output])
        except OSError as error:
            self.too_long = error.errno == errno.EMSGSIZE
            if not self.too_long:
                self.close()
            return False
        return True

    def ended(self) -> bool:
        assert self.pidfd is not None
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def alone(self) -> Exit | None:
        self.pool.ask("reap", self)
        said = self.pool.answer(self, TOLD_WITHIN)
        return self._end(said) if said and said[1:] else None  # from a dead one nothing is to be learned

    def reap(self) -> Exit | None:
        now = monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self.pool.ask("bury", self)
        said = self.pool.answer(self, TOLD_WITHIN if self._asked_at == now else 0.0)
        if said and said[0] == b"left":  # the answer to the question before
            return None
        if said is None and now > self._asked_at + SILENT_FOR:
            self.pool.kill("does not answer")
        return self._end(said) if said else None

    def _end(self, said: list[bytes]) -> Exit:
        end = exit_of(int(said[1]), float(said[2]), int(said[3])) if said[1:] else self._word()
        self.close()
        return end

    def _word(self) -> Exit:
        """What the job itself said of its end, where its fork server is dead. Killed, it could say nothing."""
        with contextlib.suppress(OSError, ValueError):
            return Exit(int(self.channel.recv(16, socket.MSG_DONTWAIT)))
        return Exit(None, "an unknown signal, its fork server was killed too")

    def close(self) -> None:
        self.channel.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
