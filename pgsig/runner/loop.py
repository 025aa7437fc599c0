"""The runner: one process that executes runs. Its own thread supervises jobs and never waits for the database.

    Link (thread)  ── events ──►  Runner (this thread)  ── start, stop, kill ──►  engine ──► jobs
         ▲                             │                                                    │
         └───────── what to tell ──────┴────────── Door (threads): what jobs say ◄──────────┘

A guard process beside it ends the jobs when this process dies or freezes. What becomes of a run that ended is decided in
`pgsig.decide.retry`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from time import monotonic
from typing import Any

from pgsig.runner.dispositions import keep_to_oneself
from pgsig.runner.door import Door
from pgsig.runner.engine import Engine, Factory, engine_named
from pgsig.runner.events import Event, Probed
from pgsig.runner.fence import Fence
from pgsig.runner.job import Job
from pgsig.runner.link import Link
from pgsig.runner.place import Spool
from pgsig.runner.probe import Prober
from pgsig.runner.supervisor import Supervisor
from pgsig.runner.waiting import Waker, readable
from pgsig.settings import Settings

ENDING_PATIENCE = 5.0  # seconds beyond the lease for a database that is away when the runner ends


class Runner:
    """See the module. `run()` returns when `stop()` was called, by any thread or signal handler, and everything has ended.

    settings: pools, labels, capacity, lease, spool, engine. name: shown to people, host and process id by default; two runners
    may share it.
    """

    def __init__(self, settings: Settings, *, name: str = "", engine: Engine[Any] | None = None) -> None:
        self.settings = settings
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._engine_of: Factory = (lambda *_: engine) if engine else engine_named(settings.engine)
        self.link: Link | None = None
        self.supervisor: Supervisor | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._waker = Waker()
        self._stop = threading.Event()
        self._hurry = False
        self._moved_at = monotonic()

    @property
    def jobs(self) -> dict[int, Job]:
        """What is being executed, by run."""
        return self.supervisor.jobs if self.supervisor else {}

    def stop(self) -> None:
        """Begin to end: no new runs, jobs asked to end and given to others; batch runs go on for `drain_seconds` first. Called
        again, nothing is waited for but the jobs' own grace. Returns at once."""
        self._hurry = self._stop.is_set()
        self._stop.set()
        self._waker.wake()

    def _tell(self, event: Event) -> None:
        self._events.put(event)
        self._waker.wake()

    def _alive(self) -> bool:
        return monotonic() - self._moved_at < self.settings.lease_seconds / 2

    def run(self) -> None:
        """Work until stopped. Raises OSError where the spool cannot be used, RuntimeError without a guard."""
        keep_to_oneself()
        with contextlib.ExitStack() as stack:
            stack.callback(self._waker.close)
            spool = Spool(self.settings.spool)
            stack.callback(spool.close)
            fence = Fence(spool.mark)
            stack.callback(fence.close)
            door = Door(self.settings)
            stack.callback(door.close)
            engine = self._engine_of(self.settings, spool.mark)
            stack.callback(engine.close)
            spool.reuses = (
                not engine.lasting
            )  # of one that lasts, a job may be alive when its run is no more its runner's
            link = Link(self.settings, self.name, fence, tell=self._tell, alive=self._alive, ears=door.ears)
            door.say = link.say
            prober = Prober(lambda key, problem: self._tell(Probed(*key, problem)))
            stack.callback(prober.close)
            supervisor = Supervisor(self.settings, engine, spool, fence, link, door, prober)
            self.link, self.supervisor = link, supervisor
            self._moved_at = monotonic()
            link.thread.start()
            try:
                while not (supervisor.stopping and not supervisor.jobs and self._events.empty()):
                    ready = readable([self._waker.fileno(), fence.fileno(), *supervisor.files()], supervisor.patience())
                    self._moved_at = monotonic()
                    self._hear(supervisor)
                    supervisor.look(ready)
                    if self._stop.is_set() and not supervisor.stopping:
                        link.claiming = False
                        supervisor.stop(self.settings.drain_seconds)
                    elif self._hurry:
                        self._hurry = False
                        supervisor.stop()
            finally:
                supervisor.abandon()
                self._end(link, supervisor)

    def _hear(self, supervisor: Supervisor) -> None:
        self._waker.clear()
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            while True:
                events.append(self._events.get_nowait())
        supervisor.hear_all(events)

    def _end(self, link: Link, supervisor: Supervisor) -> None:
        patience = self.settings.lease_seconds + ENDING_PATIENCE
        link.finish(patience)
        # Still listening: the link may have to hear that everything is over.
        until = monotonic() + patience + ENDING_PATIENCE
        while link.thread.is_alive() and monotonic() < until:
            link.thread.join(0.01)
            self._hear(supervisor)
