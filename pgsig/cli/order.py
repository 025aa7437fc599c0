"""`emit`, `act`, `pause`, `resume` and `pools`: what a person says by hand."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from pgsig.cli.common import connected, database_option, namespace_option, output_option, settings_of
from pgsig.cli.output import harmless, say, show, show_json, show_table

if TYPE_CHECKING:
    from pgsig.store.reading import Row

WAIT = 5.0  # seconds for a worker to evaluate an order


def json_of(text: str, name: str) -> Any:
    if text == "-":
        text = sys.stdin.read()

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not a number that JSON has")

    try:
        return json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        from pgsig.errors import InvalidInput, Problem

        fix = (
            f"""a text needs its own quotes: '"{text}"'"""
            if text.replace("_", "").isalnum()
            else "quote it for the shell: '{\"auc\": 0.9}'"
        )
        raise InvalidInput([Problem("PS112", f"not JSON: {error}", f"/{name}", fix)]) from error


@click.command()
@click.argument("key")
@click.argument("value", metavar="[VALUE-JSON]", default="null")
@click.option("--subject", default="", help="Which entity it is about.")
@click.option("--source", help="Who says so. Default: the database user.")
@click.option("--event-id", help="Your id of the event: the same one is stored once.")
@namespace_option
@database_option
@output_option
def emit(
    key: str,
    value: str,
    subject: str,
    source: str | None,
    event_id: str | None,
    namespace: str,
    database_url: str | None,
    output: str,
) -> None:
    """Emit one signal and print its position.

    VALUE-JSON is its value (default: null); - reads it from stdin.
    """
    from pgsig.client import Client

    given = json_of(value, "value")
    with Client(settings_of(database_url).database_url, size=1) as client:
        position = client.emit(key, given, subject, source=source, event_id=event_id, namespace=namespace)
    _told(position, output)


@click.command()
@click.argument("operator")
@click.argument("action", type=click.Choice(["start", "stop", "restart", "reload"], case_sensitive=False))
@click.option("--subject", default="", help="For which entity.")
@click.option("--params", default="{}", metavar="JSON", help="Parameters of the run, an object.")
@click.option("--reason", default="", help="Why; kept with the action.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what it would do.")
@click.option("--no-wait", is_flag=True, help="Do not wait for what it comes to; print the position of the order.")
@namespace_option
@database_option
@output_option
def act(
    operator: str,
    action: str,
    subject: str,
    params: str,
    reason: str,
    dry_run: bool,
    no_wait: bool,
    namespace: str,
    database_url: str | None,
    output: str,
) -> None:
    """Order an ACTION of OPERATOR (workflow.operator, or a whole workflow), and say what it came to.

    It is a signal that a worker evaluates; after 5 seconds without one its position is printed, and it stands.
    """
    from pgsig.store import doors
    from pgsig.store.database import translated

    given = json_of(params, "params")
    if not isinstance(given, dict):
        raise click.BadParameter("give a JSON object", param_hint="--params")
    with connected(database_url) as connection, translated():

        def order() -> list[int]:
            return doors.act_on(
                connection, operator, action.upper(), subject=subject, params=json.dumps(given), reason=reason, namespace=namespace
            )  # fmt: skip

        if dry_run:
            from pgsig.cli.triggers import show_effects
            from pgsig.dry_run import what_if

            show_effects(what_if(connection, order), output)
            return
        if not no_wait:
            connection.execute("LISTEN pgsig_changes")
        positions = order()
        if no_wait:
            _told(positions[-1], output)
            return

        def rest(seconds: float) -> None:
            for _ in connection.notifies(timeout=seconds, stop_after=1):
                pass

        def look() -> list[Row]:
            found = [doors.effects(connection, position) for position in positions]
            return [effect for effects in found for effect in effects] if all(found) else []

        found = doors.wait_for_effects(look, WAIT, rest)
    if output == "json":
        show_json({"id": positions[-1], "actions": found})
        return
    for effect in found:
        whose = f"{effect['workflow']}.{effect['operator']}: " if len(found) > 1 else ""
        show(harmless(f"{whose}{effect['text']}"))
    if not found:
        show(str(positions[-1]))
        say(f"ordered as signal {positions[-1]}; no worker has evaluated it within {WAIT:g} s: pgsig doctor")


@click.command()
@click.argument("target")
@click.option(
    "--mode",
    type=click.Choice(["hold", "collapse", "drop"]),
    default="hold",
    show_default=True,
    help="What comes meanwhile: kept for the resume, only the newest of it, or nothing.",
)
@click.option("--reason", default="", help="Why; kept with the action.")
@namespace_option
@database_option
@output_option
def pause(target: str, mode: str, reason: str, namespace: str, database_url: str | None, output: str) -> None:
    """Pause the rules of TARGET (workflow.operator, or a workflow), and print the position of the manual signal."""
    from pgsig.store import doors
    from pgsig.store.database import translated

    with connected(database_url) as connection, translated():
        _told(doors.pause(connection, target, mode, reason=reason, namespace=namespace), output)


@click.command()
@click.argument("target")
@click.option("--reason", default="", help="Why; kept with the action.")
@namespace_option
@database_option
@output_option
def resume(target: str, reason: str, namespace: str, database_url: str | None, output: str) -> None:
    """End the pause of TARGET (workflow.operator, or a workflow): what was held is evaluated first."""
    from pgsig.store import doors
    from pgsig.store.database import translated

    with connected(database_url) as connection, translated():
        _told(doors.resume(connection, target, reason=reason, namespace=namespace), output)


@click.command()
@click.argument("pool", required=False)
@click.option("--limit", metavar="N|none", help="How many runs of POOL may be alive at once.")
@database_option
@output_option
def pools(pool: str | None, limit: str | None, database_url: str | None, output: str) -> None:
    """List pools: their limit, what is alive and what waits in them, and the runners that serve them. Or limit one."""
    from pgsig.store import doors
    from pgsig.store.database import translated
    from pgsig.store.reading import rows

    if limit is not None and pool is None:
        raise click.UsageError("give the POOL to limit")
    if limit is not None and limit != "none" and not (limit.isascii() and limit.isdecimal() and len(limit) < 10):
        raise click.BadParameter("give a whole number, or none", param_hint="--limit")
    with connected(database_url) as connection, translated():
        if limit is not None:
            doors.limit_pool(connection, str(pool), None if limit == "none" else int(limit))
        found = [row for row in rows(connection, "pools") if pool in (None, row["name"])]
    if output == "json":
        show_json(found)
        return
    for row in found:
        row["limit"] = "none" if row["limit"] is None else row["limit"]
    columns = ["name", "limit", "alive", "queued", "blocked", "runners", "capacity"]
    show_table(found, columns, empty="no pools: a runner serves one, pgsig runner --pools gpu")


def _told(position: int, output: str) -> None:
    if output == "json":
        show_json({"id": position})
    else:
        show(str(position))
