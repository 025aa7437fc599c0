"""Python callables that tests of the process engine run as jobs, warm and cold."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

kept: list[Any] = []


def show(run: ModuleType) -> None:
    """All that a job can see of how it was started."""
    print(
        json.dumps(
            {
                "environ": dict(os.environ),
                "shown": Path("/proc/self/environ").read_bytes().rstrip(b"\0").decode().split("\0"),
                "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
                "path": sys.path,
                "argv": sys.argv,
                "cwd": str(Path.cwd()),
                "handlers": {name.name: str(signal.getsignal(name)) for name in signal.Signals},
                "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                "leads": (os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()),
                "files": [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)],
                "inherited": [number for number in range(3, 200) if _inheritable(number)],
                "main": getattr(sys.modules["__main__"], "__file__", ""),
                "zone": time.tzname,
                "encodings": (sys.stdout.encoding, sys.getfilesystemencoding(), sys.flags.utf8_mode),
                "unbuffered": sys.stdout.write_through,  # type: ignore[union-attr]
                "limit": sys.getrecursionlimit(),
                "collector": __import__("gc").isenabled(),
                "umask": os.umask(0o22),
                "run": run.id,
            }
        )
    )


def _inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


# ── how a job may end ──


def returns() -> None:
    print("out")
    print("err", file=sys.stderr)


def exits() -> None:
    sys.exit(int(os.environ["CODE"]))


def exits_with_text() -> None:
    sys.exit("not today")


def raises() -> None:
    os.environ["MISSING"]


def is_interrupted() -> None:
    raise KeyboardInterrupt


def vanishes() -> None:
    os._exit(9)


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfaults() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


class Last:
    def __del__(self) -> None:
        os.write(1, b"let go\n")


def leaves_things_open() -> None:
    """What is only written when the interpreter ends."""
    file = Path(os.environ["PGSIG_RUN_DIR"], "unflushed").open("w")  # noqa: SIM115
    file.write("kept")
    kept.extend([file, Last()])
    cycle: list[Any] = [Last()]
    cycle.append(cycle)
    atexit.register(lambda: print("at exit", flush=True))
    threading.Timer(0.1, print, ["thread"], {"flush": True}).start()


def has_a_daemon_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    atexit.register(print, "at exit")


def closes_its_output() -> None:
    os.close(1)
    sys.stdout.buffer.write(b"lost")


def forks() -> None:
    """The child comes back through all that called it."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        sys.exit(3)


# ── what engines are asked about ──


def waits() -> None:
    """Until a file is there, then ends with 5."""
    print("ready", flush=True)
    while not Path(os.environ["PGSIG_RUN_DIR"], "go").exists():
        time.sleep(0.01)  # noqa: TID251
    raise SystemExit(5)


def leaves_a_daemon() -> None:
    """Two forks, a session of its own, an environment that is empty as far as C is concerned."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ.clear()
            while True:
                os.write(1, b"daemon\n")
                time.sleep(0.01)  # noqa: TID251
        os._exit(0)
    time.sleep(0.1)  # noqa: TID251


def burns() -> None:
    """0.4 s of processor time, half of it in a child, and BYTES of memory, 200 MB by default."""
    block = bytearray(b"x") * int(os.environ.get("BYTES", "200000000"))
    for _ in range(2):
        begin = time.process_time()
        while time.process_time() - begin < 0.2:
            pass
        if (pid := os.fork()) == 0:
            continue
        os.waitpid(pid, 0)
        break
    assert block


def imported_by() -> None:
    import preloaded  # type: ignore[import-not-found]

    by: int = preloaded.BY
    print(by == os.getppid(), by == os.getpid())


def rolls() -> None:
    import random

    import numpy as np

    print(np.random.random(), random.random())


def leaves_a_daemon_and_stays() -> None:
    leaves_a_daemon()
    time.sleep(600)  # noqa: TID251


def appends() -> None:
    """A line of its run and its attempt, at once whole."""
    file = os.open(os.environ["FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{os.environ['PGSIG_RUN_ID']} {os.environ['PGSIG_ATTEMPT']}\n".encode())
    os.close(file)


def witnesses() -> None:
    """As the shell's witness of tests/faults: a line of its begin, and again and again that it is still there."""
    file = Path(os.environ["FILE"])
    with file.open("a") as lines:
        lines.write(f"begin {os.environ['PGSIG_ATTEMPT']} {os.getpid()}\n")
    while True:
        Path(f"{file}.{os.getpid()}").write_text(f"{time.time()}\n")
        time.sleep(0.02)  # noqa: TID251


def ignores() -> None:
    """Which signals it ignores."""
    print(*[line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigIgn")])


def leaves_a_stranger() -> None:
    """A daemon that nothing connects with this job: it has even forgotten the environment that others see. Begun when it is in its
    cgroup: a job that starts cold is put there a moment after its begin."""
    from pgsig.runner import linux

    while not Path("/proc/self/cgroup").read_text().rstrip().endswith(f"/{os.getpid()}"):
        time.sleep(0.01)  # noqa: TID251
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            linux.Shown().overwrite([], {})
            while True:
                os.write(1, b"%d\n" % os.getpid())
                time.sleep(0.01)  # noqa: TID251
        os._exit(0)
    time.sleep(0.2)  # noqa: TID251


def leaves_a_stranger_and_stays() -> None:
    leaves_a_stranger()
    time.sleep(600)  # noqa: TID251


def lets_another_burn() -> None:
    """0.2 s of processor time in a child that is not waited for."""
    done = Path(os.environ["PGSIG_RUN_DIR"], "done")
    if os.fork() == 0:
        while time.process_time() < 0.2:
            pass
        done.touch()
        time.sleep(600)  # noqa: TID251
    while not done.exists():
        time.sleep(0.01)  # noqa: TID251
