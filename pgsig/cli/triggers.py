"""`calendar` and `trigger`: what is due when, and what people do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pgsig.cli.common import connected, database_option, find_modules_here, namespace_option, output_option
from pgsig.cli.output import harmless, say, show, show_json, show_table

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from pgsig.store.database import Connection
    from pgsig.store.reading import Row

reason_option = click.option("--reason", default="", help="Why; kept with the signal.")
dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Only say what it would do.")
trigger_argument = click.argument("trigger", required=False)


@click.command()
@click.argument("target", required=False)
@click.option("-n", "--times", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many due times.")
@click.option("--namespace", help="Only this namespace. Default: all.")
@database_option
@output_option
def calendar(target: str | None, times: int, namespace: str | None, database_url: str | None, output: str) -> None:
    """Show what is due next, of everything or of TARGET (a workflow, or workflow.operator), in UTC and local time.

    Among several operators a trigger has its share of the times, so that a busy one does not hide the others.

    \b
    A local time that the clocks jump over is due when it would have been without the jump,
    one that comes twice the first time (RFC 5545). Crons with * for the hour go on in real time.
    """
    from pgsig.condition.words import words
    from pgsig.foresight import coming, unknown
    from pgsig.store import triggers

    with connected(database_url) as connection:
        found = _of_target(connection, target, namespace)
        several = len({row["operator_id"] for row in found}) > 1
        now = triggers.now(connection)
    ahead = coming(found, now, times, fair=several, imported=_imported_here)
    foreign = unknown(found, now, _imported_here)
    if output == "json":
        show_json([one.as_dict() for one in ahead])
        return
    table = [
        {
            "in": one.at, "utc": f"{one.due:%Y-%m-%d %H:%M:%S}", "local": one.local,
            "operator": f"{one.trigger['workflow']}.{one.trigger['operator']}",
            "trigger": words(one.trigger["spec"]), "note": one.note,
        }
        for one in ahead
    ]  # fmt: skip
    columns = ["in", "utc", "local", "operator", "trigger"]
    show_table(table, [*columns, *(["note"] if any(row["note"] for row in table) else [])], empty="nothing is due")
    for row in found:
        if row["paused"]:
            since = f"{row['paused_at']:%Y-%m-%d %H:%M} UTC"
            say(f"{row['workflow']}.{row['operator']}: {words(row['spec'])}: paused ({row['paused']}) since {since}")
    for row in foreign:
        say(f"{row['workflow']}.{row['operator']}: {words(row['spec'])}: that cannot be asked here, the clocks know")


def _of_target(connection: Connection, target: str | None, namespace: str | None) -> list[Row]:
    """The triggers of a workflow, of a workflow.operator, or of everything. Raises NotFound for a target that there is not."""
    from pgsig.errors import NotFound
    from pgsig.store import triggers
    from pgsig.store.reading import rows

    workflow, _, operator = (target or "").partition(".")
    named: dict[str, Any] = {"namespace": namespace, "workflow": workflow or None, "operator": operator or None}
    found = triggers.in_force(connection, **named)
    if target and not found and not rows(connection, "operator_ids", **named):
        what = f'there is no workflow or operator "{target}"' + (f' in namespace "{namespace}"' if namespace else "")
        raise NotFound(what, code="PS201", where="/target", fix="pgsig ps lists them")
    return found


def _imported_here(target: str) -> BaseTrigger:
    """A trigger of the user's own as a clock in this folder would have it. Raises ValueError."""
    from pgsig.definition.apscheduler import imported

    find_modules_here()
    return imported(target)


@click.group()
def trigger() -> None:
    """Look at periodic triggers, fire one now, skip its next time, pause or resume it.

    A TRIGGER is named as `pgsig trigger list` shows it, or by the beginning of that; an operator's only one needs no name.
    """


@trigger.command("list")
@click.argument("target", required=False)
@click.option("--namespace", help="Only this namespace. Default: all.")
@database_option
@output_option
def list_triggers(target: str | None, namespace: str | None, database_url: str | None, output: str) -> None:
    """List triggers, of one TARGET (a workflow, or workflow.operator) or of all, with what was left out last."""
    from pgsig.condition.words import words
    from pgsig.foresight import next_of
    from pgsig.store import triggers
    from pgsig.store.reading import rows

    with connected(database_url) as connection:
        found = _of_target(connection, target, namespace)
        ids = [row["id"] for row in found]
        gaps = rows(connection, "gaps_of_triggers", triggers=ids, limit=1)
        ticks = {row["trigger_id"]: row["due_at"] for row in rows(connection, "last_ticks", triggers=ids)}
        now = triggers.now(connection)
    left_out = {gap["trigger_id"]: gap for gap in gaps}
    for row in found:
        ahead = next_of(row, now, 1, _imported_here)
        row |= {
            "words": words(row["spec"]),
            "next_due": ahead[0].due if ahead else None,
            "last_tick": ticks.get(row["id"]),
        }
        if (gap := left_out.get(row["id"])) is not None:
            row["left_out"] = (
                f"{gap['times'] or 'over 1000'} {gap['why']}, the last {gap['last_due']:%Y-%m-%d %H:%M:%S}"
            )
    if output == "json":
        show_json(found)
        return
    for row in found:
        row["operator"] = f"{row['workflow']}.{row['operator']}"
    columns = ["operator", "trigger", "words", "next_due", "last_tick", "paused", "left_out"]
    filled = [name for name in columns if any(row.get(name) is not None for row in found)]
    show_table(found, filled, empty="no triggers: give an operator start: {cron: …}")


@trigger.command()
@click.argument("operator")
@trigger_argument
@click.option("--params", metavar="JSON", help="Parameters of the run, instead of the trigger's own.")
@reason_option
@dry_run_option
@namespace_option
@database_option
@output_option
def fire(
    operator: str, trigger: str | None, params: str | None, reason: str, dry_run: bool, namespace: str,
    database_url: str | None, output: str,
) -> None:  # fmt: skip
    """Let a trigger of OPERATOR (workflow.operator) tick now, beside its due times."""
    from pgsig.cli.order import json_of
    from pgsig.store import trigger_orders

    given = json_of(params, "params") if params is not None else None

    def order(connection: Connection) -> int:
        return trigger_orders.fire_now(connection, operator, trigger, params=given, reason=reason, namespace=namespace)

    carry_out(order, dry_run, database_url, output)


@trigger.command()
@click.argument("operator")
@trigger_argument
@reason_option
@namespace_option
@database_option
@output_option
def skip(
    operator: str, trigger: str | None, reason: str, namespace: str, database_url: str | None, output: str
) -> None:
    """Leave out the next due time of a trigger of OPERATOR, and print it."""
    from pgsig.store import trigger_orders
    from pgsig.store.database import translated

    with connected(database_url) as connection, translated():
        position, due = trigger_orders.skip_next(connection, operator, trigger, reason=reason, namespace=namespace)
    if output == "json":
        show_json({"id": position, "skipped": due.isoformat()})
    else:
        show(f"{due:%Y-%m-%d %H:%M:%S} UTC is left out")


@trigger.command()
@click.argument("operator")
@trigger_argument
@click.option(
    "--mode",
    type=click.Choice(["hold", "collapse", "drop"]),
    default="hold",
    show_default=True,
    help="Due times meanwhile: all fired at the resume, only the latest, or none.",
)
@reason_option
@namespace_option
@database_option
@output_option
def pause(
    operator: str, trigger: str | None, mode: str, reason: str, namespace: str, database_url: str | None, output: str
) -> None:
    """Pause a trigger of OPERATOR."""
    from pgsig.store import trigger_orders

    carry_out(
        lambda connection: trigger_orders.pause(connection, operator, trigger, mode, reason=reason, namespace=namespace),
        False, database_url, output,
    )  # fmt: skip


@trigger.command()
@click.argument("operator")
@trigger_argument
@reason_option
@dry_run_option
@namespace_option
@database_option
@output_option
def resume(
    operator: str,
    trigger: str | None,
    reason: str,
    dry_run: bool,
    namespace: str,
    database_url: str | None,
    output: str,
) -> None:
    """End the pause of a trigger of OPERATOR: what was due meanwhile is fired, or not, as the pause said."""
    from pgsig.store import trigger_orders

    carry_out(
        lambda connection: trigger_orders.resume(connection, operator, trigger, reason=reason, namespace=namespace),
        dry_run, database_url, output,
    )  # fmt: skip


def carry_out(order: Callable[[Connection], int], dry_run: bool, database_url: str | None, output: str) -> None:
    """Do what a person orders and print the position of its signal; or say what it would do."""
    from pgsig.dry_run import what_if
    from pgsig.store.database import translated

    with connected(database_url) as connection, translated():
        if dry_run:
            show_effects(what_if(connection, lambda: order(connection)), output)
            return
        position = order(connection)
    if output == "json":
        show_json({"id": position})
    else:
        show(str(position))


def show_effects(found: list[Row], output: str) -> None:
    """What an order would do."""
    if output == "json":
        show_json({"dry_run": True, "actions": found})
        return
    for effect in found:
        about = f" [{effect['subject']}]" if effect["subject"] else ""
        by = "" if effect["rule"] == "manual" else f" by {effect['rule']}"
        show(
            harmless(f"would {effect['action']} {effect['workflow']}.{effect['operator']}{about}{by}: {effect['text']}")
        )
    if not found:
        say("nothing would happen now: no rule fires by it alone")
