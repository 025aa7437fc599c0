"""The wheel is complete: it works where there is no checkout."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ROOMS = ("sql", "migrations", "web")


def run(*command: str | Path, cwd: Path, timeout: float = 120) -> str:
    """What a command prints; fail with it if it fails. The checkout is not on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Path]:
    """A folder outside the checkout, which every user can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="pgsig-packaging-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def wheel(elsewhere: Path) -> Path:
    """Built as for a release: from the source archive, not from the checkout."""
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        elsewhere / "dist",
        CHECKOUT,
        cwd=elsewhere,
    )
    (built,) = (elsewhere / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, elsewhere: Path) -> Path:
    """The programs of an environment that has the wheel, and this environment's other packages."""
    environment = elsewhere / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=elsewhere)
    python = environment / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=elsewhere).strip())
    # Paths in a .pth file are not searched for more such files, so the editable install is not seen.
    ours = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "others.pth").write_text("\n".join(sorted(ours)) + "\n")
    run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python),
        *("install", "--no-deps", "--no-index", "--quiet", wheel),
        cwd=elsewhere,
    )
    return environment / "bin"


def files(folder: Path) -> set[str]:
    """Every file below a folder of the checkout, by its path from the top."""
    return {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = files(CHECKOUT / "pgsig") | {f"pgsig/{name}" for room in ROOMS for name in files(CHECKOUT / room)}
    assert not wanted - held
    assert {name.split("/")[0] for name in held} == {"pgsig", "pgsig-0.1.0.dist-info"}


def test_finds_its_rooms(installed: Path, elsewhere: Path) -> None:
    filled = [room for room in ROOMS if files(CHECKOUT / room)]
    code = f"import pgsig; from pgsig.paths import room; print(pgsig.__file__, *map(room, {filled!r}))"
    places = run(installed / "python", "-W", "error", "-c", code, cwd=elsewhere).split()
    assert all(Path(place).is_relative_to(elsewhere) and Path(place).exists() for place in places), places


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pgsig.cli") is None, reason="there is no pgsig.cli yet")
def test_runs_the_demonstration_within_a_minute(installed: Path, elsewhere: Path) -> None:
    """All of it, once, as a program that people have installed."""
    assert "demo" in run(installed / "pgsig", "--help", cwd=elsewhere)
    place = elsewhere / "a place"  # any user may pass through: as root, Postgres may be another
    place.mkdir(mode=0o711)
    began = monotonic()
    said = run(installed / "pgsig", "demo", "--once", cwd=place, timeout=300)  # what it says to stderr is in it
    took = monotonic() - began
    assert "all of it happened" in said
    steps = " ".join(re.findall(r"^  ✓ (\S+(?: \S+)?)", said, re.MULTILINE))
    for name in ("evaluated", "kill -9", "reloaded", "restarted", "stopped", "watchdog", "ledger"):
        assert name in steps
    assert "0 refused, 0 dropped" in said
    assert "\x1b" not in said
    assert "Traceback" not in said
    assert "Warning" not in said
    assert not (place / ".pgsig" / "demo-once").exists()
    if os.environ.get("PGSIG_TEST_TIMES", "1") != "0":  # a machine may be slower than what is promised
        assert took < 60
