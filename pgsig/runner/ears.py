"""Whether a job waits for signals. A runner that listens is woken whenever some were emitted, or, while workers are awake, taken: just when
a worker, and perhaps a job, has something to do; so it listens only while somebody waits for some, and a minute longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

KEEP = 60.0  # seconds after the last job has waited for signals


class Ears:
    """Between the threads that answer jobs and the one that has the connection. wake: makes that one look at `wanted`.

    rung: how often it rang. Who looks for signals reads it before, and waits with it after: nothing that is committed meanwhile is missed.
    """

    wake: Callable[[], None]

    def __init__(self) -> None:
        self.rung = 0
        self._bell = threading.Condition()
        self._until = float("-inf")
        self._open = False

    # ── for the threads that answer jobs ──

    def wait(self, rung: int, seconds: float) -> None:
        """Until it has rung more often than that, since signals may have arrived; at most so long, for a connection that is away.

        Nobody waits for the connection to listen: once it does, it rings for what came before.
        """
        self._until = monotonic() + KEEP
        if not self._open:
            self.wake()
        with self._bell:
            self._bell.wait_for(lambda: self.rung != rung, seconds)

    # ── for the one that has the connection ──

    @property
    def wanted(self) -> bool:
        """Whether to listen. To be followed by `listening`."""
        if monotonic() < self._until:
            return True
        self._open = False  # who begins to wait from here on wakes; who began before is seen now
        return monotonic() < self._until

    def listening(self, does: bool) -> None:
        begins, self._open = does and not self._open, does
        if begins:
            self.ring()

    def ring(self) -> None:
        """Signals may have arrived."""
        with self._bell:
            self.rung += 1
            self._bell.notify_all()
