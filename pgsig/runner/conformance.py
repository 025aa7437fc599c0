"""What every engine has to hold, as checks that its author runs. Needs no database, and no test framework.

    from pgsig.runner.conformance import CHECKS, Trial

    @pytest.mark.parametrize("name", CHECKS)
    def test_my_engine(name, tmp_path):
        with Trial(MyEngine, tmp_path) as trial:
            CHECKS[name](trial)

A check raises Broken, an AssertionError that says what was expected. Jobs are shell commands that run for a moment; what they did is read
from their output, so that it does not matter where they ran.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from pgsig.runner.engine import Engine, Exit, NotStarted
from pgsig.runner.place import Place, Spool
from pgsig.runner.waiting import readable
from pgsig.settings import Settings
from pgsig.store.jobs import Grant

PATIENCE = 30.0  # seconds for anything to happen
AT_ONCE = 2.0  # seconds: no method waits
T = TypeVar("T")


class Broken(AssertionError):
    """An engine does not hold what it has to."""


@dataclass
class Job:
    """A job on trial."""

    grant: Grant
    place: Place
    handle: Any

    @property
    def output(self) -> str:
        try:
            return self.place.output.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


class Trial(contextlib.AbstractContextManager["Trial"]):
    """An engine, used as a runner would. make: what makes one, of settings and mark, as `pgsig.runner.engine.Factory`. folder: an
    empty one. Whatever still runs is killed when the block is left."""

    def __init__(self, make: Callable[[Settings, str], Engine[Any]], folder: Path, settings: Settings | None = None):
        self.make = make
        self.settings = settings or Settings()
        self.spool = Spool(folder)
        self.engine = make(self.settings, self.spool.mark)
        self._engines = [self.engine]
        self._jobs: list[Job] = []
        self._numbers = count(1)

    def another(self) -> Engine[Any]:
        """The engine of a runner that comes after this one."""
        self._engines.append(self.make(self.settings, self.spool.mark))
        return self._engines[-1]

    def sh(self, script: str, **spec: Any) -> Job:
        """Start a shell script as a job. Raises NotStarted."""
        return self.start(command=["sh", "-c", script], **spec)

    def start(self, **spec: Any) -> Job:
        """Start a job by its operator's spec. Raises NotStarted."""
        number = next(self._numbers)
        grant = Grant(number, 1, 1, 1, "default", "conformance", "job", "", "batch", spec)
        place = self.spool.place(grant, url="http://127.0.0.1:9", token="none")  # noqa: S106 - opens nothing
        job = Job(grant, place, self.at_once("start", lambda: self.engine.start(grant, place)))
        self._jobs.append(job)
        return job

    def at_once(self, what: str, call: Callable[[], T]) -> T:
        begin = monotonic()
        result = call()
        must(monotonic() - begin < AT_ONCE, f"{what} waited; the runner has other jobs to look after")
        return result

    def poll(self, job: Job, engine: Engine[Any] | None = None) -> Exit | None:
        return self.at_once("poll", lambda: (engine or self.engine).poll(job.handle))

    def until(self, true: Callable[[], T], about: str) -> T:
        deadline = monotonic() + PATIENCE
        while not (value := true()):
            must(monotonic() < deadline, f"waited {PATIENCE:g} s for {about}")
            readable([], 0.005)
        return value

    def says(self, job: Job, text: str) -> None:
        def said() -> bool:
            must(self.poll(job) is None, f'it to be alive and say "{text}"')
            return text in job.output

        self.until(said, f'"{text}" in the output')

    def end(self, job: Job, engine: Engine[Any] | None = None) -> Exit:
        """Wait for a job's end as the runner does: by its file descriptor where there is one."""
        deadline = monotonic() + PATIENCE
        while True:
            wake = job.handle.wake
            readable([] if wake is None else [wake], 0.005 if wake is None else 0.2)
            found = self.poll(job, engine)
            if found is not None:
                self._jobs.remove(job)
                return found
            must(monotonic() < deadline, f"waited {PATIENCE:g} s for the end of a job")

    def __exit__(self, *_: object) -> None:
        deadline = monotonic() + PATIENCE
        for job in self._jobs:
            while self.engine.poll(job.handle) is None and monotonic() < deadline:
                self.engine.kill(job.handle)
                readable([], 0.01)
        for engine in self._engines:
            engine.close()
        self.spool.close()


def must(true: object, expected: str) -> None:
    if not true:
        raise Broken(expected)


def ends_well(trial: Trial) -> None:
    job = trial.sh('echo "$PGSIG_RUN_ID $OWN"; echo err >&2', env={"OWN": "mine"})
    end = trial.end(job)
    must((end.code, end.signal) == (0, ""), f"a job that ends well has the exit code 0, not {end}")
    wanted = f"{job.grant.id} mine\nerr\n"
    must(job.output == wanted, f"both outputs and the whole environment of the place: {wanted!r}, not {job.output!r}")


def tells_the_exit_code(trial: Trial) -> None:
    end = trial.end(trial.sh("exit 7"))
    must(end.code == 7, f"the exit code 7, not {end}")


def calls_python(trial: Trial) -> None:
    end = trial.end(job := trial.start(python="pgsig.runner.conformance:example"))
    must(end.code == 5, f"a callable's SystemExit(5) is the exit code 5, not {end}")
    must("called" in job.output, f'a callable\'s output, "called", not {job.output!r}')


def example() -> None:
    """The callable of `calls_python`."""
    print("called")
    raise SystemExit(5)


def tells_what_cannot_start(trial: Trial) -> None:
    """At once where it can be known, else by an end that is not a good one."""
    try:
        job = trial.start(command=["/no/such/program"])
    except NotStarted as error:
        must(error.reason, "NotStarted says why")
        return
    must(trial.end(job).code != 0, "a program that does not exist has not ended well")


def lives_until_it_ends(trial: Trial) -> None:
    job = trial.sh("trap 'echo done; exit 0' USR1; echo ready; while :; do sleep 0.02; done")
    trial.says(job, "ready")
    for _ in range(20):
        must(trial.poll(job) is None, "poll says None while a job is alive")
        wake = job.handle.wake
        must(not readable([] if wake is None else [wake], 0.01), "wake is quiet while a job is alive")
    trial.engine.reload(job.handle, "USR1")
    must(trial.end(job).code == 0 and job.output == "ready\ndone\n", "it ends when it has done its work, not before")


def asks_to_end(trial: Trial) -> None:
    job = trial.sh("trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.02; done")
    trial.says(job, "ready")
    trial.at_once("stop", lambda: trial.engine.stop(job.handle))
    end = trial.end(job)
    must(end.code == 3 and "asked" in job.output, f"a job that is asked to end may end in its own way, exit code 3; not {end}")  # fmt: skip


def kills(trial: Trial) -> None:
    job = trial.sh("trap '' TERM; echo ready; while :; do sleep 0.02; done")
    trial.says(job, "ready")
    trial.engine.stop(job.handle)
    readable([], 0.2)
    must(trial.poll(job) is None, "stop asks: a job that does not listen goes on")
    trial.at_once("kill", lambda: trial.engine.kill(job.handle))
    trial.engine.kill(job.handle)
    end = trial.end(job)
    must(
        end.code is None and end.signal, f"a job that was killed has no exit code, and the name of a signal; not {end}"
    )


def leaves_nothing(trial: Trial) -> None:
    """A child that outlives the job, and a daemon that left its session, write until they are ended."""
    noise = "while :; do echo noise; sleep 0.01; done"
    job = trial.sh(f"({noise}) & setsid sh -c '{noise}' & sleep 0.2; exit 4")
    must(trial.end(job).code == 4, "the end of a job is that of its first process")
    size = len(job.output)
    readable([], 0.3)
    must(len(job.output) == size, "poll tells the end when nothing of a job is left; something still writes")
    job = trial.sh(f"setsid sh -c '{noise}' & echo ready; sleep 600")
    trial.says(job, "noise")
    trial.engine.kill(job.handle)
    trial.end(job)
    size = len(job.output)
    readable([], 0.3)
    must(len(job.output) == size, "kill ends everything that a job has started; something still writes")


def reloads(trial: Trial) -> None:
    job = trial.sh("trap 'echo again' HUP; echo ready; while :; do sleep 0.02; done")
    trial.says(job, "ready")
    must(not trial.engine.reload(job.handle, "KILL"), "reload knows HUP, USR1 and USR2, and says False to others")
    must(trial.engine.reload(job.handle, "HUP"), "reload says True for a job that is there")
    trial.says(job, "again")
    trial.engine.kill(job.handle)
    trial.end(job)
    must(not trial.engine.reload(job.handle, "HUP"), "reload says False where nobody is left")


def bears_orders_that_come_too_late(trial: Trial) -> None:
    job = trial.sh("exit 0")
    trial.end(job)
    for order in (trial.engine.stop, trial.engine.kill):
        order(job.handle)


def keeps_jobs_apart(trial: Trial) -> None:
    jobs = [trial.sh(f"echo {n}; exit {n}") for n in range(20)]
    names = {job.handle.identity for job in jobs}
    must(
        len(names) == 20 and not any("\n" in name for name in names), "each job has an identity of its own, in one line"
    )
    ends = [trial.end(job).code for job in jobs]
    must(ends == list(range(20)), f"each job has its own end, not {ends}")
    must([job.output for job in jobs] == [f"{n}\n" for n in range(20)], "each job has its own output")


def takes_much_output(trial: Trial) -> None:
    job = trial.sh('i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i + 1)); done')
    must(trial.end(job).code == 0, "a job may write without anybody reading")
    must(job.output.splitlines() == [f"line {n}" for n in range(3000)], "all output is there when the end is told, in order")  # fmt: skip


def adopts_only_its_own(trial: Trial) -> None:
    """Where an engine can take over at all."""
    job = trial.sh("trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done")
    trial.says(job, "ready")
    heir = trial.another()
    for foreign in ("", "0", "1 1", "nonsense \x00", job.handle.identity + "0"):
        must(heir.adopt(foreign, job.place) is None, f"{foreign!r} is nobody's identity")
    found = heir.adopt(job.handle.identity, job.place)
    if found is None:
        return
    must(found.identity == job.handle.identity, "a job that is taken over keeps its identity")
    mine = Job(job.grant, job.place, found)
    must(trial.poll(mine, heir) is None, "a job that is taken over is alive")
    heir.stop(found)
    while trial.poll(mine, heir) is None:
        readable([], 0.005)


CHECKS: dict[str, Callable[[Trial], None]] = {
    check.__name__: check
    for check in (
        ends_well, tells_the_exit_code, calls_python, tells_what_cannot_start, lives_until_it_ends, asks_to_end, kills, leaves_nothing,
        reloads, bears_orders_that_come_too_late, keeps_jobs_apart, takes_much_output, adopts_only_its_own,
    )
}  # fmt: skip


def failures(make: Callable[[Settings, str], Engine[Any]], folder: Path) -> Iterator[tuple[str, str]]:
    """Each check that an engine does not pass, and what was expected."""
    for name, check in CHECKS.items():
        place = folder / name
        place.mkdir()
        try:
            with Trial(make, place) as trial:
                check(trial)
        except Broken as broken:
            yield name, str(broken)
