"""The demonstration: real learning on real digits, started, judged, served, reloaded and restarted by signals.

`workflow.yaml` is what happens, and the file to read first. Its jobs are `train`, `evaluate`, `serve`, `canary` and `report`;
`digits` and `model` are what they compute with, `folder` is what they share. `system` starts the processes, `watch` shows what they
do, and `once` leads them to a stated end. The jobs need scikit-learn: `pip install 'pgsig[demo]'`.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic

HOME = Path(".pgsig/demo")  # in the current folder
HOME_ONCE = Path(".pgsig/demo-once")


def main(once: bool = False, port: int | None = None, fresh: bool = False) -> int:
    """Run the demonstration until Ctrl-C, or `once` to its end. Returns the exit code.

    port: of the page; another one if it is taken. fresh: forget what earlier runs left. `once` always begins without a past, in a
    folder of its own, which stays only if something did not happen.
    """
    from pgsig.demo.once import Check
    from pgsig.demo.screen import Screen
    from pgsig.demo.system import Interrupted, Stop, System, forget
    from pgsig.demo.watch import follow, introduce
    from pgsig.errors import PgsigError

    screen, stop, began = Screen(), Stop(), monotonic()
    home = HOME_ONCE if once else HOME
    screen.line()
    screen.line(
        f"  {screen.paint('pgsig demo', 'bold')}  digits are learned, judged and served; signals in Postgres decide what runs when"
    )
    screen.line()
    system: System | None = None
    try:
        with stop.by_signal():
            if fresh or once:
                forget(home)
            system = System(home, screen, stop)
            with system.running(port):
                if once:
                    screen.line()
                    Check(system).run()
                else:
                    introduce(system, home)
                    follow(system)
                screen.status("  ending: jobs get a few seconds to finish; Ctrl-C again does not wait")
            system.check_nothing_left()
            if once:
                forget(home)
    except Interrupted:
        screen.status("")
        screen.line("  interrupted")
        return 130
    except (PgsigError, OSError) as error:
        screen.status("")
        screen.line()
        screen.line(f"  {screen.paint('failed', 'red')}  {error}")
        if isinstance(error, PgsigError) and error.code in ("PS021", "PS805", "PS806", "PS807"):
            screen.line(f"          or begin anew with pgsig demo --fresh, which forgets what is in {home}")
        elif system is not None and system.log.exists():
            screen.line(f"          what the processes said is in {home / system.log.name}")
        return 1
    screen.status("")
    screen.line()
    end = f"{screen.paint('all of it happened', 'green')} in {monotonic() - began:.1f} s, and" if once else "ended;"
    screen.line(f"  {end} nothing is left running")
    return 0
