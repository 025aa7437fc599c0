"""What a runner needs of an engine: local processes, or a cluster's API.

One class with these methods, found by entry point `pgsig.runners`, which names its `Factory`.

The runner calls an engine from one thread. No method waits: what takes time is begun, and asked for by `poll`.
What a job has to say (ready, progress, reload) it says to the runner itself: see `pgsig.runner.door`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar, runtime_checkable

from pgsig.errors import InvalidInput, Problem
from pgsig.runner.place import Place
from pgsig.settings import Settings
from pgsig.store.jobs import Grant


class NotStarted(Exception):
    """A run could not be started. hopeless: nor will it be at another try."""

    def __init__(self, reason: str, *, hopeless: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hopeless = hopeless


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a job. code: its exit code, or None where a signal (`signal`, its name) ended it.

    cpu_seconds, memory_peak (bytes): what it used with all that it started, None where the engine cannot tell.
    """

    code: int | None
    signal: str = ""
    cpu_seconds: float | None = None
    memory_peak: int | None = None


class Handle(Protocol):
    """What an engine keeps of a job that it has started. identity: of an engine that is not lasting, it begins with the process id and the
    start time of the job's first process."""

    @property
    def identity(self) -> str:
        """The job in a line, such that `adopt` finds it again and never takes another one for it."""

    @property
    def wake(self) -> int | None:
        """A file descriptor that becomes readable when the job ends. None: there is none (any more), and `poll` is called often."""


H = TypeVar("H", bound=Handle)


class Engine(Protocol[H]):
    """See the module. `H` is the engine's own kind of handle; the runner hands them back as they are.

    lasting: whether its jobs outlive their runner. The next one takes them over by `adopt`, and one that ends, or whose grant is over,
    lets them go without ending them. No guard looks after them. On a runner's own machine they must carry neither PGSIG_RUNNER nor a
    path into its spool, by which the next runner knows what a dead one has left.
    """

    lasting: bool

    def start(self, grant: Grant, place: Place) -> H:
        """Begin a job. Its output goes to `place.output`, its environment is `place.env`. Raises NotStarted."""

    def poll(self, job: H) -> Exit | None:
        """The job's end, once nothing of it is left: no process of its tree, no container. Before that None."""

    def stop(self, job: H) -> None:
        """Ask the job to end."""

    def kill(self, job: H) -> None:
        """Make the job end, with everything that it started. Called again until `poll` says so."""

    def reload(self, job: H, by: str) -> bool:
        """Send the Unix signal named `by` (HUP, USR1, USR2). False: there is nobody to get it."""

    def adopt(self, identity: str, place: Place) -> H | None:
        """Take over a job that another runner started, or None where that cannot be done, or the job is gone. From here on its
        output goes to `place.output`. One that has ended meanwhile is taken over for its end, where that is known."""

    def close(self) -> None:
        """Release what the engine holds. No jobs are left."""


@runtime_checkable
class Expecting(Protocol):
    """What an engine may have, too."""

    def expect(self, starts: int) -> None:
        """So many jobs are going to be started, one right after the other: what can be begun for all of them is."""


GROUP = "pgsig.runners"


Factory = Callable[[Settings, str], Engine[Any]]


def engine_named(name: str) -> Factory:
    """What makes the engine that a package offers under this name, of a runner's settings and its mark: PGSIG_RUNNER in
    the environment of all its jobs. Raises InvalidInput PS003 where there is none."""
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in offered:
        fix = f"one of {', '.join(sorted(offered))}, or install the package that offers it"
        raise InvalidInput(
            [Problem("PS003", f'no engine is called "{name}"', "PGSIG_ENGINE", fix)], subject="the settings"
        )
    factory: Factory = offered[name].load()
    return factory
