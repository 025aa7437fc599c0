"""What a runner was told to ignore, and its jobs were not: `nohup` leaves SIGHUP ignored, the `&` of a script SIGINT and SIGQUIT.

What a process ignores, the programs that it starts ignore, too: a job could not be reloaded by HUP. What it handles begins with its
default in them.
"""

from __future__ import annotations

import signal
import threading

INHERITED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD,
)  # fmt: skip


def keep_to_oneself() -> None:
    """Go on ignoring what is ignored, by a handler: nobody inherits it. Does nothing outside the main thread, where Python cannot."""
    if threading.current_thread() is threading.main_thread():
        for number in INHERITED:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, _nothing)


def _nothing(*_: object) -> None:
    """Handles a signal."""
