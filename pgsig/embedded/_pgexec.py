"""Becomes a Postgres program, after the steps between fork and exec that Postgres needs.

Run by its path, in isolated mode: it imports nothing of pgsig and is ready in a few milliseconds. A helper
process does these steps because Python code between fork and exec (`preexec_fn`) can deadlock a program that
has threads.

    _pgexec.py PARENT IDENTITY PROGRAM [ARGUMENT...]

PARENT is the process that this one must not outlive, 0 for none (Linux only; ignored elsewhere). IDENTITY is
`self`, `namespace` (root, seen by the program as a normal user: files stay root's) or `UID:GID`. Ends with
125 when the kernel refuses the namespace, with 126 when the program cannot be started as that identity.
"""

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

NAMESPACE_REFUSED = 125
NOT_STARTED = 126

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def enter_namespace() -> None:
    """Be a normal user to this program and its children, while every file stays owned by the real user.

    The inner user needs a line in passwd: initdb looks its own name up.
    """
    real_user, real_group = os.getuid(), os.getgid()
    inner = next((entry for entry in pwd.getpwall() if entry.pw_uid == 65534), None) or next(
        entry for entry in pwd.getpwall() if entry.pw_uid != 0
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        problem = ctypes.get_errno()
        raise OSError(problem, f"user namespace refused: {os.strerror(problem)}")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{inner.pw_uid} {real_user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{inner.pw_gid} {real_group} 1", encoding="ascii")


def drop_to(user: int, group: int) -> None:
    """Give root away for good."""
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def die_with(parent: int) -> None:
    """Ask the kernel for a fast shutdown when the parent dies; it may have died before the kernel was asked.

    After every change of identity, which would clear it. It survives exec.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(NOT_STARTED)


def main(parent: int, identity: str, program: list[str]) -> None:
    """Take the identity, tie the process to its parent, and become the program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    if identity == "namespace":
        try:
            enter_namespace()
        except (OSError, StopIteration) as problem:
            print(problem, file=sys.stderr)
            sys.exit(NAMESPACE_REFUSED)
    elif identity != "self":
        user, group = identity.split(":")
        drop_to(int(user), int(group))
    if parent and sys.platform == "linux":
        die_with(parent)
    try:
        os.execv(program[0], program)  # noqa: S606 - the caller gives a list, no shell reads it
    except OSError as problem:
        print(f"{program[0]}: {problem.strerror}, as user {os.getuid()}", file=sys.stderr)
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
