"""`backfill`: due times that have passed become ticks after all."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import click

from pgsig.cli.common import connected, database_option, namespace_option, output_option
from pgsig.cli.output import say, show, show_json, show_table
from pgsig.cli.triggers import carry_out, dry_run_option, reason_option, trigger_argument

if TYPE_CHECKING:
    from pgsig.store.database import Connection

LOOK_EVERY = 0.5  # seconds between two looks at a backfill


@click.group()
def backfill() -> None:
    """Have due times that have passed as ticks after all: a range of them, a few at a time."""


@backfill.command()
@click.argument("operator")
@trigger_argument
@click.option(
    "--from",
    "first",
    required=True,
    metavar="TIME",
    help="The first due time, like 2027-01-31T02:30; in the trigger's zone.",
)
@click.option("--to", "last", required=True, metavar="TIME", help="The last one; a date alone means the whole day.")
@click.option("--together", type=int, default=1, show_default=True, help="How many may be on the way at once.")
@click.option("--again", is_flag=True, help="Also those that became ticks before.")
@click.option("-f", "--follow", is_flag=True, help="Show how far it is, until it has ended.")
@reason_option
@dry_run_option
@namespace_option
@database_option
@output_option
def start(
    operator: str, trigger: str | None, first: str, last: str, together: int, again: bool, follow: bool, reason: str, dry_run: bool,
    namespace: str, database_url: str | None, output: str,
) -> None:  # fmt: skip
    """Begin a backfill of a trigger of OPERATOR, and print its number.

    How many of them really run together also depends on the operator's on_busy: queue runs one after the other.
    """
    from pgsig.store import backfills, triggers
    from pgsig.store.database import translated

    with connected(database_url) as connection, translated():
        given: dict[str, Any] = {"most": together, "again": again, "namespace": namespace}
        span = backfills.span(triggers.find(connection, operator, trigger, namespace), first, last)
        if dry_run:
            _show_plan(backfills.plan(connection, operator, trigger, *span, **given), output)
            return
        number = backfills.begin(connection, operator, trigger, *span, **given, reason=reason)
        if not follow:
            if output == "json":
                show_json({"id": number})
            else:
                show(str(number))
            return
        _follow(connection, number, output)


def _show_plan(wanted: Any, output: str) -> None:
    if output == "json":
        show_json({"dry_run": True, "times": [due.isoformat() for due in wanted.dues], "ticked": wanted.ticked})
        return
    for due in wanted.dues[:20]:
        show(f"{due:%Y-%m-%d %H:%M:%S} UTC")
    if len(wanted.dues) > 20:
        show(f"… {len(wanted.dues)} in all")
    if wanted.ticked:
        say(f"{wanted.ticked} of the range became ticks and are left out (--again: not)")


@backfill.command("list")
@click.option("--namespace", help="Only this namespace. Default: all.")
@database_option
@output_option
def list_backfills(namespace: str | None, database_url: str | None, output: str) -> None:
    """List backfills, newest first, and how far they are."""
    from pgsig.store.reading import rows

    with connected(database_url) as connection:
        found = rows(connection, "backfills", namespace=namespace, operators=None, limit=50)
    if output == "json":
        show_json(found)
        return
    for row in found:
        row["operator"] = f"{row['workflow']}.{row['operator']}"
        row["done"] = f"{row['ended']}/{row['times']}"
        row["from"], row["to"] = f"{row['first_due']:%Y-%m-%d %H:%M}", f"{row['last_due']:%Y-%m-%d %H:%M}"
    show_table(
        found,
        ["id", "operator", "state", "done", "failed", "most", "from", "to", "created_at", "reason"],
        empty="no backfills",
    )


@backfill.command()
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
@database_option
@output_option
def follow(number: int, database_url: str | None, output: str) -> None:
    """Show how far backfill NUMBER is, until it has ended."""
    with connected(database_url) as connection:
        _follow(connection, number, output)


def _follow(connection: Connection, number: int, output: str) -> None:
    from pgsig.errors import NotFound
    from pgsig.store.reading import row

    pause, told = Event(), ""
    while True:
        found = row(connection, "backfill", id=number)
        if found is None:
            raise NotFound(f"there is no backfill {number}", code="PS208", where="number", fix="pgsig backfill list")
        over = found["state"] != "running"
        line = f"backfill {number}: {found['state']}, {found['ended']} of {found['times']} have ended"
        line += f", {found['begun'] - found['ended']} on the way" if not over else ""
        line += f", {found['failed']} failed" if found["failed"] else ""
        if output == "json" and over:
            show_json(found)
        elif output != "json" and line != told:
            show(line)
            told = line
        if over:
            return
        pause.wait(LOOK_EVERY)


@backfill.command()
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
@reason_option
@database_option
@output_option
def cancel(number: int, reason: str, database_url: str | None, output: str) -> None:
    """Let no further time of backfill NUMBER become a tick. Runs that came of it go on."""
    from pgsig.store import backfills

    carry_out(lambda connection: backfills.cancel(connection, number, reason=reason), False, database_url, output)
