"""The server itself: made, started, stopped, killed."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from pgsig.embedded.binaries import Binaries, EmbeddedPostgresError, find_binaries
from pgsig.embedded.folder import LOOK_EVERY, STOPPED_WITHIN, Folder, children
from pgsig.embedded.identity import Identity, choose_identity, environment, through_helper

USER = "pgsig"
HOST = "127.0.0.1"

# Below the range from which systems give ports to outgoing connections.
PORTS = range(20000, 32768)
PORT_TRIES = 8

READY_WITHIN = 120.0  # seconds; a server that was killed replays its log first
LOG_LIMIT = 10_000_000  # bytes; a larger log is moved aside at start, replacing the one moved before

DEFAULTS: Mapping[str, str] = {
    "cluster_name": "pgsig",
    "log_checkpoints": "off",
    "max_connections": "200",
    "max_wal_size": "1GB",
    "shared_buffers": "128MB",
    "timezone": "UTC",
}
WITHOUT_DURABILITY: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}

SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class EmbeddedPostgres:
    """A server that listens on 127.0.0.1 and asks for a password. Start and stop it as often as you like.

    With `die_with_parent` it ends when this process does, however that ends (on Linux; elsewhere only on an
    orderly exit). Without, it runs until somebody stops it. A `port` that is given is used or refused;
    without one a free one is chosen and kept. `settings` overrides any setting of the server. `fsync=False`
    is for tests.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        die_with_parent: bool = True,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.log = self.data_dir / "postgres.log"
        self.folder = Folder(self.data_dir)
        self._fixed_port = port
        self._settings = {**DEFAULTS, **({} if fsync else WITHOUT_DURABILITY), **(settings or {})}
        self._die_with_parent = die_with_parent
        self._owner = os.getpid()
        self._guard = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()  # of the process above
        self._port: int | None = None

    # ── what callers use ──

    def start(self) -> None:
        """Return when the server answers. Makes the cluster the first time; does nothing if it runs."""
        with self._guard:
            if self.running:
                return
            binaries = find_binaries()
            self.folder.claim()
            lock = self.folder.take_lock()
            try:
                identity = choose_identity(binaries)
                self.folder.check_major(binaries)
                password = self.folder.make_password()
                self.folder.give_files_to(identity)
                if not self.folder.cluster.is_dir():
                    self._initdb(binaries, identity, password, lock)
                (self.folder.cluster / "postmaster.pid").unlink(missing_ok=True)  # stale, as the lock is ours
                self._launch(binaries, identity, lock)
            finally:
                os.close(lock)  # the server has its own copy
            if self._die_with_parent:
                atexit.register(self._stop_at_exit)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server, also one that another process started here. Does nothing if none runs."""
        with self._guard:
            atexit.unregister(self._stop_at_exit)
            pid = self.pid
            if pid is None:
                return
            for number, patience in ((SIGNALS[mode], STOPPED_WITHIN), (signal.SIGQUIT, 10.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                if self._wait_until_gone(patience):
                    return
            self.kill()

    def kill(self) -> None:
        """End every process of the server at once, as a power cut would; the next start recovers."""
        with self._guard:
            atexit.unregister(self._stop_at_exit)
            pid = self.pid
            if pid is None:
                return
            for victim in (pid, *children(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            if not self._wait_until_gone(10.0):
                raise EmbeddedPostgresError(
                    f"processes of the server in {self.data_dir} outlived SIGKILL", code="PS808"
                )

    def dsn(self, dbname: str = "postgres") -> str:
        """The address, password included: hand it around in the process, never print it."""
        port, password = self.port, self.folder.read("password")
        if port is None or not password:
            raise EmbeddedPostgresError(
                f"no server was ever started in {self.data_dir}", code="PS804", fix="start it first"
            )
        return f"postgresql://{USER}:{quote(password, safe='')}@{HOST}:{port}/{quote(dbname, safe='')}"

    @property
    def port(self) -> int | None:
        """Where it listens, or listened last."""
        if self._port is None:
            kept = self.folder.read("port")
            return int(kept) if kept.isdecimal() else None
        return self._port

    @property
    def running(self) -> bool:
        """Whether the server that this object started is alive."""
        return self._process is not None and not self._ended.is_set()

    @property
    def pid(self) -> int | None:
        """Of the server here, whoever started it; None if none runs."""
        if self._process is not None and self.running:
            return self._process.pid
        return self.folder.pid()

    @property
    def version(self) -> str:
        """Of the programs, such as `18.1`."""
        return find_binaries().version

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _initdb(self, binaries: Binaries, identity: Identity, password: Path, lock: int) -> None:
        """Into a directory aside, so that one that was interrupted is never taken for a cluster."""
        aside = self.data_dir / "cluster.part"
        shutil.rmtree(aside, ignore_errors=True)
        program = [
            str(binaries.directory / "initdb"),
            f"--pgdata={aside}",
            f"--username={USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={'C.UTF-8' if sys.platform == 'linux' else 'C'}",
        ]
        if self._settings.get("fsync") == "off":
            program.append("--no-sync")
        parent = os.getpid() if self._die_with_parent else 0
        done = subprocess.run(
            through_helper(identity, program, parent=parent),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(),
            pass_fds=(lock,),
            check=False,
        )
        if done.returncode != 0:
            raise self._failed("initdb failed", done.stderr)
        aside.rename(self.folder.cluster)

    # ── the process ──

    def _launch(self, binaries: Binaries, identity: Identity, lock: int) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        said: str | None = ""
        for attempt in range(PORT_TRIES):
            port = self._choose_port(attempt)
            settings = {
                **self._settings,
                "listen_addresses": HOST,
                "port": str(port),
                "unix_socket_directories": "",
            }
            program = [str(binaries.directory / "postgres"), "-D", str(self.folder.cluster)]
            for name, value in settings.items():
                program += ["-c", f"{name}={value}"]
            said = self._try_launch(through_helper(identity, program, parent=self._parent()), lock)
            if said is None:
                self._port = port
                (self.data_dir / "port").write_text(str(port), encoding="ascii")
                return
            if "could not create any TCP/IP sockets" not in said and "Address already in use" not in said:
                break
            # Somebody took the port between our look and the server's.
        raise self._failed("Postgres did not start", said or "")

    def _parent(self) -> int:
        return os.getpid() if self._die_with_parent else 0

    def _try_launch(self, argv: list[str], lock: int) -> str | None:
        """Start one process and wait until it answers. None if it does, else what it said."""
        with self.log.open("ab") as log:
            begin = log.tell()
            launched: Future[subprocess.Popen[bytes]] = Future()
            ended = threading.Event()

            def keep() -> None:
                # The kernel ties the server to the thread that forked it, not to the process: so this one
                # forks it and lives as long as it does.
                try:
                    process = subprocess.Popen(
                        argv,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=environment(),
                        cwd=self.data_dir,
                        pass_fds=(lock,),
                        start_new_session=True,  # Ctrl-C in the terminal is for us, not for the server
                    )
                except BaseException as problem:  # noqa: BLE001 - it is handed to the thread that waits
                    launched.set_exception(problem)
                    return
                launched.set_result(process)
                process.wait()
                ended.set()

            threading.Thread(target=keep, name="pgsig-embedded-postgres", daemon=True).start()
            process = launched.result()
        deadline = monotonic() + READY_WITHIN
        while not ended.wait(LOOK_EVERY):
            if self.folder.postmaster() == (process.pid, "ready"):
                self._process, self._ended = process, ended
                return None
            if monotonic() > deadline:
                process.kill()
                ended.wait(10.0)
                return f"it did not answer within {READY_WITHIN:.0f} s"
        with self.log.open("rb") as written:
            written.seek(begin)
            return written.read().decode(errors="replace")

    def _choose_port(self, attempt: int) -> int:
        if self._fixed_port is not None:
            if attempt == 0 and _port_is_free(self._fixed_port):
                return self._fixed_port
            raise EmbeddedPostgresError(
                f"port {self._fixed_port} is taken",
                code="PS809",
                fix="choose another, or none: a free one is found",
            )
        kept = self.port
        if attempt == 0 and kept and _port_is_free(kept):
            return kept
        for _ in range(1000):
            port = PORTS[secrets.randbelow(len(PORTS))]
            if _port_is_free(port):
                return port
        raise EmbeddedPostgresError(f"no free port from {PORTS.start} to {PORTS.stop - 1}", code="PS809")

    def _failed(self, what: str, said: str) -> EmbeddedPostgresError:
        lines = [line for line in said.strip().splitlines() if line.strip()]
        told = [line for line in lines if re.search(r"FATAL|ERROR|PANIC|error:|denied", line)] or lines
        detail = "; ".join(line.strip() for line in told[-3:])
        fix = f"see {self.log}"
        if "denied" in detail:
            fix = "as root: put data and programs where a normal user can reach them, not in /root"
        return EmbeddedPostgresError(f"{what} in {self.data_dir}: {detail}", code="PS808", fix=fix)

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a fork
            self.stop()

    # ── who lives ──

    def _wait_until_gone(self, seconds: float) -> bool:
        deadline, pause = monotonic() + seconds, threading.Event()
        if self._process is not None:
            self._ended.wait(seconds)
        while not self.folder.lock_is_free():
            if monotonic() > deadline:
                return False
            pause.wait(LOOK_EVERY)
        return True


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
