"""`history`, `show`, `rollback`: the versions of a workflow."""

from __future__ import annotations

import click

from pgsig.cli.common import connected, database_option, namespace_option, output_option
from pgsig.cli.output import show as line
from pgsig.cli.output import show_json, show_table


@click.command()
@click.argument("workflow")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many.")
@namespace_option
@database_option
@output_option
def history(workflow: str, limit: int, namespace: str, database_url: str | None, output: str) -> None:
    """List the versions of WORKFLOW, newest first: when and by whom each was applied, and what it changed."""
    from pgsig.store import versions

    with connected(database_url) as connection:
        found = versions.history(connection, workflow, namespace, limit=limit)
    rows = [
        {
            "version": item.version,
            "applied_at": item.applied_at,
            "applied_by": item.applied_by,
            "in_force": item.in_force,
            "changes": ", ".join(versions.words(item.changes)) if item.changes else "cannot be read by this pgsig",
        }
        for item in found
    ]
    if output == "json":
        show_json(rows)
        return
    for row in rows:
        row["in_force"] = "in force" if row["in_force"] else ""
    show_table(rows, ["version", "applied_at", "applied_by", "in_force", "changes"])


@click.command()
@click.argument("workflow")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="Which one. Default: the newest.")
@namespace_option
@database_option
@click.option(
    "-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How to print it."
)
def show(workflow: str, version: int | None, namespace: str, database_url: str | None, output: str) -> None:
    """Print WORKFLOW as it was applied: a file that `pgsig apply` takes."""
    from pgsig.store.versions import document

    with connected(database_url) as connection:
        number, definition = document(connection, workflow, namespace, version)
    if output == "json":
        show_json({"version": number, "definition": definition})
        return
    import yaml

    line(f"# version {number}")
    # Characters that could steer a terminal come out as escapes of YAML.
    line(yaml.safe_dump(definition, sort_keys=False, allow_unicode=False, width=120).rstrip())


@click.command()
@click.argument("workflow")
@click.option("--to", "version", type=click.IntRange(1, 2**31 - 1), required=True, help="The version to go back to.")
@click.option("--base", type=click.IntRange(1, 2**31 - 1), help="Only if this version is still the one in force.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@namespace_option
@database_option
@output_option
def rollback(
    workflow: str, version: int, base: int | None, dry_run: bool, namespace: str, database_url: str | None, output: str
) -> None:
    """Apply what version --to of WORKFLOW said, as a new version.

    Rules that come back begin anew: they see what commits from then on.
    """
    from pgsig.cli.define import show_changes, show_plan
    from pgsig.definition import parse
    from pgsig.store import definitions, versions

    with connected(database_url) as connection:
        newest, _ = versions.document(connection, workflow, namespace)
        _, old = versions.document(connection, workflow, namespace, version)
        definition = parse(old)
        if dry_run:
            show_plan(connection, definition, output)
            return
        meets = versions.flight(connection, workflow, namespace)
        applied = definitions.apply(connection, definition, base=base or newest)
    if output == "json":
        show_json({"version": applied.version, **versions.with_flight(applied.changes, meets)})
    elif applied.changes.any:
        show_changes(applied.changes, meets)
        line(f"{workflow}: version {applied.version} is in force, it says what version {version} said")
    else:
        line(f"{workflow}: nothing changed, version {applied.version} stays")
