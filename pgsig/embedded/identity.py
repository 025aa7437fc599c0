"""As whom: Postgres refuses to run as root."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pgsig.embedded.binaries import Binaries, EmbeddedPostgresError

HELPER = Path(__file__).with_name("_pgexec.py")


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
    probe = through_helper(Identity("namespace", 0, 0), [str(directory / "initdb"), "--version"], parent=0)
    return subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0


def through_helper(identity: Identity, program: list[str], *, parent: int) -> list[str]:
    """The command that becomes `program` as that identity. parent: the process that it must not outlive, 0 for none."""
    return [sys.executable, "-I", "-S", str(HELPER), str(parent), identity.argument, *program]


def environment() -> dict[str, str]:
    """Ours without what would redirect Postgres' programs."""
    return {name: value for name, value in os.environ.items() if not re.fullmatch(r"PG[A-Z]+", name)}
