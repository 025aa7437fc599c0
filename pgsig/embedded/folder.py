"""The directory of a server: what lies in it, whose it is, and whether a server lives there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from pathlib import Path
from time import monotonic

from pgsig.embedded.binaries import Binaries, EmbeddedPostgresError
from pgsig.embedded.identity import Identity

STOPPED_WITHIN = 60.0
IN_USE_AFTER = 2.0  # how long another server may look well before start gives up
LOOK_EVERY = 0.02


class Folder:
    """The files of one server; see the package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cluster = path / "cluster"

    def claim(self) -> None:
        """Ours, or empty: what lies here may be handed to another user, so it must not be somebody's."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in self.path.iterdir()}
        if names and "lock" not in names:
            raise EmbeddedPostgresError(
                f"{self.path} holds other files", code="PS805", fix="choose an empty or a new directory"
            )

    def check_major(self, binaries: Binaries) -> None:
        """Refuse a cluster that another major version made."""
        file = self.cluster / "PG_VERSION"
        if not file.exists():
            return
        major = file.read_text(encoding="ascii").strip()
        if major != str(binaries.major):
            raise EmbeddedPostgresError(
                f"{self.path} was made by Postgres {major}, but {binaries.directory} holds {binaries.version}",
                code="PS806",
                fix=f"set PGSIG_PG_BIN to a bin directory of Postgres {major}, choose another directory, "
                "or move the data with pg_dump",
            )

    def make_password(self) -> Path:
        """The file with the password of the user `pgsig`, made the first time."""
        file = self.path / "password"
        if not file.exists():
            if self.cluster.is_dir():
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

    def give_files_to(self, identity: Identity) -> None:
        """As root, everything to whom the programs run as: that may have been another one the last time."""
        if identity.argument == "self":
            return
        owner = (identity.user, identity.group)
        for path in (self.path, *self.path.rglob("*")):
            about = path.lstat()
            if (about.st_uid, about.st_gid) != owner:
                os.chown(path, *owner, follow_symlinks=False)

    def take_lock(self) -> int:
        """Hold the lock. A server that is ending is waited for; one that looks well is somebody else's."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begin, pause = monotonic(), threading.Event()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, state = self.postmaster()
                waited = monotonic() - begin
                if waited > (IN_USE_AFTER if state == "ready" else STOPPED_WITHIN):
                    os.close(handle)
                    holder = f"by the server with process id {pid}" if pid else "by another start"
                    raise EmbeddedPostgresError(
                        f"{self.path} is in use {holder}",
                        code="PS805",
                        fix="use that server, stop it, or choose another directory",
                    ) from None
                pause.wait(LOOK_EVERY)
            else:
                return handle

    def lock_is_free(self) -> bool:
        try:
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
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

    def postmaster(self) -> tuple[int | None, str]:
        """Process and state (`starting`, `ready`, `stopping`) as the server wrote them down."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
        except (OSError, ValueError, IndexError):
            return None, ""

    def read(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def pid(self) -> int | None:
        """Of the server that lives here, whoever started it; None if none does."""
        pid, _ = self.postmaster()
        return pid if pid and not self.lock_is_free() and _runs_in(pid, self.cluster) else None


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


def children(pid: int) -> list[int]:
    """The children of a process. Without /proc none: a server's processes end by themselves later."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(file.parent.name))
    return found
