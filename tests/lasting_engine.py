"""An engine whose jobs outlive their runner, and are taken over by the next: what a cluster's engine is, in one file.

Each job has a keeper, a process with a session of its own that waits for it and writes down how it ended. Job and keeper share a folder,
which the next runner finds by the identity.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from pgsig.runner import tree
from pgsig.runner.engine import Exit
from pgsig.runner.place import Place
from pgsig.runner.process import command_line
from pgsig.settings import Settings
from pgsig.store.jobs import Grant

KEEPER = """
import os, subprocess, sys
folder, line = sys.argv[1], sys.argv[2:]
def write(name, text):
    with open(f"{folder}/{name}.draft", "w") as file:
        file.write(text)
    os.rename(f"{folder}/{name}.draft", f"{folder}/{name}")
try:
    # Written by the job's process before it is the job: what it says is never heard before it can be signalled.
    job = subprocess.Popen(line, start_new_session=True, preexec_fn=lambda: write("job", str(os.getpid())))
    code = job.wait()
except OSError as error:
    print(error)
    code = 127
write("end", str(code))
"""


class LastingHandle:
    """folder: of keeper and job. keeper: its process. told: bytes of the output that were passed on."""

    def __init__(self, folder: Path, keeper: tree.Root, place: Place) -> None:
        self.folder, self.keeper, self.place = folder, keeper, place
        self.stopping = False

    @property
    def identity(self) -> str:
        return f"{self.folder.name} {self.keeper.pid} {self.keeper.started}"

    @property
    def wake(self) -> int | None:
        return None

    def read(self, name: str) -> int | None:
        with contextlib.suppress(OSError):
            return int((self.folder / name).read_text())
        return None


class LastingEngine:
    """Its own folder is beside the runners' in the spool: it outlives them."""

    lasting = True

    def __init__(self, settings: Settings, mark: str = "") -> None:
        self.root = settings.spool.resolve() / "lasting"
        self.root.mkdir(parents=True, exist_ok=True)

    def start(self, grant: Grant, place: Place) -> LastingHandle:
        line = command_line(grant)
        folder = self.root / uuid.uuid4().hex
        folder.mkdir()
        mark = f"LASTING={folder.name}"
        own = {"LASTING": folder.name, "PGSIG_RUN_DIR": str(folder), "PGSIG_RUN_FILE": str(folder / "run.json")}
        env = {name: value for name, value in place.env.items() if name != "PGSIG_RUNNER"} | own
        shutil.copy(place.folder / "run.json", folder)
        with (folder / "output").open("wb") as output:
            keeper = subprocess.Popen(
                [sys.executable, "-c", KEEPER, str(folder), *line], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, cwd=grant.spec.get("cwd"),
            )  # fmt: skip
        keeper.returncode = 0  # nobody waits for it here: `poll` looks at what it writes
        found = tree.look(keeper.pid)
        return LastingHandle(folder, tree.Root(keeper.pid, found.started if found else 0, mark.encode()), place)

    def poll(self, job: LastingHandle) -> Exit | None:
        self._pass_on(job)
        code = job.read("end")
        if job.stopping and code is None:
            self.stop(job)
        if code is None or self._living(job):
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(job.keeper.pid, os.WNOHANG)
        self._pass_on(job)
        return Exit(code) if code >= 0 else Exit(None, signal.Signals(-code).name)

    def _pass_on(self, job: LastingHandle) -> None:
        told = job.folder / "told"
        with (job.folder / "output").open("rb") as file:
            file.seek(job.read("told") or 0)
            if data := file.read():
                with job.place.output.open("ab") as output:
                    output.write(data)
                told.write_text(str(file.tell()))

    def _living(self, job: LastingHandle) -> bool:
        """What is left of an ended job, which is killed."""
        left = [one for one in tree.carriers(job.keeper.mark) if one.pid != job.keeper.pid]
        for one in left:
            tree.send(one, signal.SIGKILL)
        return bool(left)

    def stop(self, job: LastingHandle) -> None:
        pid = job.read("job")
        job.stopping = pid is None and job.read("end") is None  # it has not begun: again at the next look
        if pid and job.read("end") is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)

    def kill(self, job: LastingHandle) -> None:
        if job.read("end") is None:
            self._living(job)

    def reload(self, job: LastingHandle, by: str) -> bool:
        pid = job.read("job")
        if pid is None or job.read("end") is not None or by not in {"HUP", "USR1", "USR2"}:
            return False
        os.kill(pid, signal.Signals[f"SIG{by}"])
        return True

    def adopt(self, identity: str, place: Place) -> LastingHandle | None:
        name, _, rest = identity.partition(" ")
        pid, _, started = rest.partition(" ")
        folder = self.root / name
        if not name.isalnum() or not folder.is_dir() or not pid.isdigit() or not started.isdigit():
            return None
        found = LastingHandle(folder, tree.Root(int(pid), int(started), f"LASTING={name}".encode()), place)
        keeper = tree.look(int(pid))
        alive = keeper is not None and keeper.started == int(started)
        if not alive and found.read("end") is None:
            return None
        shutil.copy(place.folder / "run.json", folder)  # how its new runner is reached
        return found

    def close(self) -> None:
        """Its jobs go on."""


def main() -> None:
    """A runner with this engine, by the environment's settings, until SIGTERM."""
    from pgsig.runner.loop import Runner

    settings = Settings.from_env()
    runner = Runner(settings, engine=LastingEngine(settings))
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    runner.run()


if __name__ == "__main__":
    main()
