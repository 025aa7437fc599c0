"""Failpoints: one list of all names, actions that happen once, and a price of next to nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from timeit import repeat

import pytest

from pgsig import failpoints
from pgsig.errors import InvalidInput
from pgsig.failpoints import NAMES, FailpointError, arm, delay, reached

PACKAGE = Path(failpoints.__file__).parent
USED = {
    name
    for path in PACKAGE.rglob("*.py")
    for name in re.findall(r'\breached\("([^"]+)"\)', path.read_text(encoding="utf-8"))
}


@pytest.fixture(autouse=True)
def _disarmed() -> object:
    delay("")
    yield
    arm("")
    delay(os.environ.get("PGSIG_FAILPOINTS_DELAY", ""))


def test_every_name_is_listed_and_used() -> None:
    assert set(NAMES) == USED


def test_nobody_names_a_failpoint_by_a_variable() -> None:
    """Or the test above would not see it."""
    for path in PACKAGE.rglob("*.py"):
        for argument in re.findall(r"\breached\(([^)]*)\)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r'"[a-z_.]+"|name: str', argument), f"{path}: reached({argument})"


def test_it_happens_once_at_the_nth_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSIG_FAILPOINTS_LOG", str(tmp_path / "log"))
    arm("engine.taken=raise:2, engine.locked=sleep=0")
    reached("engine.taken")
    with pytest.raises(FailpointError, match=r"engine\.taken"):
        reached("engine.taken")
    reached("engine.taken")
    reached("engine.locked")
    words = [line.split()[1:] for line in (tmp_path / "log").read_text().splitlines()]
    assert words == [["engine.taken", "raise"], ["engine.locked", "sleep"]]


@pytest.mark.parametrize(
    "text",
    ["engine.taken", "engine.taken=explode", "nowhere=raise", "engine.taken=sleep", "engine.taken=raise=1",
     "engine.taken=sleep=long", "engine.taken=raise:", "engine.taken=raise:0", "engine.taken=raise:n"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="PS001 PGSIG_FAILPOINTS: "):
        arm(text)


def test_a_process_with_failpoints_that_cannot_be_read_says_all_that_is_wrong_and_ends() -> None:
    environment = {**os.environ, "PGSIG_FAILPOINTS": "engine.take=kill9, engine.taken=explode"}
    command = [sys.executable, "-m", "pgsig", "worker", "--database-url", "postgresql://127.0.0.1:1/none"]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (1, "", [
        'PS001 PGSIG_FAILPOINTS: there is no failpoint "engine.take" (did you mean engine.taken?)',
        'PS001 PGSIG_FAILPOINTS: "engine.taken=explode" has no action'
        " (use engine.taken=kill9, stop, raise or sleep=SECONDS, with :N for the Nth time)",
    ])  # fmt: skip


def test_a_process_is_killed_by_its_environment() -> None:
    code = "from pgsig.failpoints import reached; reached('engine.taken')"
    done = subprocess.run([sys.executable, "-c", code], env={"PGSIG_FAILPOINTS": "engine.taken=kill9"}, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_process_is_held_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a hundred of two thousand places, give or take six standard deviations."""
    waits: list[float] = []
    monkeypatch.setattr(failpoints, "_wait", waits.append)
    delay("0.5")
    for _ in range(2000):
        reached("engine.taken")
    assert 40 < len(waits) < 160
    assert 0 <= min(waits) < max(waits) <= 0.5
    delay("")
    reached("engine.taken")
    with pytest.raises(InvalidInput, match="PS001 PGSIG_FAILPOINTS_DELAY: "):
        delay("long")


def test_without_the_variable_it_costs_next_to_nothing() -> None:
    """Ten thousand in less than ten milliseconds, on the best of five tries: less than a microsecond each."""
    assert min(repeat(lambda: reached("engine.taken"), number=10_000, repeat=5)) < 0.01
