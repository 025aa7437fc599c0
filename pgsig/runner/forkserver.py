"""The fork server: one small process beside a runner that has an interpreter and its modules ready, and gives out children.

    fork             → `child PID CELL`, with a socket to that child, which has a session of its own, a cgroup where CELL is 1, and
                       waits for an order;
                       `failed ERRNO` where there is none
    later            → the same, in a moment in which nothing else is asked; `now`: all that was asked for later. Such a child rehearses
    reap PID NUMBER  → `end NUMBER STATUS SECONDS KIBIBYTES`: its wait status, processor time and peak memory. `left NUMBER`, and it stays
                       as it is, where something may be left of it
    bury PID NUMBER  → `end` as above, whatever is left. `end NUMBER` alone where it is no child
    The line closes: the runner is gone, and so is the server.

What a job leaves behind becomes the server's own child: while it has none but those that it has forked, nothing is left of any job that
ended.

An order is the target, the folder, and NAME=value for the whole environment, with a NUL between each; and the file for the output. A
child that takes one becomes what `call.py` is in an interpreter of its own. One whose socket closes first ends. Ended children stay
unreaped until the runner has looked after what they left: until then their number is nobody else's.

Started by its path, as `call.py` is, with the environment that every job of this runner has, and without a PYTHONPATH.
"""

# ruff: noqa: PTH100, PTH102, PTH109, PTH118, PTH120
# What is imported here is imported in every job; a job should not get more than it has asked for.
from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the functions alone: `signal` makes enumerations of what they return
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgsig.runner.linux import Shown

HERE = os.path.dirname(os.path.abspath(__file__))
CALL = os.path.join(HERE, "call.py")
LARGEST_ORDER = 1 << 20
ORDER = bytearray(LARGEST_ORDER)  # where a child reads its order to: what is not written to is nowhere
ONE_FILE = socket.CMSG_SPACE(4)
QUIET = 0.01  # seconds of silence after which what is owed is forked: a child that enters its cgroup slows down who begins or ends
AT_ONCE = 0.05  # seconds in which an order comes where jobs wait for children
REHEARSALS = (
    20  # of the server: the interpreter has fitted its code to what it met by then, and children need not write to it
)
OF_A_RUN = {
    f"PGSIG_{name}".encode(): b""
    for name in ("RUN_FILE", "RUN_DIR", "RUN_ID", "ATTEMPT", "NAMESPACE", "WORKFLOW", "OPERATOR", "SUBJECT", "PARAMS")
}  # what an order has beside the server's environment; in a rehearsal they are empty
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Child:
    """A child of the server. channel: to the runner. early: nobody waits for it yet."""

    def __init__(self, channel: socket.socket, early: bool) -> None:
        self.channel = channel
        self.early = early
        self.pid = os.getpid()

    def has_order(self, wait: float) -> bool:
        """Whether there is one, within `wait` seconds."""
        return bool(select.select([self.channel], [], [], wait)[0])

    def order(self) -> bytes:
        """Wait for an order, with standard output and error in place. Does not return where none comes."""
        size, about, _, _ = self.channel.recvmsg_into([ORDER], ONE_FILE)
        if not size:
            os._exit(0)
        output = int.from_bytes(about[0][2], sys.byteorder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        return bytes(ORDER[:size])

    def call(self, target: str, known: Mapping[str, ModuleType]) -> None:
        """Do the job, and end as an interpreter would: here, or by raising what the job has raised. known: the server's modules."""
        from pgsig.runner import call, leaving

        code = None
        try:
            call.main(target)
            code = 0
        except SystemExit as end:
            if not isinstance(end.code, int | None):
                self.say(1)
                raise
            code = (end.code or 0) & 0xFF
        except Exception:
            self.say(1)
            raise
        self.say(code)
        if os.getpid() == self.pid:  # and not a child that the job has forked
            leaving.leave(code, known)
        sys.exit(code)

    def say(self, code: int) -> None:
        """Leave word of the exit code, for a runner whose fork server cannot tell any more."""
        if os.getpid() == self.pid:
            with contextlib.suppress(OSError):
                self.channel.send(b"%d" % code, socket.MSG_DONTWAIT)


class Server:
    """line: to the runner. path: what a child finds modules by, before its own folder and its PYTHONPATH. takes_orphans: whether they
    become its children. cells: where to make cgroups, or "". shown: what others see of it. own: its environment. now: of
    this process, which may be a child of it. known: its modules."""

    def __init__(self, line: socket.socket, path: list[str], takes_orphans: bool, cells: str, shown: Shown) -> None:
        self.line = line
        self.shown = shown
        self.cells = cells
        self.path = path
        self.own = dict(os.environb)
        self.now = self.own
        self.known = dict(sys.modules)
        self.takes_orphans = takes_orphans
        self.owed = 0  # children to fork later
        self.children: set[int] = set()  # forked and not reaped
        # Whoever stops the runner by signalling everything around it must not take this first, and a child that is signalled before it
        # leads its session must not miss it: what is held back, a child gets when it has begun, and the server never.
        _signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)

    def serve(self) -> Child | None:
        """Answer until the runner is gone. In a child: the child."""
        while True:
            try:
                asked = select.select([self.line], [], [], QUIET if self.owed else None)[0]
                word, *numbers = (self.line.recv(64) if asked else b"owed").split() or [b""]
                if word == b"later":
                    self.owed += 1
                elif word in {b"fork", b"owed", b"now"}:
                    number = {b"fork": 1, b"owed": 1, b"now": self.owed}[word]
                    self.owed -= 0 if word == b"fork" else number
                    for _ in range(number):
                        child = self.fork(early=word == b"owed")
                        if child is not None:
                            return child
                elif word == b"reap" and self.strays():
                    self.line.send(b"left %d" % int(numbers[1]))
                elif word in {b"reap", b"bury"}:
                    self.reap(*map(int, numbers))
                else:
                    return None
            except OSError:  # gone while it was answered
                return None

    def fork(self, early: bool) -> Child | None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            about = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, theirs.fileno().to_bytes(4, sys.byteorder))]
            try:
                pid = os.fork()
            except OSError as error:
                self.line.send(b"failed %d" % (error.errno or 0))
                pid = -1
            if pid == 0:
                os.setsid()
                _signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
                # Told by the child: whoever knows of it can signal it as it would any job.
                self.line.sendmsg([b"child %d %d" % (os.getpid(), self.enter_cell())], about)
                self.line.close()
                gc.enable()
                return Child(ours, early)
        ours.close()
        if pid > 0:
            self.children.add(pid)
        return None

    def enter_cell(self) -> bool:
        """Enter a cgroup of its own, by the process id. False: there can be none."""
        if not self.cells:
            return False
        cell = f"{self.cells}/{os.getpid()}"
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(cell)
            file = os.open(f"{cell}/cgroup.procs", os.O_WRONLY)
            try:
                os.write(file, b"0")
            finally:
                os.close(file)
        except OSError:
            return False
        return True

    def strays(self) -> bool:
        """Whether there is a child that was not forked here; also where that cannot be known."""
        pid = os.getpid()
        if not self.takes_orphans:
            return True
        try:
            with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:  # noqa: PTH123 - for each end
                found = {int(child) for child in file.read().split()} - self.children
            return any(os.waitpid(child, os.WNOHANG)[0] == 0 for child in found)
        except OSError:
            return True

    def reap(self, pid: int, number: int) -> None:
        try:
            found, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            found, status, usage = 0, 0, None
        if found and usage:
            spent = usage.ru_utime + usage.ru_stime
            self.children.discard(pid)
            self.line.send(b"end %d %d %.6f %d" % (number, status, spent, usage.ru_maxrss))
        else:
            self.line.send(b"end %d" % number)


def dress(order: bytes, server: Server, *, shown: bool = True) -> str:
    """Make of this process what a new interpreter would have been, as far as a job can see it. Returns the target."""
    target_name, cwd, pairs = order.split(b"\0", 2)
    target, environment = os.fsdecode(target_name), dict([pair.split(b"=", 1) for pair in pairs.split(b"\0")])
    # By bytes, and what differs alone: to ask `os.environ` for each takes longer than all the rest.
    for name in server.now.keys() - environment.keys():
        del os.environb[name]
    for name, value in environment.items() - server.now.items():
        os.environb[name] = value
    server.now = environment
    if shown:
        server.shown.overwrite([sys.executable, CALL, target], environment)
    else:
        server.shown.overwrite(sys.orig_argv, server.own)
    if environment.get(b"TZ") != server.own.get(b"TZ"):
        time.tzset()
    os.chdir(cwd)
    given = os.fsdecode(environment.get(b"PYTHONPATH", b""))
    own = [os.path.abspath(entry) for entry in given.split(os.pathsep)] if given else []  # "" is the folder itself
    sys.path[:] = list(dict.fromkeys([*own, *server.path]))
    for entry in [entry for entry in sys.path_importer_cache if entry not in server.path]:
        del sys.path_importer_cache[entry]
    # A process that multiprocessing spawns runs this file again, under another name.
    sys.modules["__main__"].__file__ = CALL
    random = sys.modules.get("numpy.random")
    if random is not None:  # Python's own generator is seeded anew by a fork, this one is not
        random.seed()
    _forget_other(target.partition(":")[0].partition(".")[0])
    return target


def rehearse(server: Server) -> None:
    """Do once what an order will need: the pages that this writes to are the child's own by then, and nobody waits for them."""
    from pgsig.runner import call, calling

    calling.rehearse()
    pairs = [b"%b=%b" % pair for pair in (server.own | OF_A_RUN).items()]
    order = b"\0".join([b"pgsig.runner.forkserver:nothing", os.getcwdb(), *pairs])
    call.main(dress(order, server, shown=False))


def nothing() -> None:
    """What a rehearsal calls."""


def _forget_other(package: str) -> None:
    """A job's module may have the name of one that was imported for the server: the job's own is meant."""
    known = sys.modules.get(package)
    if known is None or package == "pgsig":
        return
    # A search touches a hundred pages: where the folder itself is the one that it came from, there is nothing to search for.
    root = os.path.dirname(getattr(known, "__file__", None) or "")
    if (os.path.dirname(root) if hasattr(known, "__path__") else root) == os.getcwd():
        return
    import importlib.machinery

    found = importlib.machinery.PathFinder.find_spec(package, [os.getcwd(), *sys.path])
    if found is not None and found.origin != getattr(known, "__file__", None):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]


def prepare(given: dict[str, Any]) -> Server:
    """Import what jobs will need. given: `line`, a file descriptor; `preload`, modules; `path`, where those may be, too;
    `cells`, the folder for cgroups, or ""."""
    import importlib
    import traceback

    usual = [entry for entry in sys.path[1:] if os.path.abspath(entry) != HERE]
    package = os.path.dirname(os.path.dirname(HERE))
    if package not in usual:
        usual.append(package)
    sys.path[:] = [*given["path"], *usual]
    for name in ("run", "runner.linux", "runner.call", "runner.leaving", "runner.forkserver"):
        importlib.import_module(f"pgsig.{name}")

    for name in given["preload"]:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - the jobs that need it will say so
            sys.stderr.write(f"pgsig: PGSIG_PRELOAD names {name}, which cannot be imported; jobs start without it\n")
            traceback.print_exc()
    from pgsig.runner import linux
    from pgsig.runner.dispositions import INHERITED

    for number in INHERITED:  # the runner may have been told to ignore it, its jobs were not
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    server = Server(socket.socket(fileno=given["line"]), usual, linux.take_orphans(), given["cells"], linux.Shown())
    # No pointer of the C library leads to where a child will show its own environment.
    for variable in server.own:
        os.environb[variable] = server.own[variable]
    for _ in range(REHEARSALS):
        rehearse(server)
    server.known = dict(sys.modules)
    # What is here now stays shared: a collection in a child would copy it.
    gc.collect()
    gc.freeze()
    gc.disable()
    return server


def main() -> None:
    server = prepare(json.loads(sys.argv[1]))
    child = server.serve()
    if child is None:
        os._exit(0)
    if not child.has_order(0 if child.early else AT_ONCE):
        rehearse(server)
    target = dress(child.order(), server)
    child.call(target, server.known)


if __name__ == "__main__":
    main()
