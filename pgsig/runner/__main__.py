"""`python -m pgsig.runner`: a runner by the environment's settings, until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal

from pgsig.runner.loop import Runner
from pgsig.settings import Settings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    runner = Runner(Settings.from_env())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    runner.run()


if __name__ == "__main__":
    main()
