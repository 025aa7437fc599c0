"""The plumbing of `pgsig.runner.door`: JSON over HTTP with the standard library, and errors as documents."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import psycopg

from pgsig.errors import Conflict, NotFound, PgsigError, Unavailable

log = logging.getLogger(__name__)
LARGEST_BODY = 8 * 1024 * 1024
LONGEST_WAIT = 60.0  # seconds that a request may wait for something to happen
MOST_IDLE = 4  # threads that stand ready
MOST_HEADERS = 100
LONGEST_HEADER = 65536  # bytes
ACCEPT_AGAIN = 0.1  # seconds


class Refused(PgsigError):
    """A request that is answered with `status`."""

    def __init__(self, status: int, code: str, message: str, fix: str = "") -> None:
        super().__init__(message, code=code, fix=fix)
        self.status = status


class Raw(str):
    """An answer that is JSON text already."""

    __slots__ = ()


class Server(HTTPServer):
    """An endpoint on a free port of the loopback interface, from `start` to `stop`. answer: see `Door.answer`.

    Its threads accept and answer: to hand a connection over to a thread that is made for it takes as long as to answer. One at least stands
    ready, a few are kept.
    """

    request_queue_size = 128

    def __init__(self, answer: Callable[[str, str, str, Any], Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.answer = answer
        self._lock = threading.Lock()
        self._idle = 0
        self._over = False

    def start(self) -> None:
        for _ in range(MOST_IDLE):
            self._hire()

    def stop(self) -> None:
        """Accept nothing more. Requests under way go on."""
        with self._lock:
            self._over, idle = True, self._idle
        for _ in range(idle):  # nothing but a connection ends an accept everywhere
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.server_port), timeout=1.0).close()
        self.server_close()

    def _hire(self) -> None:
        with contextlib.suppress(RuntimeError):  # no thread can be had: who answers now comes back
            threading.Thread(target=self._work, name="pgsig-door", daemon=True).start()
            self._idle += 1

    def _work(self) -> None:
        while not self._over:
            try:
                connection, address = self.socket.accept()
            except OSError:  # no file descriptor is left, for instance
                threading.Event().wait(ACCEPT_AGAIN)
                continue
            with self._lock:
                self._idle -= 1
                if not self._idle and not self._over:
                    self._hire()
            if not self._over:
                try:
                    self.finish_request(connection, address)
                except Exception:  # of a job that has gone away meanwhile
                    log.debug("a connection broke", exc_info=True)
            self.shutdown_request(connection)
            with self._lock:
                if self._idle >= MOST_IDLE:
                    return
                self._idle += 1


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "pgsig"
    sys_version = ""
    timeout = LONGEST_WAIT * 2  # of a connection that nothing comes from
    raw_requestline: bytes
    said: dict[str, str]  # its headers, by their names in lower case
    disable_nagle_algorithm = True  # an answer in two pieces would wait 40 ms for its second one
    wbufsize = -1  # and is sent as one

    def parse_request(self) -> bool:
        """As in the base class, which reads headers with a parser for mail. False: it was refused."""
        # For the answer to what is no request.
        self.command, self.request_version, self.close_connection = "", "HTTP/1.0", True
        self.requestline = self.raw_requestline.decode("iso-8859-1").rstrip("\r\n")
        words = self.requestline.split()
        if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
            self.send_error(400, "Bad request line")
            return False
        self.command, self.path, self.request_version = words
        self.said = {}
        for _ in range(MOST_HEADERS):
            line = self.rfile.readline(LONGEST_HEADER + 1)
            if line in (b"\r\n", b"\n", b""):
                break
            if len(line) > LONGEST_HEADER:
                self.send_error(431)
                return False
            name, _, value = line.decode("iso-8859-1").partition(":")
            self.said[name.strip().lower()] = value.strip()
        else:
            self.send_error(431)
            return False
        wanted = self.said.get("connection", "").lower()
        self.close_connection = wanted == "close" or (self.request_version == "HTTP/1.0" and wanted != "keep-alive")
        if self.said.get("expect", "").lower() == "100-continue" and self.request_version == "HTTP/1.1":
            self.handle_expect_100()
            self.wfile.flush()  # what follows is sent when this was read
        return True

    @property
    def _served(self) -> Server:
        return cast(Server, self.server)

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        log.debug(format, *args)

    def _answer(self, method: str) -> None:
        status = 200
        answer: Any = {}
        try:
            body = self._body() if method == "POST" else None
            answer = self._served.answer(method, self.path, self.said.get("authorization", ""), body)
        except PgsigError as error:
            status, answer = _status(error), {"error": error.as_dict()}
        except psycopg.Error as error:
            status, answer = 500, {"error": {"code": "PS499", "message": str(error)}}
        except OSError:
            self.close_connection = True
            return
        except Exception:
            log.exception("an error while answering a job")
            status, answer = (
                500,
                {"error": {"code": "PS499", "message": "an error in the runner; its log says more"}},
            )
        text = (answer if isinstance(answer, Raw) else json.dumps(answer)).encode() + b"\n"
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _body(self) -> Any:
        try:
            length = int(self.said.get("content-length") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= LARGEST_BODY:
            self.close_connection = True  # what follows is not read
            raise Refused(413, "PS405", f"a body has at most {LARGEST_BODY // 2**20} MiB, and says how long it is")
        data = self.rfile.read(length)
        try:
            return json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise Refused(400, "PS405", f"the body is not JSON: {error}", "send a JSON value, as UTF-8") from error


def _status(error: PgsigError) -> int:
    match error:
        case Refused():
            return error.status
        case NotFound():
            return 404
        case Conflict():
            return 409
        case Unavailable():
            return 503
    return 422
