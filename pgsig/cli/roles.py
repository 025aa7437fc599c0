"""`worker`, `runner`, `clock`, `web`: one role in this process. `dev`: all of them as children. `demo`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from pgsig.cli.common import ADDRESS, database_option, find_modules_here, settings_of
from pgsig.cli.output import say

if TYPE_CHECKING:
    from pgsig.cli.supervise import Program, Supervisor

RUNNER_GRACE = 60.0  # seconds for its jobs to end
name_option = click.option("--name", default="", help="Shown to people. Default: host and process id.")


class _Role(Protocol):
    def run(self) -> None: ...
    def stop(self) -> None: ...


def _serve(role: _Role) -> None:
    """Run until SIGTERM or Ctrl-C, which end it in order."""
    import logging

    logging.basicConfig(
        level=os.environ.get("PGSIG_LOG", "INFO").upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    with stopping_by_signal(role.stop):
        role.run()


@contextmanager
def stopping_by_signal(stop: Any) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP call `stop` in here; SIGHUP under `nohup` does not."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command()
@name_option
@database_option
def worker(name: str, database_url: str | None) -> None:
    """Run a worker until SIGTERM or Ctrl-C. As many as you like may run."""
    from pgsig.worker import Worker

    _serve(Worker(settings_of(database_url), name=name))


@click.command()
@name_option
@click.option("--pools", help="Pools to serve, comma-separated. Default: PGSIG_POOLS, else default.")
@click.option(
    "--capacity", type=click.IntRange(1, 10_000), help="Runs at the same time. Default: PGSIG_CAPACITY, else 16."
)
@click.option("--labels", help="What it has that operators may ask for, comma-separated. Default: PGSIG_LABELS.")
@click.option("--engine", help="What executes the runs. Default: PGSIG_ENGINE, else process.")
@click.option("--preload", help="Modules to import before any job needs them. Default: PGSIG_PRELOAD.")
@click.option(
    "--drain",
    type=click.FloatRange(0, 86_400),
    help="Seconds for batch runs to end by themselves when it is told to end.",
)
@database_option
def runner(
    name: str,
    pools: str | None,
    labels: str | None,
    capacity: int | None,
    engine: str | None,
    preload: str | None,
    drain: float | None,
    database_url: str | None,
) -> None:
    """Run a runner until SIGTERM or Ctrl-C; its jobs are asked to end first."""
    from pgsig.runner.loop import Runner

    def listed(text: str | None) -> tuple[str, ...] | None:
        return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None

    settings = settings_of(
        database_url, pools=listed(pools), labels=listed(labels), capacity=capacity, engine=engine,
        preload=listed(preload), drain_seconds=drain,
    )  # fmt: skip
    _serve(Runner(settings, name=name))


@click.command()
@name_option
@database_option
def clock(name: str, database_url: str | None) -> None:
    """Run a clock until SIGTERM or Ctrl-C. As many as you like may run: each due time is fired once.

    Triggers of your own, trigger: module:name, are found in this folder too.
    """
    from pgsig.clock import Clock

    find_modules_here()
    _serve(Clock(settings_of(database_url), name=name))


@click.command()
@click.option("--host", help="Address to listen on. Default: PGSIG_HOST, else 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: PGSIG_PORT, else 7420.")
@database_option
def web(host: str | None, port: int | None, database_url: str | None) -> None:
    """Run the pages and the HTTP API until SIGTERM or Ctrl-C."""
    from pgsig.web import serve

    serve(settings_of(database_url, host=host, port=port))


@click.command()
@click.option("--once", is_flag=True, help="Run to a stated end, check it, and exit.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the pages; another one if it is taken. Default: 7420.")
@click.option("--fresh", is_flag=True, help="Forget what earlier runs left in .pgsig/demo.")
def demo(once: bool, port: int | None, fresh: bool) -> int:
    """See it run: jobs that train, evaluate and serve a model, until Ctrl-C."""
    from pgsig.demo import main

    return main(once=once, port=port, fresh=fresh)


@click.command()
@click.argument("file", required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="Of the pages. Default: PGSIG_PORT, else 7420.")
@click.option("--workers", type=click.IntRange(1, 16), default=1, show_default=True)
@database_option
def dev(file: str | None, port: int | None, workers: int, database_url: str | None) -> None:
    """Run everything on this machine until Ctrl-C: web, clock, worker, runner, and Postgres if none is given.

    FILE (or module:workflow) is applied first; default: workflow.yaml, if there is one. Without
    DATABASE_URL or PG* variables an embedded Postgres keeps its data in .pgsig/postgres.
    """
    from pgsig.cli.define import definition_of
    from pgsig.cli.supervise import Supervisor

    chosen = file or ("workflow.yaml" if Path("workflow.yaml").exists() else None)
    definition = definition_of(chosen) if chosen else None
    settings = settings_of(database_url, find=False, port=port)
    with database_of(settings.database_url, settings.spool / "postgres") as url:
        prepare(url, definition)
        address = f"http://{settings.host}:{settings.port}"
        say(f"page      {address}")
        say(f"database  {shown_address(url)}")
        say("stop      Ctrl-C")
        env = {"PGSIG_PORT": str(settings.port), **({"DATABASE_URL": url} if url else {})}
        supervise(Supervisor(programs(env, workers=workers)))


@contextmanager
def database_of(url: str, folder: Path) -> Iterator[str]:
    """The database that is given, else an embedded one in the folder until the end of the block.

    "" means the PG* variables.
    """
    if url or any(os.environ.get(name) for name in ADDRESS):
        yield url
        return
    from pgsig.embedded import EmbeddedPostgres

    say(f"starting Postgres in {folder}")
    with EmbeddedPostgres(folder) as server:
        yield server.dsn()


def shown_address(url: str) -> str:
    """An address as it may be shown: without its password."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(url) if url else {}
    if not parts:
        return "the one of the PG* variables"
    shown = " ".join(f"{key}={value}" for key, value in parts.items() if key in ("host", "port", "user", "dbname"))
    return f"{shown}; commands in this folder find it" if os.environ.get("DATABASE_URL") != url else shown


def prepare(url: str, definition: Any = None) -> None:
    """Migrate a database, and apply a definition if there is one, saying so."""
    from pgsig.store import definitions
    from pgsig.store.database import connect
    from pgsig.store.migrate import migrate

    done = migrate(url)
    say(f"schema    {done.after}")
    if definition is not None:
        with connect(url, name="dev") as connection:
            applied = definitions.apply(connection, definition)
        say(f"workflow  {definition.workflow}, version {applied.version}")


def programs(env: dict[str, str], *, workers: int = 1) -> list[Program]:
    """The roles in the order in which they start; they end the other way round: the runner, which waits for
    its jobs, last.
    """
    from pgsig.cli.supervise import role

    many = [f"worker{i + 1}" for i in range(workers)] if workers > 1 else ["worker"]
    return [
        role("runner", env=env, grace=RUNNER_GRACE),
        *(role("worker", env=env, label=label) for label in many),
        role("clock", env=env),
        role("web", env=env),
    ]


def supervise(supervisor: Supervisor) -> None:
    """Run children until Ctrl-C or SIGTERM; a second Ctrl-C waits for nobody."""
    asked: list[bool] = []

    def stop() -> None:
        (supervisor.hurry if asked else supervisor.stop)()
        asked.append(True)

    with stopping_by_signal(stop):
        supervisor.run()
