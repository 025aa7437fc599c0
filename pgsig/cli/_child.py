"""Becomes another program that ends when its parent does. Run by its path, in isolated mode, ready in
milliseconds.

    _child.py PARENT PROGRAM [ARGUMENT...]

The kernel sends SIGTERM when the parent dies (Linux; elsewhere nothing does). It may have died before the
kernel was asked: then this ends with 126 at once.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_STARTED = 126


def main(parent: int, program: list[str]) -> None:
    """Tie this process to its parent and become the program."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(NOT_STARTED)
    try:
        os.execvp(program[0], program)  # noqa: S606  the caller gives a list, no shell reads it
    except OSError as problem:
        print(f"{program[0]}: {problem.strerror}", file=sys.stderr)
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
