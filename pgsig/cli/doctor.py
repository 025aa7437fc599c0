"""`doctor`: is the database as it should be, and does somebody work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pgsig.cli.common import database_option, output_option, settings_of
from pgsig.cli.output import COLOURS, harmless, paint, show, show_json, show_table

if TYPE_CHECKING:
    from pgsig.store.advice import Finding

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
    else:
        for finding in found:
            _show_tables(finding)
    return 1 if any(finding.state == "problem" for finding in found) else 0


def _show_tables(finding: Finding) -> None:
    """The tables that grow, as the storage page shows them."""
    from pgsig.store.advice import size

    if not finding.tables:
        return
    show("")
    numbers = ("rows", "dead", "size", "indexes")
    lines = [
        {
            "table": table["name"],
            "rows": f"{table['rows']:,}",
            "dead": f"{table['dead']:,}",
            "size": size(table["bytes"]),
            "indexes": size(table["index_bytes"]),
            "oldest row": table["oldest_at"],
            "goes after": table["goes_after"],
            "vacuumed": table["vacuumed_at"],
        }
        for table in finding.tables
    ]
    show_table(lines, lines[0], right=numbers)
