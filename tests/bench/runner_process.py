"""The runner that is measured: `python -m pgsig.runner` that also writes down when it takes each grant."""

from __future__ import annotations

import os
import time

from pgsig.runner.__main__ import main
from pgsig.runner.supervisor import Supervisor
from pgsig.store.jobs import Grant, Held

_start = Supervisor._start
_file = os.open(os.environ["GRANTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def start(self: Supervisor, grant: Grant, left: Held | None = None) -> None:
    at = time.time()
    _start(self, grant, left)
    os.write(_file, f"{grant.id} {at}\n".encode())


if __name__ == "__main__":
    Supervisor._start = start  # type: ignore[method-assign]
    main()
