"""`replay`: what a workflow would have decided, over stored or given signals. It never writes."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from time import monotonic
from typing import IO, TYPE_CHECKING

import click

from pgsig.cli.common import connected, database_option, settings_of
from pgsig.cli.output import cell, paint, say, show

if TYPE_CHECKING:
    from pgsig.definition import Definition
    from pgsig.replay import Line, Page, Replay

SIGNS = {"same": " ", "replay": "+", "history": "-"}
COLOURS = {"replay": "green", "history": "red"}
PROGRESS_EVERY = 0.5  # seconds
BIG = 2**63 - 1


@click.command()
@click.argument("workflow", metavar="WORKFLOW")
@click.option("--since", metavar="LENGTH", help="Stored signals of the last 1d, 2h, 30m …")
@click.option(
    "--from", "first", type=click.IntRange(1, BIG), metavar="ID", help="Stored signals from this position on."
)
@click.option("--to", "last", type=click.IntRange(1, BIG), metavar="ID", help="Stored signals up to this position.")
@click.option(
    "--file", "given", type=click.File(encoding="utf-8"), help="Signals of a file, one JSON object a line; - for stdin."
)
@click.option("--runs", type=click.Choice(["succeed", "told"]), default="succeed", show_default=True,
              help="With --file: batch runs succeed at once, or end where the file says so.")  # fmt: skip
@click.option("--namespace", help="Namespace. Default: the workflow's.")
@click.option("--only-differences", is_flag=True, help="Leave out what was done in the same way.")
@database_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="A table for people, or JSON lines for machines.")  # fmt: skip
def replay(
    workflow: str, since: str | None, first: int | None, last: int | None, given: IO[str] | None, runs: str, namespace: str | None,
    only_differences: bool, database_url: str | None, output: str,
) -> None:  # fmt: skip
    """Show what WORKFLOW (a file, or module:workflow) would have done, without doing it.

    Over stored signals it is compared with what was done: "+" only in the replay, "-" only in history. The last line of JSON is a
    summary.
    """
    from dataclasses import replace

    from pgsig.cli.define import definition_of
    from pgsig.replay_given import must_name_one

    must_name_one(since=since, position=first or last, file=given)
    definition = definition_of(workflow)
    if namespace:
        definition = replace(definition, namespace=namespace)
    told = _Told(output, only_differences)
    if given is not None:
        _given(definition, given, runs, database_url, told)
    else:
        _stored(definition, since, first, last, database_url, told)


def _stored(
    definition: Definition,
    since: str | None,
    first: int | None,
    last: int | None,
    database_url: str | None,
    told: _Told,
) -> None:
    from pgsig.condition.duration import seconds
    from pgsig.replay import Replay
    from pgsig.store.replaying import Stored, must_be_in_order, snapshot
    from pgsig.store.signals import depth_limit

    must_be_in_order(first, last)
    try:
        length = None if since is None else seconds(since)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from error
    with connected(database_url) as connection, snapshot(connection):
        stored = Stored(connection, definition, seconds=length, first=first, last=last)
        span = stored.range()
        if span is None:
            told.end(0, "no signals in that range")
            return
        run = Replay(
            definition, ask=stored.ask, ask_function=stored.ask_function, alive=stored.alive(span.begins),
            depth_limit=depth_limit(connection),
        )  # fmt: skip
        for line in run.lines(_watched(stored.pages(span), run, span.signals)):
            told.line(line)
        told.end(run.seen, f"signals {span.first} to {span.last}")


def _given(definition: Definition, given: IO[str], runs: str, database_url: str | None, told: _Told) -> None:
    from pgsig.given import asking
    from pgsig.memory import ask_here, no_function
    from pgsig.replay_given import GivenReplay, check_lines

    with ExitStack() as stack:
        if not given.seekable():  # it is read twice: nothing is decided before every line is known to be good
            kept = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            kept.writelines(given)
            given, name = kept, "stdin"
            kept.seek(0)
        else:
            name = str(getattr(given, "name", "stdin"))
        check_lines(given, name)
        given.seek(0)
        url = settings_of(database_url).database_url if database_url else None
        ask, ask_function = asking(url, stack) if url else (ask_here, no_function)
        run = GivenReplay(definition, datetime.now(UTC), finish=runs == "succeed", ask=ask, ask_function=ask_function)
        for line in run.lines(given):
            told.line(line)
        passed = f", {run.passed} of pgsig's own passed over" if run.passed else ""
        told.end(run.seen, f"{name}{passed}", compared=False)


def _watched(pages: Iterator[Page], run: Replay, signals: int) -> Iterator[Page]:
    """The pages, with progress on a terminal."""
    shown = monotonic()
    for page in pages:
        yield page
        if sys.stderr.isatty() and monotonic() - shown > PROGRESS_EVERY:
            shown = monotonic()
            click.echo(
                f"\r{run.seen} of {signals} signals ({100 * run.seen // max(signals, 1)} %)\x1b[K\r", err=True, nl=False
            )
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)


class _Told:
    """Prints lines as they come: a replay may be longer than memory."""

    def __init__(self, output: str, only_differences: bool) -> None:
        self.json, self.only = output == "json", only_differences
        self.counts: Counter[str] = Counter()
        self.results = 0  # the same action with another result

    def line(self, line: Line) -> None:
        self.counts[line.diff] += 1
        self.results += line.then is not None
        if self.only and line.diff == "same" and line.then is None:
            return
        if self.json:
            click.echo(json.dumps(line.as_dict(), ensure_ascii=True))
            return
        result = line.result if line.then is None else f"{line.result} (was {line.then})"
        signal = f"after {line.signal}" if line.own_timer else str(line.signal)
        about = f"{line.operator}[{cell(line.subject, 30)}]" if line.subject else line.operator
        cause = f"{line.at:%Y-%m-%d %H:%M:%S}  {signal:>8}  {cell(line.key, 40):<28}"
        told = f"{SIGNS[line.diff]} {cause}  {about:<20}  {line.rule:<10}  {line.action:<8} {result}"
        show(paint(told.rstrip(), COLOURS.get(line.diff)))

    def end(self, signals: int, about: str, *, compared: bool = True) -> None:
        counts = {name: self.counts[name] for name in SIGNS}
        if self.json:
            click.echo(json.dumps({"summary": {"signals": signals, **counts, "other_result": self.results}}))
            return
        if not compared:
            say(f"{signals} signals ({about}): {counts['replay']} actions, compared with no history")
            return
        say(
            f"{signals} signals ({about}): {counts['same']} actions the same, {counts['replay']} only in the replay (+), "
            f"{counts['history']} only in history (-)"
            + (f", {self.results} with another result" if self.results else "")
        )
