"""The HTTP between a job and its runner: both ends of it are written out, since a job that just began has no time for a general one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pgsig.errors import Unavailable
from pgsig.runner.calling import _exchange
from pgsig.runner.http import LONGEST_HEADER, MOST_HEADERS, Server


@pytest.fixture
def server() -> Iterator[Server]:
    """Answers with what it was asked."""
    found = Server(lambda *asked: list(asked))
    found.start()
    yield found
    found.stop()


def run_of(port: int) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{port}", "token": "t"}


@contextlib.contextmanager
def said(server: Server, text: bytes) -> Iterator[Any]:
    """The answer to what was said, line by line."""
    with socket.create_connection(("127.0.0.1", server.server_port), 10) as line, line.makefile("rwb") as file:
        file.write(text)
        file.flush()
        yield file


@pytest.mark.parametrize(("text", "status"), [
    (b"nonsense\r\n\r\n", 400),
    (b"GET /a HTTP/2.0\r\n\r\n", 400),
    (b"GET /a b HTTP/1.1\r\n\r\n", 400),
    (b"DELETE /a HTTP/1.1\r\n\r\n", 501),
    (b"GET /a HTTP/1.1\r\n" + b"A: b\r\n" * (MOST_HEADERS + 1) + b"\r\n", 431),
    (b"GET /a HTTP/1.1\r\nA: " + b"b" * LONGEST_HEADER + b"\r\n\r\n", 431),
    (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"POST /a HTTP/1.1\r\nContent-Length: many\r\n\r\n", 413),
    (b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n{a}", 400),
])  # fmt: skip
def test_what_is_no_request_is_refused_and_the_next_one_answered(server: Server, text: bytes, status: int) -> None:
    with said(server, text) as answer:
        assert int(answer.readline().split()[1]) == status
    assert _exchange(run_of(server.server_port), "GET", "/a?b=c", None) == (200, ["GET", "/a?b=c", "Bearer t", None])


def test_headers_have_names_in_any_case_and_a_line_may_be_used_again(server: Server) -> None:
    text = b"POST /a HTTP/1.1\r\nAUTHORIZATION:Bearer x\r\ncontent-length:  2\r\n\r\n{}GET /b HTTP/1.1\nConnection: close\n\n"
    with said(server, text) as file:
        answers = file.read()  # to its end, which comes because the second one asks for it
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b'["POST", "/a", "Bearer x", {}]' in answers
    assert answers.endswith(b'["GET", "/b", "", null]\n')


def test_who_asks_before_he_sends_much_is_told_to_go_on(server: Server) -> None:
    with said(server, b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n") as file:
        assert file.readline().split()[1] == b"100"
        file.write(b"{}")
        file.flush()
        assert file.readline() == b"\r\n"
        assert file.readline().split()[1] == b"200"


def test_large_bodies_pass_both_ways(server: Server) -> None:
    body = {"text": "é" * 400_000}
    assert _exchange(run_of(server.server_port), "POST", "/a", body) == (200, ["POST", "/a", "Bearer t", body])


@pytest.mark.parametrize("answer", [
    b"", b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", b"220 mail.example\r\n\r\n",
])  # fmt: skip
def test_an_answer_that_breaks_off_or_is_none_is_said_to_be_so(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            line, _ = listening.accept()
            with line:
                line.recv(65536)
                line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unavailable, match="cannot be reached") as refused:
            _exchange(run_of(listening.getsockname()[1]), "POST", "/a", {})
        thread.join(10)
    assert refused.value.code == "PS408"
