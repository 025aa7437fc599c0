"""Settings, read once from the environment and checked whole. Importing this module reads nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pgsig.errors import InvalidInput, Problem


@dataclass(frozen=True)
class Settings:
    """What a process needs to know. Each field is the environment variable `PGSIG_<NAME>`, but for `database_url`.

    database_url: libpq URL or key=value string; `DATABASE_URL`, else empty, and libpq's own `PG*` variables apply.
    listen_url: a direct address for LISTEN and session locks where `database_url` goes through a pooler. Defaults to `database_url`.
    poll_seconds: how long anything waits for a NOTIFY before it looks by itself. Defaults to 1.
    batch: signals that a worker takes in one transaction. Defaults to 1000.
    lease_seconds: how long a runner may be silent before its runs are lost. Defaults to 10.
    capacity: runs that a runner executes at the same time. Defaults to 16.
    pools: pools that a runner serves, comma-separated. Defaults to "default".
    labels: what a runner has that operators may ask for, comma-separated. Defaults to none.
    engine: what a runner executes runs with, the name of an entry point in `pgsig.runners`. Defaults to "process".
    preload: modules that the process engine imports once, before any job of a Python callable begins, comma-separated: one
        that takes long to import then costs its jobs nothing. What is imported by then is the same for all of them. Defaults to none.
    drain_seconds: how long a runner that is told to end lets batch runs go on, before they are handed over. Defaults to 0.
    host, port: where the web process listens. Default to 127.0.0.1 and 7420.
    api_token: bearer token for the HTTP API; `PGSIG_API_TOKEN_FILE` names a file with it. Needed unless `host` is loopback.
    secret_key: signs the pages' cookies; `PGSIG_SECRET_KEY_FILE` likewise. Defaults to a fresh random one for each start.
    allowed_hosts: Host headers that the web process answers, comma-separated. Defaults to the loopback names.
    spool: folder for what runners write. Defaults to ".pgsig".
    log_kib: kibibytes of a run's log that are kept. Defaults to 1024.
    """

    database_url: str = ""
    listen_url: str = ""
    poll_seconds: float = 1.0
    batch: int = 1000
    lease_seconds: float = 10.0
    capacity: int = 16
    pools: tuple[str, ...] = ("default",)
    labels: tuple[str, ...] = ()
    engine: str = "process"
    preload: tuple[str, ...] = ()
    drain_seconds: float = 0.0
    host: str = "127.0.0.1"
    port: int = 7420
    api_token: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    spool: Path = Path(".pgsig")
    log_kib: int = 1024

    @property
    def direct_url(self) -> str:
        """The address for connections that LISTEN or hold session locks."""
        return self.listen_url or self.database_url

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: object) -> Settings:
        """Read the environment; what is `given` and not None goes first. Raises InvalidInput with every problem at once."""
        env = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for item in fields(cls):
            name = "DATABASE_URL" if item.name == "database_url" else f"PGSIG_{item.name.upper()}"
            if given.get(item.name) is not None:
                values[item.name] = given[item.name]
                continue
            text = env.get(name)
            if text is None and f"{name}_FILE" in env and item.name in ("api_token", "secret_key"):
                try:
                    text = Path(env[f"{name}_FILE"]).read_text(encoding="utf-8").strip()
                except OSError as error:
                    problems.append(
                        Problem("PS002", f"cannot be read: {error.strerror}", f"{name}_FILE", "name a readable file")
                    )
            if text is None:
                continue
            try:
                values[item.name] = _convert(text, item.default)
            except ValueError:
                kind = type(item.default).__name__
                problems.append(Problem("PS001", f'"{text}" is not a value for it', name, f"give {_a(kind)}"))
        settings = cls(**values)
        for name, low, high in (
            ("poll_seconds", 0.01, 60), ("batch", 1, 10_000), ("lease_seconds", 1, 3600), ("capacity", 1, 10_000),
            ("drain_seconds", 0, 86_400), ("port", 0, 65535), ("log_kib", 1, 1_000_000),
        ):  # fmt: skip
            value = getattr(settings, name)
            if not low <= value <= high:
                problems.append(
                    Problem("PS001", f"{value} is out of range", f"PGSIG_{name.upper()}", f"{low} to {high}")
                )
        if problems:
            raise InvalidInput(problems, subject="the settings")
        return settings


def _convert(text: str, default: object) -> object:
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    kind: Any = type(default)
    return kind(text)


def _a(kind: str) -> str:
    return {"float": "a number", "int": "a whole number"}.get(kind, "a text")
