"""The command line: `pgsig COMMAND`. Data goes to stdout, talk to stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 66 a file is missing, 75 the database cannot be reached, 130
Ctrl-C. A command's module is imported when the command is used: `pgsig --help` imports click and nothing
else of weight.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from pgsig import __version__

FAILED, USAGE, NO_FILE, NO_DATABASE, INTERRUPTED = 1, 2, 66, 75, 130

# Command, where it lives, what it does; in the order of the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("roles", "See it run: a small learning system in one command."),
    "init": ("define", "Write a small working example into a folder."),
    "dev": ("roles", "Run everything on this machine, until Ctrl-C."),
    "migrate": ("define", "Bring the database's schema to this version."),
    "validate": ("define", "Check definitions, and name everything that is wrong."),
    "schema": ("define", "Print the JSON Schema of a definition, for editors."),
    "plan": ("define", "Show what an apply would change."),
    "apply": ("define", "Bring a workflow to what its definition says."),
    "history": ("versions", "List the versions of a workflow, and what each changed."),
    "show": ("versions", "Print a workflow as it is in force, or as it was."),
    "rollback": ("versions", "Bring a workflow back to an earlier version."),
    "worker": ("roles", "Run a worker: takes signals, decides, records."),
    "runner": ("roles", "Run a runner: executes runs."),
    "clock": ("roles", "Run a clock: fires periodic triggers."),
    "web": ("roles", "Run the pages and the HTTP API."),
    "emit": ("order", "Emit a signal."),
    "tail": ("look", "Follow signals as they come."),
    "ps": ("look", "List operators: what is wanted, and what is."),
    "act": ("order", "Start, stop, restart or reload an operator or a workflow by hand."),
    "pause": ("order", "Pause the rules of an operator or a workflow."),
    "resume": ("order", "End a pause."),
    "pools": ("order", "List pools and their limits, or limit one."),
    "calendar": ("triggers", "Show what is due next, in UTC and local time."),
    "trigger": ("triggers", "Fire, skip, pause or resume a periodic trigger."),
    "backfill": ("backfill", "Have due times that have passed as ticks after all."),
    "runs": ("look", "List runs."),
    "logs": ("look", "Show the log of a run, or follow an operator's."),
    "why": ("look", "Explain why an operator did or did not run."),
    "replay": ("replay", "Show what a workflow would have done, without doing it."),
    "doctor": ("doctor", "Check the database, its schema and the processes."),
}


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


class ReaderGone(Exception):
    """Nobody reads what is printed any more: `pgsig tail | head -1`."""


class Lazy(click.Group):
    """Commands by name from `COMMANDS`, imported when one is used."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # click would answer it with an empty line
            raise Interrupted from error
        except BrokenPipeError as error:  # and this with an exit code
            raise ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"pgsig.cli.{COMMANDS[name][0]}"), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            if not near or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from error


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="pgsig")
def cli() -> None:
    """Jobs that start, stop, restart and reload the moment the signals they wait for are committed to
    Postgres.

    The database is the one of DATABASE_URL, else of libpq's PG* variables.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and end the process with its exit code. No error of a user ever shows a traceback."""
    code = run(argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    sys.exit(code)


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        result = cli.main(args=None if argv is None else list(argv), prog_name="pgsig", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Interrupted, click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ReaderGone:
        _discard_output()
        return 0
    except Exception as error:
        code = explain(error)
        if code is None:
            raise
        return code
    return result if isinstance(result, int) else 0


def explain(error: Exception) -> int | None:
    """Say what is wrong in the words of the error and return the exit code; None for what nobody expected."""
    from pgsig.errors import PgsigError, Unavailable

    if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError) and error.filename:
        click.echo(f"PS520 {error.filename}: {(error.strerror or 'cannot be read').lower()}", err=True)
        return NO_FILE
    if not isinstance(error, PgsigError):
        error = _of_the_database(error) or error
    if isinstance(error, PgsigError):
        from pgsig.cli.output import harmless

        click.echo(harmless(str(error), lines=True), err=True)
        return NO_DATABASE if isinstance(error, Unavailable) else FAILED
    return None


def _of_the_database(error: Exception) -> Exception | None:
    """A database's error as pgsig says it, if it is one and nothing is known to be broken in pgsig itself."""
    if "psycopg" not in sys.modules:
        return None
    import psycopg

    from pgsig.errors import PgsigError, Unavailable
    from pgsig.store.database import translate

    if not isinstance(error, psycopg.Error):
        return None
    if (known := translate(error)) is not None:
        return known
    if isinstance(
        error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName | psycopg.errors.UndefinedFunction
    ):
        return PgsigError("the database has no pgsig schema, or an old one", code="PS022", fix="run: pgsig migrate")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        message = error.diag.message_primary or "permission denied"
        return PgsigError(
            message, code="PS023", fix="log in as a member of pgsig_operator, pgsig_reader or pgsig_service"
        )
    if isinstance(error, psycopg.OperationalError):
        return Unavailable("the connection to the database was lost", code="PS012", fix="try again")
    return None


def _discard_output() -> None:
    """The reader has gone: what is still in the buffer has nowhere to go, and Python shall not complain at
    exit.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
