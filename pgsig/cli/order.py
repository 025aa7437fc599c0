"""`emit`, `act`, `pause` and `resume`: what a person says by hand."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pgsig.cli.common import connected, database_option, namespace_option, output_option, settings_of
from pgsig.cli.output import show, show_json


def _json_of(text: str, name: str) -> Any:
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

    given = _json_of(value, "value")
    with Client(settings_of(database_url).database_url, size=1) as client:
        position = client.emit(key, given, subject, source=source, event_id=event_id, namespace=namespace)
    _told(position, output)


@click.command()
@click.argument("operator")
@click.argument("action", type=click.Choice(["start", "stop", "restart", "reload"], case_sensitive=False))
@click.option("--subject", default="", help="For which entity.")
@click.option("--params", default="{}", metavar="JSON", help="Parameters of the run, an object.")
@click.option("--reason", default="", help="Why; kept with the action.")
@namespace_option
@database_option
@output_option
def act(
    operator: str,
    action: str,
    subject: str,
    params: str,
    reason: str,
    namespace: str,
    database_url: str | None,
    output: str,
) -> None:
    """Order an ACTION of OPERATOR (workflow.operator), and print the position of the manual signal."""
    from pgsig.client import Client

    given = _json_of(params, "params")
    if not isinstance(given, dict):
        raise click.BadParameter("give a JSON object", param_hint="--params")
    with Client(settings_of(database_url).database_url, size=1) as client:
        position = client.act(operator, action.upper(), subject, params=given, reason=reason, namespace=namespace)
    _told(position, output)


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


def _told(position: int, output: str) -> None:
    if output == "json":
        show_json({"id": position})
    else:
        show(str(position))
