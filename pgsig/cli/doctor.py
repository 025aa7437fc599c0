"""`doctor`: is the database as it should be, and does somebody work on it."""

from __future__ import annotations

import click

from pgsig.cli.common import database_option, output_option, settings_of
from pgsig.cli.output import COLOURS, harmless, paint, show, show_json

MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}


@click.command()
@database_option
@output_option
def doctor(database_url: str | None, output: str) -> int:
    """Check the database, its schema and the processes. Exits with 1 when there is a problem."""
    from pgsig.store.checkup import examine

    found = []
    for finding in examine(settings_of(database_url)):
        found.append(finding)
        if output == "table":
            mark = paint(MARKS[finding.state], COLOURS[finding.state])
            show(f"{mark} {finding.check:<14} {harmless(finding.detail)}")
            if finding.fix and finding.state != "ok":
                show(f"  {'':<14} → {finding.fix}")
    if output == "json":
        show_json([finding.as_dict() for finding in found])
    return 1 if any(finding.state == "problem" for finding in found) else 0
