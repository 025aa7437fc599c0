"""The whole system on this machine for as long as a block lasts: Postgres, and the processes that `pgsig worker` and so on start."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

from pgsig.cli.common import ADDRESS
from pgsig.cli.supervise import Supervisor, role
from pgsig.definition import Definition, load
from pgsig.demo import ledger
from pgsig.demo.folder import Folder
from pgsig.demo.screen import Screen
from pgsig.embedded import EmbeddedPostgres, find_binaries
from pgsig.errors import PgsigError
from pgsig.paths import PACKAGE
from pgsig.settings import Settings
from pgsig.store import definitions
from pgsig.store.database import Connection, connect
from pgsig.store.migrate import migrate

WORKFLOW_FILE = Path(__file__).with_name("workflow.yaml")
HOST = "127.0.0.1"
WORKERS = 2
LOOK_EVERY = 0.1  # seconds
ANSWERS_WITHIN = 60.0
GRACE, RUNNER_GRACE = 6.0, 20.0  # seconds for a process to end
LOG_LIMIT = 5_000_000  # bytes
SERVICE = "pgsig"  # in the service file


class Interrupted(PgsigError):
    """Somebody pressed Ctrl-C, or sent SIGTERM."""

    def __init__(self) -> None:
        super().__init__("interrupted", code="PS829")


class Stop:
    """Whether somebody asked to stop. A second time nobody is waited for."""

    def __init__(self) -> None:
        self.asked = False
        self.again: Callable[[], object] = lambda: None

    def __call__(self, *_: object) -> None:
        # A plain attribute: setting an event that the main thread waits for could deadlock in a signal handler.
        if self.asked:
            self.again()
        self.asked = True

    def check(self) -> None:
        if self.asked:
            raise Interrupted

    @contextlib.contextmanager
    def by_signal(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask to stop, in this block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class System:
    """What runs. url: of the database. span: where this start's piece of the ledger begins. up: where everything was at work."""

    def __init__(self, home: Path, screen: Screen, stop: Stop) -> None:
        self.home = home.resolve()
        self.folder = Folder(self.home)
        self.screen = screen
        self.stop = stop
        self.url = ""
        self.port = 0
        self.embedded: EmbeddedPostgres | None = None
        self.definition: Definition = load(WORKFLOW_FILE)
        self.span = self.up = ledger.Span(0, 0)
        self.news: list[str] = []  # what happened to processes, not shown yet
        self.error: PgsigError | None = None
        self._supervisor: Supervisor | None = None
        self._connection: Connection | None = None

    # ── what callers ask ──

    @property
    def connection(self) -> Connection:
        """A connection for looking, which hears `pgsig_changes`."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.url, name="demo")
            self._connection.execute("LISTEN pgsig_changes")
        return self._connection

    def reconnect(self) -> None:
        """After the database went away: once more from the beginning, a moment later."""
        self._close()
        self.stop.check()
        select.select([], [], [], LOOK_EVERY)

    def pids(self) -> dict[str, int]:
        """Process ids of the roles, by name."""
        return self._supervisor.pids() if self._supervisor else {}

    def wait(self, seconds: float = LOOK_EVERY) -> None:
        """Until something changed, or the time is over. Raises Interrupted, and PgsigError when the processes gave up."""
        self.stop.check()
        if self.error is not None:
            raise self.error
        for _ in self.connection.notifies(timeout=seconds, stop_after=1):
            pass
        self.stop.check()

    def until(self, ready: Callable[[], Any], what: str, within: float) -> Any:
        """Wait for something that is true, and return it. Raises PgsigError saying what did not happen."""
        deadline = monotonic() + within
        while not (found := ready()):
            if monotonic() > deadline:
                raise PgsigError(f"{what} did not happen within {within:.0f} s", code="PS822", fix=f"see {self.log}")
            self.wait()
        return found

    def get(self, port: int, path: str) -> tuple[int, bytes]:
        """GET from this machine: status and body; 0 where nobody answers."""
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    @property
    def log(self) -> Path:
        return self.home / "processes.log"

    # ── from nothing to a running system ──

    @contextlib.contextmanager
    def running(self, port: int | None) -> Iterator[None]:
        """Set everything up, saying so; in the block it runs; at its end nothing is left."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_holding(self.home))
            preparing = self._prepare_data()
            stack.callback(_end, preparing)
            self._database(stack)
            self._schema()
            self._data(preparing)
            # Jobs run in their runner's current folder, and that is this one.
            stack.enter_context(contextlib.chdir(self.home))
            stack.callback(self._close)
            self._choose_ports(port)
            # A process id that is no longer ours must not stand there for anybody to kill.
            self._forget_pids()
            stack.callback(self._forget_pids)
            self._processes(stack)
            self._answers()
            yield

    def _prepare_data(self) -> subprocess.Popen[str]:
        """In a process of its own, while Postgres starts."""
        return subprocess.Popen(
            [sys.executable, "-m", "pgsig.demo.digits", str(self.home)], env=os.environ | _python_path(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _data(self, preparing: subprocess.Popen[str]) -> None:
        with self.screen.step("data", "handwritten digits") as step:
            said, problem = preparing.communicate()
            if preparing.returncode != 0:
                self.stop.check()
                last = problem.strip().splitlines()[-1:] or [f"exit code {preparing.returncode}"]
                raise PgsigError(f"the digits cannot be had: {last[0]}", code="PS820", fix="pip install 'pgsig[demo]'")
            total, learn, held = map(int, said.split())
            step.text = f"{total:,} handwritten digits: {learn:,} to learn from, {held} held out to judge by"
            self.stop.check()

    def _database(self, stack: contextlib.ExitStack) -> None:
        self.stop.check()
        url = Settings.from_env().database_url
        if url or any(os.environ.get(name) for name in ADDRESS):
            self.url = url
            with self.screen.step("database", "connecting") as step, connect(url, name="demo") as connection:
                info = connection.info
                step.text = f"Postgres {info.server_version // 10000}, yours: {info.dbname} at {info.host or 'this machine'}:{info.port}"
            return
        with self.screen.step("postgres", "starting; the first time takes a few seconds") as step:
            self.embedded = EmbeddedPostgres(self.home / "postgres")
            stack.enter_context(self.embedded)
            self.url = self.embedded.dsn()
            self._write_service_file()
            step.text = f"{self.embedded.version}, from {_short(find_binaries().directory)}, port {self.embedded.port}"

    def _write_service_file(self) -> None:
        """So that psql and pgsig find the database, with nobody seeing the password."""
        at = urlsplit(self.url)
        text = (
            f"[{SERVICE}]\nhost={at.hostname}\nport={at.port}\nuser={at.username}\npassword={unquote(at.password or '')}\n"
            f"dbname={at.path.lstrip('/')}\n"
        )
        path = self.home / "pg_service.conf"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    def _schema(self) -> None:
        self.stop.check()
        with self.screen.step("schema", "migrating") as step:
            done = migrate(self.url)
            step.text = f"{done.after}{'' if done.before == done.after else ', new' if not done.before else f', was {done.before}'}"
            if self.embedded is None:
                self._refuse_company()
            self.span = ledger.here(self.connection)
        with self.screen.step("workflow", "applying") as step:
            applied = definitions.apply(self.connection, self.definition)
            rules = sum(len(operator.rules) for operator in self.definition.operators)
            step.text = f"digits, version {applied.version}: {len(self.definition.operators)} operators, {rules} rules"

    def _refuse_company(self) -> None:
        """A runner from elsewhere would execute these jobs in its own folder. Raises PgsigError."""
        runners = ledger.count(
            self.connection,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgsig runner%%' AND %s",
            True,
        )
        if runners:
            raise PgsigError(
                "this database has a runner already, which would take the demonstration's jobs", code="PS823",
                fix="give it a database of its own, or none: then it brings its own Postgres",
            )  # fmt: skip

    def _choose_ports(self, port: int | None) -> None:
        wanted = port if port is not None else Settings.from_env().port
        self.port = free_port(wanted)
        if self.port != wanted and wanted:
            self.screen.named("", f"port {wanted} is taken, so the page is at port {self.port}")
        self.folder.port = free_port(self.folder.port or self.port + 1, but=self.port)

    def _processes(self, stack: contextlib.ExitStack) -> None:
        env = {
            "PGSIG_HOST": HOST, "PGSIG_PORT": str(self.port), "PGSIG_SPOOL": str(self.home), "PGSIG_POOLS": "default",
            "PGSIG_API_TOKEN": "", "PGSIG_LISTEN_URL": "", **_python_path(), **({"DATABASE_URL": self.url} if self.url else {}),
        }  # fmt: skip
        supervisor = Supervisor(
            [
                role("runner", env=env, grace=RUNNER_GRACE),
                *(role("worker", env=env, label=f"worker{i + 1}", grace=GRACE) for i in range(WORKERS)),
                role("clock", env=env, grace=GRACE),
                role("web", env=env, grace=GRACE),
            ],
            say=self._heard(stack),
        )
        self._supervisor = supervisor
        self.stop.again = supervisor.stop
        thread = threading.Thread(target=self._supervise, args=(supervisor,), name="supervisor")
        with self.screen.step("processes", "starting") as step:
            thread.start()
            stack.callback(self._end_processes, supervisor, thread)
            self.until(lambda: len(self.pids()) == WORKERS + 3, "the start of all processes", 10)
            self._note_pids()
            step.text = " · ".join(f"{name} {pid}" for name, pid in self.pids().items())

    def _supervise(self, supervisor: Supervisor) -> None:
        try:
            supervisor.run()
        except PgsigError as error:
            self.error = error

    def _end_processes(self, supervisor: Supervisor, thread: threading.Thread) -> None:
        supervisor.stop()
        thread.join()

    def _heard(self, stack: contextlib.ExitStack) -> Callable[[str, str], None]:
        """What processes write goes to a file; what happens to them is news."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        file = stack.enter_context(self.log.open("a", encoding="utf-8", buffering=1))

        def say(name: str, line: str) -> None:
            with contextlib.suppress(ValueError):  # the last words of a child come when the file is closed
                file.write(f"{name:<8} {line}\n")
            if name == "pgsig":
                self.news.append(line)
                self._note_pids()

        return say

    def _note_pids(self) -> None:
        for name, pid in self.pids().items():
            self.folder.write_text(self.home / "pids" / name, str(pid))

    def _forget_pids(self) -> None:
        shutil.rmtree(self.home / "pids", ignore_errors=True)

    def _answers(self) -> None:
        with self.screen.step("page", "waiting for its first answer") as step:
            self.until(lambda: self.get(self.port, "/")[0] == 200, "an answer of the page", ANSWERS_WITHIN)
            step.text = f"http://{HOST}:{self.port} answers"
        with self.screen.step("service", "waiting for its first answer") as step:
            step.text = self.until(self._service, "an answer of the service", ANSWERS_WITHIN)
        self.up = ledger.here(self.connection)

    def _service(self) -> str:
        """What to say of the service, once there is something: what an earlier start left stopped stays stopped."""
        if self.get(self.folder.port, "/")[0] == 200:
            return f"http://{HOST}:{self.folder.port} answers"
        state = ledger.state(self.connection, "serve")
        return f"{state}; to start it: pgsig act digits.serve start" if state in ("stopped", "failed") else ""

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def check_nothing_left(self) -> None:
        """After the end. Raises PgsigError if a process of this folder lives on (Linux)."""
        found = leftovers(self.home)
        for _ in range(30):  # the kernel needs a moment
            if not found:
                return
            select.select([], [], [], LOOK_EVERY)
            found = leftovers(self.home)
        raise PgsigError(f"{len(found)} processes are left: {'; '.join(found)}", code="PS826")


def forget(home: Path) -> None:
    """Remove a demonstration's folder. Raises PgsigError if one is running there."""
    if not home.exists():
        return
    with _holding(home):
        if (home / "postgres").exists():
            EmbeddedPostgres(home / "postgres").stop("immediate")
        shutil.rmtree(home)


@contextlib.contextmanager
def _holding(home: Path) -> Iterator[None]:
    """Hold a folder. Raises PgsigError if a demonstration has it."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)  # as root, Postgres may run as another user, who has to get through
    with (home / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PgsigError(
                "a demonstration is running in this folder already", code="PS821", where=str(home),
                fix="stop it, or start this one in another folder",
            ) from None  # fmt: skip
        yield


def psql() -> str:
    """How to call psql here: by name, or the embedded server's own; "" if there is none."""
    if shutil.which("psql"):
        return "psql"
    with contextlib.suppress(PgsigError):
        program = find_binaries().directory / "psql"
        if os.access(program, os.X_OK):
            return shlex.quote(str(program))
    return ""


def free_port(wanted: int, but: int = 0) -> int:
    """The port that is wanted if nobody listens there, else one that is free. but: not this one."""
    for port in (wanted, 0, 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError, OverflowError):
                probe.bind((HOST, port))
                probe.listen()
                found = int(probe.getsockname()[1])
                if found != but:
                    return found
    raise PgsigError("no free port on this machine", code="PS824")


def leftovers(home: Path) -> list[str]:
    """Living processes that were started for a folder (Linux). Somebody's terminal that is in there, or names it, is none."""
    marks = tuple(name + os.fsencode(home) for name in (b"PGSIG_SPOOL=", b"PGSIG_RUN_FILE="))
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                continue
            place = (entry / "cwd").readlink()
            server = place.is_relative_to(home) and "postgres" in place.relative_to(home).parts
            if server or any(item.startswith(marks) for item in (entry / "environ").read_bytes().split(b"\0")):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{entry.name} {words[:80].strip()}")
    return found


def _python_path() -> dict[str, str]:
    """For children: this very pgsig, wherever they are started."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))}


def _short(path: Path) -> str:
    text = str(path).replace(str(Path.home()), "~", 1)
    return text if len(text) <= 40 else f"…{text[-39:]}"


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
