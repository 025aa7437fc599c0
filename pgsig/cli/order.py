"""`emit` and `act`: what a person says by hand."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pgsig.cli.common import database_option, namespace_option, output_option, settings_of
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
    if output == "json":
        show_json({"id": position})
    else:
        show(str(position))


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
    if output == "json":
        show_json({"id": position})
    else:
        show(str(position))
