"""The suite that every engine passes: the process engine, one whose jobs outlive their runner, and some that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from pgsig.runner.conformance import CHECKS, Broken, Trial
from pgsig.runner.engine import Engine, Exit
from pgsig.runner.place import Place, kill_orphans
from pgsig.runner.process import ProcessEngine, ProcessHandle
from pgsig.settings import Settings
from tests.lasting_engine import LastingEngine
from tests.support import wait_for


class Uncaged(ProcessEngine):
    """As where there are no cgroups."""

    uses_cgroups = False


class Cold(ProcessEngine):
    def _warm(self, *_: Any) -> None:
        return None


def warm(settings: Settings, mark: str, kind: type[ProcessEngine] = ProcessEngine) -> Engine[Any]:
    engine = kind(settings, mark)
    pool = engine.pool
    wait_for(lambda: pool is None or pool.ready, 30, about="the fork server")
    return engine


def warm_uncaged(settings: Settings, mark: str) -> Engine[Any]:
    return warm(settings, mark, Uncaged)


def cold_uncaged(settings: Settings, _: str) -> Engine[Any]:
    return ProcessEngine(settings)


# Where the machine has no cgroups for us, "warm" and "cold" are as the two after them.
@pytest.mark.parametrize("make", [warm, Cold, warm_uncaged, cold_uncaged, LastingEngine])
@pytest.mark.parametrize("name", CHECKS)
def test_an_engine_holds_what_it_has_to(make: Callable[..., Engine[Any]], name: str, tmp_path: Path) -> None:
    with Trial(make, tmp_path / "runners", Settings(spool=tmp_path)) as trial:
        CHECKS[name](trial)


# ── engines that are wrong ──


class Hasty(ProcessEngine):
    """Tells the end when the first process has ended, whatever else is there."""

    def poll(self, job: ProcessHandle) -> Exit | None:
        return job.child.reap() if not job.reaped and job.child.ended() else None


class Optimist(ProcessEngine):
    def poll(self, job: ProcessHandle) -> Exit | None:
        return Exit(0) if super().poll(job) else None


class Deaf(ProcessEngine):
    def stop(self, job: ProcessHandle) -> None:
        pass


class Gentle(ProcessEngine):
    kill = ProcessEngine.stop


class Rude(ProcessEngine):
    stop = ProcessEngine.kill


class Eager(ProcessEngine):
    """Takes over whatever it is shown."""

    def adopt(self, identity: str, place: Place) -> ProcessHandle | None:
        return cast(ProcessHandle, object())


@pytest.mark.parametrize(
    ("wrong", "name", "said"),
    [
        (Hasty, "leaves_nothing", "something still writes"),
        (Optimist, "tells_the_exit_code", "the exit code 7"),
        (Deaf, "asks_to_end", "waited"),
        (Gentle, "kills", "waited"),
        (Rude, "asks_to_end", "in its own way"),
        (Eager, "adopts_only_its_own", "nobody's identity"),
    ],
)
def test_an_engine_that_does_not_is_found(
    wrong: type[ProcessEngine], name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgsig.runner.conformance.PATIENCE", 1.0)
    with Trial(lambda *_: wrong(), tmp_path) as trial:
        with pytest.raises(Broken, match=said):
            CHECKS[name](trial)
        trial.engine.__class__ = ProcessEngine  # so that what it has left can be ended
        kill_orphans(trial.spool.mark)
