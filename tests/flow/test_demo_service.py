"""The demonstration's service over HTTP: reloads and takeovers while it is asked without a pause. No database."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from pgsig import run
from pgsig.demo import digits
from pgsig.demo.canary import Count, ask
from pgsig.demo.folder import Folder, Verdict
from pgsig.demo.model import Model, name_of, save
from pgsig.demo.serve import LOOK_EVERY, Request, Server, Service


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with data, and models 1 to 9; model n takes every digit for an n."""
    found = Folder(tmp_path_factory.mktemp("service"))
    digits.load(found)
    for number in range(1, 10):
        save(found, Model(name_of(number), number * 20, np.zeros((10, 64)), np.eye(10)[number] * 9))
    return found


@contextlib.contextmanager
def serving(folder: Folder, generation: int = 1, port: int = 0) -> Iterator[Server]:
    server = Server(("127.0.0.1", port), Request)
    server.service = Service(folder, generation, folder.config)
    thread = threading.Thread(target=server.serve_forever, args=(LOOK_EVERY,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.drain()


def request(port: int, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def validated(number: int) -> run.Signal:
    return run.Signal(number, "model.validated", name_of(number), {"model": name_of(number), "verdict": "passed"})


def test_answers(folder: Folder) -> None:
    with serving(folder) as server:
        port = server.server_port
        assert request(port, "/predict?digit=17")[0] == 503
        server.service.reload([validated(3)])
        status, answer = request(port, "/predict?digit=17")
        assert (status, answer["prediction"], answer["truth"], answer["model"]) == (200, 3, 7, "m0003")
        assert request(port, "/predict", json.dumps({"pixels": [0] * 64}))[1]["prediction"] == 3
        status, answer = request(port, "/")
        assert (answer["model"], answer["generation"], answer["reloads"], answer["requests"]) == ("m0003", 1, 1, 3)
        assert folder.served == "m0003"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict?digit=1797", None, 422),
        ("/predict?digit=-1", None, 422),
        ("/predict?digit=٣", None, 422),
        ("/predict?digit=" + "9" * 5000, None, 422),
        ("/predict", None, 422),
        ("/nothing", None, 404),
        ("/", "{}", 404),
        ("/predict", "{", 422),
        ("/predict", "[" * 5000, 422),
        ("/predict", '{"pixels": [NaN]}', 422),
        ("/predict", "x" * 70_000, 413),
    ],
)
def test_bad_requests_get_an_answer(folder: Folder, path: str, body: str | None, status: int) -> None:
    with serving(folder) as server:
        server.service.reload([validated(1)])
        found, answer = request(server.server_port, path.replace("٣", "%D9%A3"), body)
        assert found == status
        assert answer["error"]
        assert request(server.server_port, "/predict?digit=1")[0] == 200


def test_confidence_below_what_is_configured_is_no_answer(folder: Folder) -> None:
    with serving(folder) as server:
        server.service.reload([validated(1)])
        server.service.config = {"min_confidence": 1.0}
        assert request(server.server_port, "/predict?digit=1")[1]["prediction"] is None


def test_model_that_cannot_be_read_leaves_the_one_in_use(folder: Folder) -> None:
    with serving(folder) as server:
        server.service.reload([validated(1)])
        with pytest.raises(OSError, match="m0099"):
            server.service.reload([validated(99)])
        assert request(server.server_port, "/")[1]["model"] == "m0001"


def test_reloads_and_takeovers_drop_no_request(folder: Folder) -> None:
    counts = [Count() for _ in range(4)]
    ended = threading.Event()

    def keep_asking(count: Count) -> None:
        while not ended.is_set():
            ask(port, 1, count)

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        server = first.enter_context(serving(folder))
        port = server.server_port
        server.service.reload([validated(1)])
        askers = [threading.Thread(target=keep_asking, args=(count,)) for count in counts]
        for asker in askers:
            asker.start()
        for generation in range(2, 6):
            for number in range(1, 10):
                server.service.reload([validated(number)])
            second = stack.enter_context(contextlib.ExitStack())
            server = second.enter_context(serving(folder, generation, port))
            server.service.reload([validated(1)])
            first.close()
            first = second
        assert request(port, "/")[1]["generation"] == 5
        ended.set()
        for asker in askers:
            asker.join()
    asked = sum(count.asked for count in counts)
    assert asked > 20
    assert sum(count.answered for count in counts) == asked


def test_canary_tells_refused_from_dropped() -> None:
    count = Count()
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        ask(port.getsockname()[1], 1, count)
        port.listen()

        def drop() -> None:
            taken, _ = port.accept()
            taken.close()

        dropping = threading.Thread(target=drop)
        dropping.start()
        ask(port.getsockname()[1], 1, count)
        dropping.join()
    assert (count.asked, count.refused, count.dropped, count.answered) == (2, 1, 1, 0)


def test_newest_model_that_passed_is_loaded_by_hand(folder: Folder) -> None:
    with serving(folder) as server:
        for number, verdict in ((4, "passed"), (5, "passed"), (6, "failed")):
            folder.add_verdict(Verdict(name_of(number), 0, 0, 0, "", 0, verdict))
        server.service.reload([run.Signal(1, "manual.digits.serve", "", {"action": "RELOAD"})])
        assert request(server.server_port, "/")[1]["model"] == "m0005"
