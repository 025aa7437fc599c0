"""Failpoints: named places where a fault can be made to happen, for tests and soak runs.

`PGSIG_FAILPOINTS="engine.taken=kill9,link.reported=raise:3"` kills the process with SIGKILL at the first `engine.taken`, and raises at
the third `link.reported`. Actions: kill9 (SIGKILL), stop (SIGSTOP), raise (FailpointError), sleep=SECONDS. Each happens once.
`PGSIG_FAILPOINTS_LOG` names a file that gets a line, "process name action", before the fault. `PGSIG_FAILPOINTS_DELAY=0.3` holds a
process up at one failpoint in twenty, whichever, for up to so many seconds: what relies on somebody else being slower, or quick,
shows it. Without the variables a failpoint costs a look at an empty list and at an empty dictionary.
"""

from __future__ import annotations

import difflib
import os
import re
import signal
import threading
from dataclasses import dataclass

from pgsig.errors import InvalidInput, Problem

WHERE = "PGSIG_FAILPOINTS"
DELAY = "PGSIG_FAILPOINTS_DELAY"
DELAYED = 0.05  # of all failpoints
ACTIONS = "kill9, stop, raise or sleep=SECONDS"
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?|\.\d{1,6}")


@dataclass(frozen=True, slots=True)
class Place:
    """role: whose process gets there. about: what has just happened, or is about to."""

    role: str
    about: str


# Every name there is. A test finds one that is used and not listed, and one that is listed and not used.
NAMES: dict[str, Place] = {
    "engine.taken": Place("worker", "signals are taken, nothing is decided"),
    "engine.decided": Place("worker", "what follows is decided, no instance is locked"),
    "engine.locked": Place("worker", "instances are locked and ids reserved, nothing is written"),
    "engine.recorded": Place("worker", "everything is written, nothing is committed"),
    "engine.committed": Place("worker", "a step is committed, nobody was told"),
    "engine.timers": Place("worker", "timers that fell due are about to become signals"),
    "worker.joined": Place("worker", "a worker has announced itself"),
    "worker.tending": Place("worker", "its lease is about to be renewed, the runs of the dead to be found"),
    "worker.resting": Place("worker", "it has found nothing and is about to sleep"),
    "bell.armed": Place("worker", "it holds the bell, or stands in line for it, and has not looked again"),
    "bell.disarmed": Place("worker", "it said that it is awake, and has not let the bell go"),
    "reap.found": Place("runner", "the runs of the dead are found, none is given to others"),
    "reap.reported": Place("runner", "one of them is given to others, the next ones are not"),
    "link.connected": Place("runner", "a runner has its connections, and no lease yet"),
    "link.joined": Place("runner", "it is known to the database, its guard does not know of the lease"),
    "link.renewing": Place("runner", "its lease is about to be renewed"),
    "link.renewed": Place("runner", "its lease is renewed, its guard does not know"),
    "link.comparing": Place("runner", "what it was granted is about to be compared with what it executes"),
    "link.claiming": Place("runner", "runs are about to be claimed"),
    "link.claimed": Place("runner", "runs are granted to it, and it remembers nothing of them"),
    "link.granted": Place("runner", "grants are remembered, none has begun"),
    "link.ordered": Place("runner", "it knows what to stop and reload, and has not begun"),
    "link.ready": Place("runner", "the database is about to hear that a run serves"),
    "link.was_ready": Place("runner", "the database heard that a run serves, the runner does not know"),
    "link.reload": Place("runner", "the database is about to hear what became of a reload"),
    "link.reloaded": Place("runner", "the database heard what became of a reload, the runner does not know"),
    "link.reporting": Place("runner", "the state of a run is about to be reported"),
    "link.reported": Place("runner", "the state of a run is reported, the runner does not know"),
    "link.ended": Place("runner", "the end of a run is about to be reported, its last output is not copied"),
    "link.flushing": Place("runner", "output is about to be copied"),
    "link.burying": Place("runner", "runners of this machine that are dead are about to be looked for"),
    "link.leaving": Place("runner", "everything is said, and the runner is about to say that it ends"),
    "run.starting": Place("runner", "a grant is about to be executed, nothing of it is there"),
    "run.placed": Place("runner", "its folder is there, no process is"),
    "run.spawned": Place("runner", "its process is there, the guard does not know"),
    "run.began": Place("runner", "the guard knows, the database does not"),
    "run.stopping": Place("runner", "a job is about to be asked to end"),
    "run.killing": Place("runner", "a job that did not end is about to be killed"),
    "run.ended": Place("runner", "nothing is left of a job, and nobody was told"),
    "door.emitting": Place("runner", "a job's signals are about to be emitted"),
    "door.emitted": Place("runner", "a job's signals are written, not committed"),
    "door.answering": Place("runner", "a job's signals are committed, the job does not know"),
    "door.noting": Place("runner", "a job's progress, result or checkpoint is written, not committed"),
    "guard.watching": Place("guard", "a guard has begun, its runner does not know"),
    "guard.heard": Place("guard", "it was told something, and has not taken it in"),
    "guard.fencing": Place("guard", "the lease is over, nothing is killed"),
    "guard.fenced": Place("guard", "the jobs without a lease are killed, and it still remembers them"),
    "guard.burying": Place("guard", "its runner is dead, the jobs are alive"),
    "guard.killing": Place("guard", "some of them are killed, it has not looked again"),
    "clock.joined": Place("clock", "a clock has announced itself, and knows no triggers"),
    "clock.loaded": Place("clock", "triggers are known, none is fired"),
    "clock.firing": Place("clock", "due times are about to become ticks"),
    "clock.fired": Place("clock", "ticks are committed, the clock still remembers them as due"),
    "client.emitting": Place("client", "a client is about to emit"),
    "client.emitted": Place("client", "its signals are written, not committed"),
    "client.answering": Place("client", "its signals are committed, the caller does not know"),
    "web.emitting": Place("web", "the HTTP API is about to emit"),
    "web.emitted": Place("web", "its signals are written, not committed"),
    "web.answering": Place("web", "its signals are committed, the caller does not know"),
    "apply.locked": Place("apply", "an apply holds its lane, nothing is written"),
    "apply.saved": Place("apply", "a new version is written, nobody was told, nothing is committed"),
    "apply.committed": Place("apply", "a new version is committed, the caller does not know"),
}  # fmt: skip


class FailpointError(RuntimeError):
    """Raised at a failpoint whose action is `raise`."""


@dataclass(slots=True)
class _Armed:
    action: str
    seconds: float
    left: int


_LOCK = threading.Lock()
_armed: dict[str, _Armed] = {}
_delays: list[float] = []  # how many seconds at most, where there are any


def reached(name: str) -> None:
    """Say that execution got here."""
    if _delays:
        _hold_up()
    if _armed and name in _armed:
        _happen(name)


def arm(text: str) -> None:
    """Set the failpoints of this process, as the environment variable would. Raises InvalidInput for what it cannot read."""
    points = _read(text)
    with _LOCK:
        _armed.clear()
        _armed.update(points)


def delay(text: str) -> None:
    """Hold this process up now and then, as the environment variable would. text: seconds at most, "" for never. Raises InvalidInput."""
    if text and not _SECONDS.fullmatch(text):
        raise InvalidInput(
            [Problem("PS001", f'"{text}" is no number of seconds', DELAY, "use 0.3, say")], subject=DELAY
        )
    _delays[:] = [float(text)] if text else []


def _hold_up() -> None:
    import random  # of no use to anybody else here

    if random.random() < DELAYED:  # noqa: S311 - chance
        _wait(_delays[0] * random.random() ** 3)  # noqa: S311 - mostly for moments


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def _read(text: str) -> dict[str, _Armed]:
    points: dict[str, _Armed] = {}
    problems: list[Problem] = []
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, rest = part.partition("=")
        rest, colon, count = rest.partition(":")
        action, _, seconds = rest.partition("=")
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            fix = f"did you mean {near[0]}?" if near else "pgsig.failpoints.NAMES lists them"
            problems.append(Problem("PS001", f'there is no failpoint "{name}"', WHERE, fix))
        elif (
            action not in ("kill9", "stop", "raise", "sleep")
            or (action == "sleep") != bool(_SECONDS.fullmatch(seconds))
            or bool(colon) != bool(re.fullmatch("[1-9][0-9]{0,8}", count))
        ):
            fix = f"use {name}={ACTIONS}, with :N for the Nth time"
            problems.append(Problem("PS001", f'"{part}" has no action', WHERE, fix))
        else:
            points[name] = _Armed(action, float(seconds or 0), int(count or 1))
    if problems:
        raise InvalidInput(problems, subject=WHERE)
    return points


def _happen(name: str) -> None:
    with _LOCK:
        point = _armed.get(name)
        if point is None:
            return
        point.left -= 1
        if point.left > 0:
            return
        del _armed[name]
    if log := os.environ.get("PGSIG_FAILPOINTS_LOG"):
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{os.getpid()} {name} {point.action}\n".encode())
        os.close(file)
    match point.action:
        case "raise":
            raise FailpointError(name)
        case "sleep":
            _wait(point.seconds)
        case "kill9":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            os.kill(os.getpid(), signal.SIGSTOP)


arm(os.environ.get(WHERE, ""))
delay(os.environ.get(DELAY, ""))
