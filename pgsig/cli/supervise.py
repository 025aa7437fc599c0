"""Keeps several programs running as children of this process: what `pgsig dev` and the demonstration stand
on.

A child that dies is started again, after a pause that grows while it keeps dying young. Children are in
sessions of their own, so that Ctrl-C reaches only this process, which ends them in order. If this process
dies by whatever means, the kernel ends them (Linux).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from pgsig.errors import PgsigError

HELPER = Path(__file__).with_name("_child.py")
YOUNG = 3.0  # seconds: a child that ends before was not able to work
MOST_YOUNG = 6  # young ends in a row of one child, after which everything is given up
LAST_WORDS = 1.0  # seconds in which what an ended child wrote is still read
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds before a child is started again


@dataclass(frozen=True)
class Program:
    """One child. name: in front of its lines. grace: seconds that it may take to end after SIGTERM."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    grace: float = 10.0


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    young: int = 0
    again_at: float | None = None
    reader: threading.Thread | None = None


def role(name: str, *, env: Mapping[str, str] | None = None, label: str = "", grace: float = 10.0) -> Program:
    """A role of pgsig as a child: `pgsig worker` and so on."""
    return Program(label or name, [sys.executable, "-m", "pgsig", name], env or {}, grace)


class Supervisor:
    """Starts programs in the order given and ends them in reverse order, each before the next.

    `run` in the main thread until `stop`, or `with Supervisor(…):` in a thread of its own. say: gets every
    line that a child writes, and what happens to children, with the program's name; by default they go to
    stderr.
    """

    def __init__(self, programs: Sequence[Program], *, say: Callable[[str, str], None] | None = None) -> None:
        self._children = [_Child(program) for program in programs]
        self._say = say or to_stderr
        self._events: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        self._stopping = False
        self._hurry = False
        self._thread: threading.Thread | None = None
        self._error: PgsigError | None = None
        self._started = threading.Event()

    def run(self) -> None:
        """Keep the programs running until `stop`. Raises PgsigError when one of them dies again and again."""
        # The kernel ties children to the thread that started them: all of it happens in this one.
        try:
            for child in self._children:
                self._start(child)
            self._started.set()
            while not self._stopping:
                self._turn()
        finally:
            self._started.set()
            self._end()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ask `run` to end everything and return. From any thread or signal handler."""
        self._stopping = True
        self._events.put(None)

    def hurry(self) -> None:
        """Like `stop`, and wait for nobody."""
        self._hurry = self._stopping = True
        self._events.put(None)

    def pids(self) -> dict[str, int]:
        """The process ids of the children that are alive, by name."""
        alive = {child.program.name: child.process for child in self._children}
        return {name: each.pid for name, each in alive.items() if each is not None and each.poll() is None}

    def __enter__(self) -> Self:
        def work() -> None:
            try:
                self.run()
            except PgsigError as error:
                self._say("pgsig", str(error))

        self._thread = threading.Thread(target=work, name="supervisor")
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    # ── children ──

    def _turn(self) -> None:
        """Start what is to be started again, then wait for a child's end, `stop`, or the next start."""
        due = [child.again_at for child in self._children if child.again_at is not None]
        try:
            child = self._events.get(timeout=max(0.0, min(due) - monotonic()) if due else None)
        except queue.Empty:
            child = None
        if child is not None:
            self._ended(child)
        for each in self._children:
            if not self._stopping and each.again_at is not None and each.again_at <= monotonic():
                self._start(each)

    def _start(self, child: _Child) -> None:
        command = [sys.executable, "-I", "-S", str(HELPER), str(os.getpid()), *child.program.argv]
        child.again_at, child.started = None, monotonic()
        child.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **child.program.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        name = f"{child.program.name} {child.process.pid}"
        given = (child, child.process)
        child.reader = threading.Thread(target=self._read, args=given, name=f"output of {name}", daemon=True)
        child.reader.start()
        threading.Thread(target=self._watch, args=given, name=f"end of {name}", daemon=True).start()

    def _read(self, child: _Child, process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed under us: nobody wants the rest
            if process.stdout is not None:
                with process.stdout:
                    for line in process.stdout:
                        self._say(child.program.name, line.rstrip("\n"))

    def _watch(self, child: _Child, process: subprocess.Popen[str]) -> None:
        process.wait()
        self._events.put(child)

    def _ended(self, child: _Child) -> None:
        if child.process is None or child.process.poll() is None or child.again_at is not None:
            return
        how, name = child.process.returncode, child.program.name
        self._kill_group(child.process)
        child.young = child.young + 1 if monotonic() - child.started < YOUNG else 0
        if child.young >= MOST_YOUNG:
            self._error = PgsigError(
                f"{name} ended {child.young} times right after its start ({_how(how)})",
                code="PS550",
                fix="see its lines above",
            )
            self._stopping = True
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, child.young - 1))
        self._say("pgsig", f"{name} ended ({_how(how)}), starting it again")
        child.again_at = monotonic() + pause

    # ── the end ──

    def _end(self) -> None:
        """All of them politely, the last one first; then one after the other with everything that is left of its group."""
        for child in reversed(self._children):
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        for child in reversed(self._children):
            process = child.process
            if process is None:
                continue
            if process.poll() is None:
                deadline = monotonic() + child.program.grace
                while process.poll() is None and not self._hurry and monotonic() < deadline:
                    with contextlib.suppress(queue.Empty):
                        self._events.get(timeout=min(0.5, max(0.0, deadline - monotonic())))
                if process.poll() is None:
                    self._say("pgsig", f"{child.program.name} did not end in time, killing it")
            self._kill_group(process)
            process.wait()
            if child.reader is not None:
                child.reader.join(LAST_WORDS)

    @staticmethod
    def _kill_group(process: subprocess.Popen[str]) -> None:
        """What a child leaves behind in its session ends with it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def to_stderr(name: str, line: str) -> None:
    """A child's line with its name in front."""
    from pgsig.cli.output import harmless

    with contextlib.suppress(OSError, ValueError):
        print(f"{name:>8} | {harmless(line)}", file=sys.stderr, flush=True)


def _how(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
