"""A cgroup (version 2) for each job, under one of its runner, where the system lets us: what a job starts stays in it, whatever it does.

Found beside this process: a machine has one such hierarchy, and who may make folders in its own part of it needs nothing else. With
systemd that is a unit with `Delegate=yes`; with `DelegateSubgroup=` too, memory is counted and its end told. Everything here is best
effort: without cgroups, trees are found by /proc.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from threading import Event

from pgsig.runner import tree

ROUNDS = 500  # looks at something that is being killed, 10 ms apart


def part() -> Path | None:
    """The part of the hierarchy in which this process may make its own."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
        mount = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = mount / next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    except (OSError, StopIteration, IndexError):
        return None
    # With DelegateSubgroup= this process is a leaf, and the group above is ours: only one without processes may count for its members.
    with contextlib.suppress(OSError, AttributeError):
        if own != mount and os.getxattr(own.parent, "user.delegate") == b"1":
            return own.parent
    return own


def place(mark: str) -> Path | None:
    """Where the cgroup of the runner with this mark is, or would be."""
    found = part()
    return found / f"pgsig-{mark}" if found else None


class Cell:
    """The cgroup of a job: what it is, or will be, by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self, pid: int) -> bool:
        """Make it, and put a process into it, with what that has started until then. False: it is not there any more, or may not be."""
        with contextlib.suppress(OSError):
            self.path.mkdir(exist_ok=True)
            if self._put(pid):
                return True
            self.remove()
        return False

    def _put(self, pid: int) -> bool:
        try:
            (self.path / "cgroup.procs").write_text(str(pid))
        except OSError:
            return False
        # What a member starts is a member: only what was there before has to be put in.
        for child in tree.children(pid):
            self._put(child)
        return True

    @property
    def populated(self) -> bool:
        """Whether something in it is alive."""
        return self._number("cgroup.events", "populated") == 1

    def kill(self) -> None:
        """Send SIGKILL to all that is in it."""
        with contextlib.suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")

    @property
    def cpu_seconds(self) -> float | None:
        """What everything that was ever in it has used."""
        spent = self._number("cpu.stat", "usage_usec")
        return None if spent is None else spent / 1e6

    @property
    def memory_peak(self) -> int | None:
        """Bytes that all in it used together, at most. None where memory is not counted."""
        return self._number("memory.peak")

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel has killed something in it for want of memory."""
        return bool(self._number("memory.events", "oom_kill"))

    def _number(self, name: str, key: str = "") -> int | None:
        try:
            file = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            for line in os.read(file, 4096).splitlines():
                word, _, value = line.rpartition(b" ")
                if word == key.encode():
                    return int(value)
        except (OSError, ValueError):
            return None
        finally:
            os.close(file)
        return None

    def remove(self) -> None:
        """Remove it, with what a job may have made in it."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)  # noqa: PTH106 - for each end
            return
        with contextlib.suppress(OSError):
            for folder, _, _ in os.walk(self.path, topdown=False):
                os.rmdir(folder)  # noqa: PTH106 - as os.walk gives it


class Home:
    """The cgroup of a runner: nothing is in it but those of its jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, mark: str) -> Home | None:
        """Make it, or find that there can be none."""
        path = place(mark)
        try:
            if path is None:
                return None
            path.mkdir()
            if not (path / "cgroup.kill").exists():  # a kernel before 5.14
                path.rmdir()
                return None
        except OSError:
            return None
        for group in (path.parent, path):  # the upper one refuses where it has processes of its own
            with contextlib.suppress(OSError):
                if "memory" in (group / "cgroup.controllers").read_text(encoding="ascii").split():
                    (group / "cgroup.subtree_control").write_text("+memory")
        return cls(path)

    def cell(self, name: str) -> Cell:
        """That of a job."""
        return Cell(self.path / name)

    def clear(self) -> bool:
        """End all that is in it, and remove it. False: something is left that cannot be ended (now)."""
        whole, pause = Cell(self.path), Event()
        for _ in range(ROUNDS):
            if whole.populated:
                whole.kill()
            else:
                whole.remove()
            if not self.path.exists():
                return True
            pause.wait(0.01)  # to die takes a moment, and a fork server may have been about to make one more
        return False
