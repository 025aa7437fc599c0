"""Children of `pgsig dev`: started again, ended in order, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgsig
from pgsig.cli import supervise
from pgsig.cli.supervise import Program, Supervisor
from pgsig.errors import PgsigError
from tests.support import wait_for

Connection = psycopg.Connection[Any]


class Said:
    """What children and their supervisor said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def by(self, name: str) -> list[str]:
        return [line for who, line in self.lines if who == name]


def shell(name: str, text: str, grace: float = 5.0) -> Program:
    return Program(name, ["sh", "-c", text], grace=grace)


def waiting(name: str) -> Program:
    code = (
        "import signal, sys\n"
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('{name} down', flush=True)))\n"
        f"print('{name} up', flush=True)\nsignal.pause()"
    )
    return Program(name, [sys.executable, "-c", code])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_children_start_in_order_and_all_end_politely() -> None:
    said = Said()
    with Supervisor([waiting("one"), waiting("two"), waiting("three")], say=said):
        wait_for(lambda: len(said.lines) == 3)
    wait_for(lambda: len(said.lines) == 6)
    assert {line for _, line in said.lines[3:]} == {"three down", "two down", "one down"}


def test_a_child_that_dies_is_started_again() -> None:
    said = Said()
    with Supervisor([waiting("one"), waiting("two")], say=said) as supervisor:
        wait_for(lambda: len(said.by("one")) == 1)
        first = supervisor.pids()
        os.kill(first["one"], signal.SIGKILL)
        wait_for(lambda: len(said.by("one")) == 2)
        second = supervisor.pids()
    assert second["one"] != first["one"]
    assert second["two"] == first["two"]
    assert said.by("pgsig") == ["one ended (killed by SIGKILL), starting it again"]


def test_a_child_that_cannot_work_ends_everything_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.01)
    said = Said()
    supervisor = Supervisor([waiting("good"), shell("bad", "echo no such thing; exit 3")], say=said)
    with pytest.raises(PgsigError, match="bad ended 6 times") as refused:
        supervisor.run()
    assert refused.value.code == "PS550"
    assert supervisor.pids() == {}
    assert "good down" in said.by("good")


def test_a_child_that_does_not_listen_is_killed_with_all_that_it_started() -> None:
    said = Said()
    text = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do :; done' & echo up; while :; do wait; done"
    with Supervisor([shell("stubborn", text, grace=0.3)], say=said):
        wait_for(lambda: len(said.by("stubborn")) == 2)
        inner = int(next(line for line in said.by("stubborn") if line.isdigit()))
        assert alive(inner)
    wait_for(lambda: not alive(inner))
    assert said.by("pgsig") == ["stubborn did not end in time, killing it"]


def test_in_a_hurry_nobody_is_waited_for() -> None:
    said = Said()
    began = monotonic()
    with Supervisor([shell("slow", "trap '' TERM; echo up; while :; do wait; done", grace=60)], say=said) as supervisor:
        wait_for(lambda: said.by("slow"))
        threading.Thread(target=supervisor.hurry).start()
    assert monotonic() - began < 20


def test_a_program_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.01)
    said = Said()
    with pytest.raises(PgsigError, match="exit code 126"):
        Supervisor([Program("ghost", ["/no/such/program"])], say=said).run()
    assert "/no/such/program: No such file or directory" in said.by("ghost")


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pgsig.cli.supervise import Program, Supervisor\n"
        'code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"\n'
        "def say(name, line): print(line, flush=True)\n"
        "Supervisor([Program(str(n), [sys.executable, '-c', code]) for n in range(3)], say=say).run()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=own_path(), cwd=tmp_path
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(3)]
        assert all(alive(pid) for pid in pids)
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids))


def own_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(pgsig.__file__).parent.parent)}


@pytest.mark.slow
def test_dev_runs_everything_and_leaves_nothing(database: str, connection: Connection, tmp_path: Path) -> None:
    """All roles on a given database; one is killed and comes back; Ctrl-C ends them all."""
    (tmp_path / "workflow.yaml").write_text(
        "workflow: shop\noperators:\n"
        "  hello: {batch: {command: [sh, -c, 'echo hello $PGSIG_SUBJECT']}, start: {signal: greeting.wanted}}\n"
        "  beat: {streaming: {command: [sh, -c, 'echo up; exec tail -f /dev/null'], autostart: true}}\n"
    )
    port = free_port()
    env = {**own_path(), "DATABASE_URL": database}
    with subprocess.Popen(
        [sys.executable, "-m", "pgsig", "dev", "--port", str(port)],
        cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as dev:  # fmt: skip
        assert dev.stderr is not None
        head = [dev.stderr.readline() for _ in range(5)]
        assert head[2] == f"page      http://127.0.0.1:{port}\n"
        password = conninfo_to_dict(database).get("password")
        assert not password or str(password) not in "".join(head)
        threading.Thread(target=dev.stderr.read, daemon=True).start()
        try:
            running = "SELECT count(*) FROM pgsig.operators WHERE operator = 'beat' AND observed = 'running'"
            wait_for(lambda: connection.execute(running).fetchone() == (1,), 30)
            wait_for(lambda: answers(port), 30)
            worker = "SELECT pid FROM pgsig_private.process WHERE role = 'worker' ORDER BY id DESC LIMIT 1"
            first = connection.execute(worker).fetchone()
            assert first is not None
            os.kill(first[0], signal.SIGKILL)
            wait_for(lambda: connection.execute(worker).fetchone() != first, 20)
            connection.execute("SELECT pgsig.emit('greeting.wanted', subject => 'world')")
            greeted = "SELECT count(*) FROM pgsig.runs WHERE operator = 'hello' AND state = 'succeeded'"
            wait_for(lambda: connection.execute(greeted).fetchone() == (1,), 20)
            logs = subprocess.run(
                [sys.executable, "-m", "pgsig", "runs", "shop.hello", "-o", "json"],
                env=env,
                capture_output=True,
                check=True,
            )
            number = json.loads(logs.stdout)[0]["id"]
            text = subprocess.run(
                [sys.executable, "-m", "pgsig", "logs", str(number)],
                env=env,
                capture_output=True,
                text=True,
                check=True,
            )
            assert text.stdout == "hello world\n"
        finally:
            dev.send_signal(signal.SIGINT)
            code = dev.wait(60)
    assert code == 0
    ended = "SELECT count(*) FROM pgsig_private.process WHERE ended_at IS NULL AND role IN ('clock', 'runner')"
    assert connection.execute(ended).fetchone() == (0,)
    assert not [path for path in Path("/proc").glob("[0-9]*") if cwd_of(path) == tmp_path]


def cwd_of(path: Path) -> Path | None:
    try:
        return (path / "cwd").readlink()
    except OSError:
        return None


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
