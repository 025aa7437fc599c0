"""What goes wrong is a pure function of the seed; the network does what it is told."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from pgsig.failpoints import NAMES
from tests.soak.proxy import Proxy
from tests.soak.schedule import APART, RUNNERS, SLOTS, WEIGHTS, draw, homes


def test_the_same_seed_is_the_same_run() -> None:
    assert draw(7, 500, 60, lease=3) == draw(7, 500, 60, lease=3)
    assert draw(7, 500, 60, lease=3) != draw(8, 500, 60, lease=3)


def test_a_long_run_has_every_kind_and_every_slot() -> None:
    faults = draw(1, 3000, 1800, lease=3)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert set(Counter(fault.kind for fault in faults)) == set(WEIGHTS)
    assert {fault.target for fault in faults} >= {*SLOTS, "a0"}
    assert {fault.word.partition("=")[0] for fault in faults if fault.kind == "failpoint"} == set(NAMES)


def test_no_runner_is_frozen_without_its_guard() -> None:
    faults = draw(1, 3000, 1800, lease=3)
    for guard in (fault for fault in faults if "guard" in fault.kind):
        near = [f for f in faults if f.target == guard.target and f.kind == "freeze" and abs(f.at - guard.at) < APART]
        assert near == []


def test_each_failpoint_has_a_home() -> None:
    assert all(homes(place.role) for place in NAMES.values())
    assert homes("guard") == RUNNERS


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(line: socket.socket) -> None:
            with line:
                while data := line.recv(100):
                    line.sendall(data)

        def accept() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[line], daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def ended(line: socket.socket) -> bool:
    try:
        return line.recv(10) == b""
    except ConnectionResetError:
        return True


def test_the_network_can_stall_cut_refuse_and_swallow_answers(echo: int) -> None:
    proxy = Proxy(lambda: echo)
    try:
        port = proxy.open("a")
        with socket.create_connection(("127.0.0.1", port), 5) as line:
            line.sendall(b"1")
            assert line.recv(10) == b"1"
            proxy.set("a", "stall")
            line.sendall(b"2")
            line.settimeout(0.2)
            with pytest.raises(TimeoutError):
                line.recv(10)
            proxy.set("a", "flow")
            line.settimeout(5)
            assert line.recv(10) == b"2"
            proxy.set("a", "mute")
            line.sendall(b"3")
            line.settimeout(0.2)
            with pytest.raises(TimeoutError):
                line.recv(10)
            line.settimeout(5)
            proxy.set("a", "flow")
            assert ended(line)
        proxy.set("a", "refuse")
        with socket.create_connection(("127.0.0.1", port), 5) as line:
            assert ended(line)
        proxy.set("a", "flow")
        with socket.create_connection(("127.0.0.1", port), 5) as line:
            line.sendall(b"4")
            assert line.recv(10) == b"4"
            proxy.set("a", "cut")
            assert ended(line)
    finally:
        proxy.close()
