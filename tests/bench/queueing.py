"""A discrete-event simulation: processes that want processors, wait until a log is flushed, and hold locks.

Pure and deterministic: nothing here knows pgsig or a clock. Time is in µs. A process is a generator that yields what it waits for.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from functools import partial

Resume = Callable[[], None]
Wait = Callable[[Resume], None]  # begins a wait; the process goes on when the other is called
Process = Generator[Wait, None, None]


class World:
    """The time, and what is going to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Resume]] = []
        self._number = 0

    def after(self, delay: float, call: Resume) -> None:
        self._number += 1  # what is due at one time happens in the order in which it was asked for
        heapq.heappush(self._events, (self.now + delay, self._number, call))

    def sleep(self, delay: float) -> Wait:
        return partial(self.after, delay)

    def start(self, process: Process) -> None:
        def resume() -> None:
            wait = next(process, None)
            if wait is not None:
                wait(resume)

        resume()

    def run(self, until: float = float("inf")) -> None:
        """Let time pass until then, or until nothing is going to happen."""
        while self._events and self._events[0][0] <= until:
            self.now, _, call = heapq.heappop(self._events)
            call()
        if until < float("inf"):
            self.now = until


class Cores:
    """Processors with one queue. Who is at work for longer than `turn` goes to its end."""

    def __init__(self, world: World, count: int, turn: float = 1000.0) -> None:
        self.count, self.busy = count, 0.0
        self._world, self._turn, self._free = world, turn, count
        self._queue: deque[tuple[float, Resume]] = deque()

    def work(self, micros: float, *, goes_on: bool = False) -> Wait:
        """goes_on: after work that ended this very moment, without giving the processor away."""

        def begin(resume: Resume) -> None:
            (self._queue.appendleft if goes_on else self._queue.append)((micros, resume))
            self._serve()

        return begin

    def _serve(self) -> None:
        while self._free and self._queue:
            left, resume = self._queue.popleft()
            part = min(left, self._turn)
            self._free -= 1
            self.busy += part
            self._world.after(part, partial(self._end, left - part, resume))

    def _end(self, left: float, resume: Resume) -> None:
        self._free += 1
        if left > 0:
            self._queue.append((left, resume))
        else:
            resume()
        self._serve()


class Event:
    """Wakes all that wait for it."""

    def __init__(self) -> None:
        self._waiting: list[Resume] = []

    def wait(self, resume: Resume) -> None:
        self._waiting.append(resume)

    def fire(self) -> None:
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()


class Lock:
    """First come, first served."""

    def __init__(self) -> None:
        self._held = False
        self._queue: deque[Resume] = deque()

    def acquire(self, resume: Resume) -> None:
        if self._held:
            self._queue.append(resume)
            return
        self._held = True
        resume()

    def release(self) -> None:
        if self._queue:
            self._queue.popleft()()
        else:
            self._held = False


class Log:
    """A log of which a commit is flushed before it is answered. One flush at a time, and it takes everything that was written before it
    began: commits that come meanwhile share the next one. All are woken when it ends, as by Postgres, and whoever has a processor first
    flushes next.

    device: µs of a flush in which nobody works. work: µs of processor of a flush. rate: bytes a µs that the device takes. wake: µs of
    processor of whoever has waited for somebody else's flush, to sleep and to look again.
    """

    def __init__(
        self, world: World, cores: Cores, *, device: float, work: float, rate: float = float("inf"), wake: float = 0.0
    ) -> None:
        self.written, self.flushes, self.busy = 0.0, 0, 0.0
        self._world, self._cores = world, cores
        self._device, self._work, self._rate, self._wake = device, work, rate, wake
        self._flushed, self._busy, self._ended = 0.0, False, Event()

    def write(self, size: float) -> None:
        self.written += size

    def flush(self) -> Process:
        """Wait until what was written by now is safe."""
        mine = self.written
        while self._flushed < mine:
            if self._busy:
                yield self._ended.wait
                yield self._cores.work(self._wake)  # who is woken needs a processor to look
                continue
            self._busy, begin, until = True, self._world.now, self.written
            yield self._cores.work(self._work / 2, goes_on=True)
            yield self._world.sleep(self._device + (until - self._flushed) / self._rate)
            yield self._cores.work(self._work / 2)
            self.flushes += 1
            self.busy += self._world.now - begin
            self._flushed, self._busy = until, False
            self._ended.fire()
