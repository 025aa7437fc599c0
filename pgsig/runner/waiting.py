"""Waiting for file descriptors, of which a runner may have more than select() can count to, and being woken meanwhile."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterable


def readable(files: Iterable[int], timeout: float) -> set[int]:
    """Those of `files` that can be read, or have ended, as soon as there are any; none after `timeout` seconds."""
    poll = select.poll()
    for number in files:
        if number >= 0:
            poll.register(number, select.POLLIN)
    # Rounded up: rounding down would turn the last millisecond into a busy loop.
    return {number for number, _ in poll.poll(int(timeout * 1000 + 0.999))}


class Waker:
    """A file descriptor that any thread, or a signal handler, can make readable."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        return self._read.fileno()

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake anyway; or closed
            self._write.send(b".")

    def clear(self) -> None:
        """Not woken any more."""
        with contextlib.suppress(BlockingIOError):
            while len(self._read.recv(4096)) == 4096:
                pass

    def close(self) -> None:
        self._read.close()
        self._write.close()
