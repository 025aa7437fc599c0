"""What the demonstration prints, and how it finds ports and processes."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("numpy")

from pgsig.demo.ledger import Event
from pgsig.demo.screen import Screen
from pgsig.demo.system import free_port, leftovers
from pgsig.demo.watch import line_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_elsewhere_than_on_a_terminal_there_are_finished_lines_only() -> None:
    out = io.StringIO()
    screen = Screen(out)
    with screen.step("postgres", "starting") as step:
        screen.status("busy")
        step.text = "18.1"
    assert out.getvalue().startswith("  ✓ postgres     18.1 ")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


def test_terminal_shows_what_is_under_way(terminal: Terminal) -> None:
    screen = Screen(terminal)
    with screen.step("postgres", "starting") as step:
        assert "… postgres     starting" in terminal.getvalue()
        step.text = "18.1"
    assert "\r\x1b[K" in terminal.getvalue()
    screen.status("below")
    screen.line("above")
    assert terminal.getvalue().endswith("above\n\x1b[2mbelow\x1b[0m")


def test_no_color(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert Screen(terminal).paint("x", "red") == "x"
    monkeypatch.delenv("NO_COLOR")
    assert Screen(terminal).paint("x", "red") == "\x1b[31mx\x1b[0m"


def test_step_that_fails_says_so() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), Screen(out).step("page", "waiting"):
        _ = 1 // 0
    assert "✗ page" in out.getvalue()


def test_output_without_such_characters_is_no_reason_to_fail() -> None:
    raw = io.BytesIO()
    screen = Screen(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    with screen.step("page", "…"):
        pass
    assert raw.getvalue().startswith(b"  ok page")


def test_output_that_was_closed_is_no_reason_to_fail() -> None:
    out = io.StringIO()
    screen = Screen(out)
    out.close()
    screen.line("nobody hears it")


def test_event_is_one_line() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    line = line_of(Screen(io.StringIO()), Event(at, "START", "train", "already_running", "run.digits.serve.ready", 4.2))
    assert line.split(maxsplit=1)[1].split() == [
        "START",
        "train",
        "already",
        "running:",
        "run.digits.serve.ready",
        "4.2",
        "ms",
    ]
    assert line_of(Screen(io.StringIO()), Event(at, "lost", "serve", "", "", None)).endswith("lost      serve")


def test_port_that_is_taken_is_not_chosen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = free_port(port)
        assert found != port
    assert free_port(port) == port
    assert free_port(port, but=port) != port
    assert free_port(99_999) < 65_536


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_processes_of_a_folder_are_found_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    child = [sys.executable, "-c", "print(flush=True); input()"]
    ours: tuple[tuple[Path, dict[str, str]], ...] = (
        (tmp_path / "postgres", {}),
        (Path("/"), {"PGSIG_SPOOL": str(tmp_path)}),
        (Path("/"), {"PGSIG_RUN_FILE": f"{tmp_path}/runs/1/run.json"}),
    )
    somebodys: tuple[tuple[Path, dict[str, str]], ...] = (
        (tmp_path, {}),
        (Path("/"), {"PGSERVICEFILE": f"{tmp_path}/pg_service.conf"}),
    )
    for where, env in (*ours, *somebodys):
        with subprocess.Popen(
            child, cwd=where, env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            expected = [str(process.pid)] if (where, env) in ours else []
            assert [line.split()[0] for line in leftovers(tmp_path)] == expected
            process.communicate("\n")
    assert leftovers(tmp_path) == []
