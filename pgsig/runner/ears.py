"""Whether a job waits for signals. A runner that listens to them is woken by each that is emitted, just when a worker, and perhaps a job,
has something to do; so it listens only while somebody waits for some, and a minute longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

KEEP = 60.0  # seconds after the last job has asked for signals
LISTENS_WITHIN = 1.0  # seconds for the thread that has the connection: where the database is away, polls have to do


class Ears:
    """Between the threads that answer jobs and the one that has the connection. wake: makes that one look at `wanted`."""

    wake: Callable[[], None]

    def __init__(self) -> None:
        self._bell = threading.Condition()
        self._until = float("-inf")
        self._open = threading.Event()

    # ── for the threads that answer jobs ──

    def listen(self) -> None:
        """To be called before each look: a signal that is committed after this has returned rings."""
        self._until = monotonic() + KEEP
        if not self._open.is_set():
            self.wake()
            self._open.wait(LISTENS_WITHIN)

    def wait(self, seconds: float) -> None:
        """Until signals may have arrived. A ring between the look and this is lost: `seconds` should not be many."""
        with self._bell:
            self._bell.wait(seconds)

    # ── for the one that has the connection ──

    @property
    def wanted(self) -> bool:
        """Whether to listen."""
        return monotonic() < self._until

    def listening(self, does: bool) -> None:
        if does:
            self._open.set()
        else:
            self._open.clear()

    def ring(self) -> None:
        """Signals may have arrived."""
        with self._bell:
            self._bell.notify_all()
