"""The operator `serve`: predictions over HTTP.

    GET  /                    the model, its generation, configuration and figures
    GET  /predict?digit=17    what the model sees in digit 17 of the data
    POST /predict             {"pixels": [64 numbers from 0 to 16]}

RELOAD loads the newest model beside the one in use and exchanges them: no request waits or fails. RESTART starts a second
process on the same port; the first one answers what has reached it, and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import socket
import struct
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from pgsig import run
from pgsig.demo import digits
from pgsig.demo.folder import DEFAULT_CONFIG, Folder
from pgsig.demo.model import Model, pixels_of, read

LARGEST_BODY = 65536
SO_ATTACH_REUSEPORT_CBPF, BPF_RETURN = 51, 0x06  # of Linux; the socket module does not name them
LOOK_EVERY = 0.05  # seconds in which the server notices that it is to end


class Service:
    """What requests are answered from. model: exchanged as a whole, so that a request sees the old one or the new one."""

    def __init__(self, folder: Folder, generation: int, config: dict[str, Any]) -> None:
        self.folder = folder
        self.data = digits.load(folder)
        self.generation = generation
        self.config = config
        self.model: Model | None = None
        self.since = datetime.now(UTC)
        self.reloads = 0
        self.requests = 0

    def load(self, name: str) -> None:
        """Put a model into service."""
        self.model = read(self.folder, name)
        self.folder.served = name

    def reload(self, cause: list[run.Signal]) -> None:
        """Load what the newest verdict among the signals names; the newest model that passed, for an order by hand."""
        names = [signal.value["model"] for signal in cause if signal.key == "model.validated"]
        names = names or [one.model for one in self.folder.verdicts() if one.verdict == "passed"]
        if names:
            self.load(names[-1])
        self.reloads += 1
        print(f"serving {self.model.name if self.model else 'nothing yet'} after reload {self.reloads}", flush=True)

    def status(self) -> dict[str, Any]:
        model = self.model
        return {
            "model": model.name if model else None, "samples": model.samples if model else 0,
            "generation": self.generation, "reloads": self.reloads, "requests": self.requests, "config": self.config,
            "since": self.since.isoformat(timespec="seconds"),
        }  # fmt: skip

    def predict(self, row: int | None, pixels: Any = None) -> dict[str, Any]:
        """Raises ValueError for what is no digit, LookupError while there is no model."""
        model = self.model
        if model is None:
            raise LookupError("no model has passed yet")
        if row is not None and not 0 <= row < len(self.data.truth):
            raise ValueError(f"digit is a number from 0 to {len(self.data.truth) - 1}")
        found, sure = model.predict(self.data.pixels[row : row + 1] if row is not None else pixels_of(pixels))
        confidence = round(float(sure[0]), 4)
        answer: dict[str, Any] = {
            "prediction": int(found[0]) if confidence >= self.config["min_confidence"] else None,
            "confidence": confidence, "model": model.name, "generation": self.generation,
        }  # fmt: skip
        if row is not None:
            answer |= {"truth": int(self.data.truth[row]), "picture": self.data.picture(row)}
        return answer


def main() -> None:
    """Serve until asked to stop."""
    run.handle_stop()
    folder = Folder()
    folder.note_pid("serve")
    for signal in run.cause:
        if signal.key == "config.changed":
            folder.config = configured(folder.config, signal.value)
    service = Service(folder, run.generation, folder.config)
    if folder.served:
        service.load(folder.served)
    server = Server(("127.0.0.1", folder.port), Request)
    server.service = service
    listening = threading.Thread(target=server.serve_forever, args=(LOOK_EVERY,), name="serve", daemon=True)
    listening.start()
    run.on_reload(lambda reload: service.reload(reload.cause))
    run.ready()
    print(f"generation {run.generation} listens on port {server.server_port} with {service.config}", flush=True)
    run.stopping.wait()
    server.shutdown()
    listening.join()
    server.drain()
    print(f"ends after {service.requests} requests and {service.reloads} reloads", flush=True)


def configured(config: dict[str, Any], change: Any) -> dict[str, Any]:
    """A configuration with a change applied. What it does not know, or cannot use, it says and leaves as it was."""
    merged = dict(config)
    for name, value in change.items() if isinstance(change, dict) else ():
        good = (
            name in DEFAULT_CONFIG
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and 0 <= value <= 1
        )
        if good:
            merged[name] = value
        else:
            print(f"config.changed: {name} is left as it was (min_confidence: a number from 0 to 1)", flush=True)
    return merged


class Server(ThreadingHTTPServer):
    """Shares its port with the process that it takes over from, or that takes over from it."""

    allow_reuse_port = True
    daemon_threads = False  # server_close waits for requests under way
    request_queue_size = 128
    service: Service
    empty = False

    def step_aside(self) -> None:
        """Let the kernel give new connections to whoever bound the port after this process: one that arrived between the last look at the
        queue and its end would be reset. Linux only; elsewhere that moment remains."""
        instruction = ctypes.create_string_buffer(
            struct.pack("HBBI", BPF_RETURN, 0, 0, 1)
        )  # the second socket of the port
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)

    def drain(self) -> None:
        """Answer what has connected already, then close."""
        self.step_aside()
        self.timeout = 0
        while not self.empty:
            self.handle_request()
        self.server_close()

    def handle_timeout(self) -> None:
        self.empty = True


class Request(BaseHTTPRequestHandler):
    server_version = "digits"
    sys_version = ""
    timeout = 10.0  # seconds for the request to arrive

    def do_GET(self) -> None:
        service = cast(Server, self.server).service
        parts = urlsplit(self.path)
        if parts.path == "/":
            self._answer(200, service.status())
        elif parts.path == "/predict":
            self._predict(service, parse_qs(parts.query).get("digit", [""])[0], None)
        else:
            self._answer(404, {"error": "there is /, and /predict?digit=17"})

    def do_POST(self) -> None:
        service = cast(Server, self.server).service
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict":
            self._answer(404, {"error": "there is POST /predict"})
        elif not (length.isascii() and length.isdecimal() and int(length) <= LARGEST_BODY):
            self._answer(413, {"error": f"a body says its length, of at most {LARGEST_BODY} bytes"})
        else:
            try:
                body = json.loads(self.rfile.read(int(length)))
            except (ValueError, RecursionError):
                body = None
            self._predict(service, None, body.get("pixels") if isinstance(body, dict) else None)

    def _predict(self, service: Service, digit: str | None, pixels: Any) -> None:
        service.requests += 1
        try:
            row = (
                None
                if digit is None
                else int(digit)
                if digit.isascii() and digit.isdecimal() and len(digit) < 9
                else -1
            )
            self._answer(200, service.predict(row, pixels))
        except LookupError as error:
            self._answer(503, {"error": str(error)})
        except ValueError as error:
            self._answer(422, {"error": str(error)})

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        text = json.dumps(answer, indent=2).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """A canary sings five times a second: nothing to log."""
