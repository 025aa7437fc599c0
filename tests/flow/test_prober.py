"""Probes by themselves: what is good, what is wrong and how it is said, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsig.decide.health import Probe
from pgsig.runner.probe import MOST_AT_ONCE, Prober
from tests.support import wait_for
from tests.support_jobs import alive

Answers = queue.SimpleQueue[tuple[tuple[int, int], str]]
LONG, SHORT = 20.0, 0.2  # seconds


@pytest.fixture
def answers() -> Answers:
    return queue.SimpleQueue()


@pytest.fixture
def prober(answers: Answers) -> Iterator[Prober]:
    prober = Prober(lambda key, problem: answers.put((key, problem)))
    yield prober
    prober.close()


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers each connection with what its path says: /200, /302, /silence, /trickle, /garbage."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, IndexError):  # who breaks off may have asked nothing
            word = connection.recv(4096).decode().split()[1].strip("/")
            if word == "trickle":
                while not over.wait(0.02):
                    connection.sendall(b"H")
            elif word == "silence":
                over.wait()
            elif word == "garbage":
                connection.sendall(b"hello\n")
            else:
                connection.sendall(f"HTTP/1.1 {word} Word\r\nLocation: /200\r\n\r\n".encode())

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    over.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def asked(prober: Prober, answers: Answers, probe: Probe, port: int = 0) -> str:
    prober.ask((1, 1), probe, env={**os.environ, "PGSIG_PORT": str(port)}, cwd=None)
    return answers.get(timeout=LONG * 2)[1]


@pytest.mark.parametrize(
    ("path", "timeout", "problem"),
    [
        ("200", LONG, ""),
        ("204", LONG, ""),
        # A redirect leads elsewhere, where somebody else may be well.
        ("302", LONG, "status 302"),
        ("503", LONG, "status 503"),
        ("garbage", LONG, "the answer is not HTTP"),
        ("silence", SHORT, "no answer within 200ms"),
        ("trickle", SHORT, "no answer within 200ms"),
    ],
)
def test_by_http(prober: Prober, answers: Answers, port: int, path: str, timeout: float, problem: str) -> None:
    assert asked(prober, answers, Probe(http=f"http://127.0.0.1:{{port}}/{path}", timeout=timeout), port) == problem


def test_nobody_listens(prober: Prober, answers: Answers) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        probe = Probe(http="http://127.0.0.1:{port}/", timeout=LONG)
        assert asked(prober, answers, probe, free.getsockname()[1]) == "connection refused"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (["true"], ""),
        (["sh", "-c", "exit 3"], "exit code 3"),
        (["sh", "-c", "yes | head -c 300000; echo; echo all is lost >&2; exit 1"], "exit code 1: all is lost"),
        (["no-such-program"], "no such file or directory"),
        # What keeps its output open does not keep anybody waiting.
        (["sh", "-c", "sleep 2 & exit 0"], ""),
    ],
)
def test_by_command(prober: Prober, answers: Answers, line: list[str], problem: str) -> None:
    assert asked(prober, answers, Probe(command=tuple(line), timeout=LONG)) == problem


def test_a_command_that_hangs_is_killed_with_what_it_started(prober: Prober, answers: Answers, tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/first; wait"
    prober.ask((1, 1), Probe(command=("sh", "-c", script), timeout=1.5), env=dict(os.environ), cwd=None)
    first, child = (
        int(wait_for(lambda name=name: (tmp_path / name).exists() and (tmp_path / name).read_text()))  # type: ignore[misc]
        for name in ("first", "child")
    )
    assert answers.get(timeout=LONG)[1] == "no answer within 1s500ms"
    wait_for(lambda: not alive(first) and not alive(child))


def test_many_at_once_are_all_answered_and_closing_breaks_off(prober: Prober, answers: Answers, port: int) -> None:
    for number in range(MOST_AT_ONCE * 3):
        prober.ask((number, 1), Probe(http=f"http://127.0.0.1:{port}/200", timeout=LONG), env={}, cwd=None)
    found = {answers.get(timeout=LONG) for _ in range(MOST_AT_ONCE * 3)}
    assert found == {((number, 1), "") for number in range(MOST_AT_ONCE * 3)}
    prober.ask((0, 2), Probe(http=f"http://127.0.0.1:{port}/silence", timeout=600), env={}, cwd=None)
    prober.ask((0, 3), Probe(command=("sleep", "600"), timeout=600), env=dict(os.environ), cwd=None)
    # The fixture closes it now: the test would fail for a thread or a process that is left.
