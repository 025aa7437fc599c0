"""Many who listen: sessions, tails and jobs. Each gets every signal, in order, once; they hold up nobody, nor does one that is not read."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import IO

import psycopg
import pytest
from werkzeug.serving import make_server

from pgsig.settings import Settings
from pgsig.store.database import Database
from pgsig.web import CONNECTIONS, STREAMS, create_app
from tests import support_jobs as do
from tests.flow.crew import BELL, POLL, Crew, holders, in_a_take
from tests.support import wait_for
from tests.support_core import Background, Connection

Said = list[tuple[int, int]]  # who emitted, and which of its signals it was

SESSIONS, JOBS, COMMANDS = 100, 3, 2
UNREAD = CONNECTIONS + 1  # tails over HTTP that nobody reads: if each kept a connection, the others would find none
EMITTERS, EACH = 17, 12
LARGE, LARGE_ONES = 200_000, 45  # bytes of a signal, and so many of them that no buffer takes all
SMALL_KEY, LARGE_KEY, BOTH = "crowd.small", "crowd.large", "crowd.*"
CHANNELS = ("pgsig_signals", "pgsig_changes", "pgsig_runs", "test_end")
SLOW = 20.0  # seconds, on a busy machine; a job that nobody rings for looks after 25


class Tail:
    """Reads a tail in a thread of its own, and keeps what small signals say. value: of the signal in a line, None where there is none."""

    def __init__(self, lines: Iterable[bytes], value: Callable[[bytes], list[int] | None]) -> None:
        self.found: Said = []
        self._lines, self._value = lines, value
        self._thread = Background(self._read)

    def _read(self) -> None:
        for line in self._lines:
            if value := self._value(line):
                self.found.append((value[0], value[1]))


def of_event(line: bytes) -> list[int] | None:
    return of_line(line[6:]) if line.startswith(b"data: ") else None


def of_line(line: bytes) -> list[int] | None:
    said = json.loads(line)
    value: list[int] | None = said["value"] if said["key"] == SMALL_KEY else None
    return value


@contextmanager
def site(database: str) -> Iterator[tuple[str, int]]:
    """Where the web application answers, with as many connections and streams as one process of `pgsig web`."""
    store = Database(database, name="web", size=CONNECTIONS)
    app = create_app(Settings(database_url=database), store)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    serves = Background(server.serve_forever)
    try:
        yield "127.0.0.1", server.server_port
    finally:
        app.extensions["pgsig.live"].close()
        server.shutdown()
        serves.result()
        server.server_close()
        store.close()


def over_http(where: tuple[str, int], key: str) -> HTTPResponse:
    """A tail from now on."""
    connection = HTTPConnection(*where, timeout=SLOW)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.request("GET", f"/api/v1/signals/tail?key={key}")
    answer = connection.getresponse()
    assert answer.status == 200
    return answer


@contextmanager
def by_command(database: str, key: str) -> Iterator[IO[bytes]]:
    """A tail from the beginning of the log on."""
    environ = {**os.environ, "DATABASE_URL": database}
    line = [sys.executable, "-m", "pgsig", "tail", key, "-n", "500", "-o", "json"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait(SLOW)
        process.stdout.close()


def waiting(file: int) -> int:
    """Bytes that can be read."""
    found = array.array("i", [0])
    fcntl.ioctl(file, termios.FIONREAD, found)
    return found[0]


def emit(mine: Connection, number: int) -> None:
    """One emitter's signals, one after the other, in each way that there is."""
    for first in range(0, EACH, 4):
        values = [json.dumps([number, first + place]) for place in range(4)]
        mine.execute("SELECT pgsig.emit(%s, %s::jsonb)", [SMALL_KEY, values[0]])
        mine.execute("INSERT INTO pgsig.signals (key, value) VALUES (%s, %s)", [SMALL_KEY, values[1]])
        many = ", ".join(f'{{"key": "{SMALL_KEY}", "value": {value}}}' for value in values[2:])
        mine.execute("SELECT pgsig.emit_many(%s::jsonb)", [f"[{many}]"])


def emit_at_once(database: str) -> None:
    """All emitters but the first, each signal by itself."""

    def emitter(number: int) -> None:
        with psycopg.connect(database, autocommit=True) as mine:
            emit(mine, number)

    with ThreadPoolExecutor(EMITTERS) as crowd:
        list(crowd.map(emitter, range(1, EMITTERS)))


def rings(session: Connection) -> list[str]:
    """The channels on which a session was rung, up to the mark."""
    found: list[str] = []
    for note in session.notifies(timeout=SLOW):
        if note.channel == "test_end":
            return found
        found.append(note.channel)
    pytest.fail("the mark did not arrive")


def heard(connection: Connection, run: int) -> Said:
    """What a job has heard."""
    return [tuple(json.loads(line)) for line in do.output(connection, run).splitlines(keepends=True)[1:] if line[-1] == "\n"]  # fmt: skip


def has_all(found: Callable[[], Said], about: str, first: int = 0) -> None:
    """It gets all that was said by emitters from `first` on, each once, what one emitter said in its order."""
    emitters = range(first, EMITTERS)
    wait_for(lambda: len(found()) >= len(emitters) * EACH, SLOW, about=f"{about} to have all")
    by = {number: [place for who, place in found() if who == number] for number in range(EMITTERS)}
    assert by == {number: list(range(EACH)) if number in emitters else [] for number in range(EMITTERS)}, about


def test_a_crowd_of_listeners(database: str, connection: Connection, tmp_path: Path) -> None:
    """Emitters go on while the worker that is awake stands still and some tails are not read. They ring nobody. Then the worker goes on."""
    with ExitStack() as stack:
        sessions = [stack.enter_context(psycopg.connect(database, autocommit=True)) for _ in range(SESSIONS)]
        answers = stack.enter_context(ExitStack())  # closed when their threads have come to the end that the site makes
        where = stack.enter_context(site(database))
        read = [answers.enter_context(over_http(where, SMALL_KEY)) for _ in range(STREAMS - UNREAD)]
        not_read = [answers.enter_context(over_http(where, BOTH)) for _ in range(UNREAD)]
        commands = [stack.enter_context(by_command(database, SMALL_KEY)) for _ in range(COMMANDS)]
        command_not_read = stack.enter_context(by_command(database, BOTH))
        tails = [Tail(answer, of_event) for answer in read] + [Tail(pipe, of_line) for pipe in commands]

        stack.enter_context(do.running(do.settings(database, tmp_path, poll_seconds=POLL)))
        job = do.operator(connection, "hear", "streaming", python="tests.runner_jobs:hear", env={"HEARS": SMALL_KEY})
        runs = [do.start(connection, job, f"job {number}") for number in range(JOBS)]
        wait_for(lambda: all("listening" in do.output(connection, run) for run in runs), SLOW)

        crew = Crew(stack.enter_context(ExitStack()), database, connection)
        worker = crew.on_duty("engine.taken=stop:40")
        connection.execute("INSERT INTO pgsig.signals (key) SELECT 'load' FROM generate_series(1, 44)")
        in_a_take(connection, worker)
        assert holders(connection, BELL) == []

        for session in sessions:
            for channel in CHANNELS:
                session.execute(f"LISTEN {channel}".encode())
        connection.execute(
            "INSERT INTO pgsig.signals (key, value) SELECT %s, to_jsonb(repeat('x', %s)) FROM generate_series(1, %s)",
            [LARGE_KEY, LARGE, LARGE_ONES],
        )
        for file in (command_not_read, *not_read):
            wait_for(lambda: waiting(file.fileno()) >= 1 << 14, SLOW, about="a tail to wait for its reader")  # noqa: B023
        slow = stack.enter_context(psycopg.connect(database))
        emit(slow, 0)  # begun before all others, committed after them
        emit_at_once(database)
        connection.execute("NOTIFY test_end")
        assert [rings(session) for session in sessions] == [[]] * SESSIONS

        worker.process.send_signal(signal.SIGCONT)
        for first in (1, 0):
            for tail in tails:
                has_all(lambda: tail.found, "a tail", first)  # noqa: B023
            for run in runs:
                has_all(lambda: heard(connection, run), "a job", first)  # noqa: B023
            slow.commit()
        for late in [Tail(answer, of_event) for answer in not_read] + [Tail(command_not_read, of_line)]:
            has_all(lambda: late.found, "a tail that is read at last")  # noqa: B023

        # Everybody sleeps: one ring, which each session hears.
        wait_for(lambda: holders(connection, BELL), SLOW)
        connection.execute("NOTIFY test_end")
        announced = [rings(session) for session in sessions]
        assert all("pgsig_changes" in found for found in announced)
        connection.execute("SELECT pgsig.emit('alone')")
        connection.execute("NOTIFY test_end")
        assert [rings(session).count("pgsig_signals") for session in sessions] == [1] * SESSIONS
