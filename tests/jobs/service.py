"""An HTTP service that is replaced without a gap: `handover: start_first`, `ready: {http: "http://127.0.0.1:{port}/"}`.

It listens twice: on the port that it shares with the run before and after it (SO_REUSEPORT, the first argument), and on its own PGSIG_PORT,
where only this run can be asked whether it serves. Asked to end, it takes no new connections, answers those that have come, and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pgsig import run

SO_ATTACH_REUSEPORT_CBPF, BPF_RETURN = 51, 0x06  # of Linux; the socket module does not name them


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = f"generation {run.generation}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


class Shared(ThreadingHTTPServer):
    allow_reuse_port = True
    daemon_threads = False  # server_close waits for requests under way
    request_queue_size = 128
    empty = False

    def drain(self) -> None:
        """Answer what has connected already, then close.

        Closing a listening socket resets what the kernel has queued on it and nobody has accepted. So first let the kernel give new
        connections to the second socket of the port, the successor's, and then empty the queue.
        """
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 1))
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)
        self.timeout = 0
        while not self.empty:
            self.handle_request()
        self.server_close()

    def handle_timeout(self) -> None:
        self.empty = True


def main(port: int) -> None:
    run.handle_stop()
    shared = Shared(("127.0.0.1", port), Answer)
    own = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PGSIG_PORT"])), Answer)
    serving = threading.Thread(target=shared.serve_forever, args=(0.02,))
    serving.start()
    threading.Thread(target=own.serve_forever, daemon=True).start()
    run.stopping.wait()
    shared.shutdown()
    serving.join()
    shared.drain()


if __name__ == "__main__":
    main(int(sys.argv[1]))
