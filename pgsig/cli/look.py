"""`ps`, `runs`, `logs`, `tail`, `why`: what there is to see."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from pgsig.cli.common import connected, database_option, namespace_option, output_option, settings_of
from pgsig.cli.output import cell, coloured, harmless, paint, say, show, show_json, show_table
from pgsig.errors import InvalidInput, PgsigError

if TYPE_CHECKING:
    from pgsig.store.database import Connection

LOOK_EVERY = 1.0  # seconds between two pictures of --watch
MOST = 10_000  # rows of a list
watch_option = click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")


def _repeat(picture: Callable[[], None], watch: bool) -> None:
    """Show a picture once, or again and again: on a terminal in place, elsewhere one after the other."""
    pause = Event()
    while True:
        if watch and sys.stdout.isatty():
            click.echo("\x1b[H\x1b[J", nl=False, color=True)
        picture()
        sys.stdout.flush()
        if not watch:
            return
        pause.wait(LOOK_EVERY)


@click.command()
@click.argument("workflow", required=False)
@click.option("--namespace", help="Only this namespace. Default: all.")
@watch_option
@database_option
@output_option
def ps(workflow: str | None, namespace: str | None, watch: bool, database_url: str | None, output: str) -> None:
    """List operators, of one WORKFLOW or of all, one line for each subject: what is wanted, and what is."""
    from pgsig.store.reading import rows

    with connected(database_url) as connection:

        def picture() -> None:
            found = rows(connection, "cli_operators", workflow=workflow, namespace=namespace, limit=MOST)
            if output == "json":
                show_json(found)
                return
            for row in found:
                row["operator"] = f"{row['workflow']}.{row['operator']}"
            columns = [
                "operator",
                "subject",
                "kind",
                "desired",
                "observed",
                "paused",
                "generation",
                "run_id",
                "changed_at",
            ]
            _list(found, columns, "no operators: pgsig apply workflow.yaml")

        _repeat(picture, watch)


@click.command()
@click.argument("operator", required=False)
@click.option("--namespace", help="Only this namespace. Default: all.")
@click.option("--state", "states", multiple=True, help="Only runs in this state; may be repeated.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many.")
@watch_option
@database_option
@output_option
def runs(
    operator: str | None,
    namespace: str | None,
    states: tuple[str, ...],
    limit: int,
    watch: bool,
    database_url: str | None,
    output: str,
) -> None:
    """List runs, newest first; of OPERATOR (workflow or workflow.operator) or of all."""
    from pgsig.model import State
    from pgsig.store.advice import size
    from pgsig.store.reading import Filter, Place
    from pgsig.store.reading import runs as read

    if unknown := [state for state in states if state not in list(State)]:
        raise click.BadParameter(f"{unknown[0]} is not a state: {', '.join(State)}", param_hint="--state")
    workflow, _, name = (operator or "").partition(".")
    want = Filter(namespace=namespace, workflow=workflow or None, operator=name or None, states=states or None)
    with connected(database_url) as connection:

        def picture() -> None:
            page = read(connection, want, Place(), limit)
            found = page.rows
            while page.next is not None and len(found) < limit:  # it stopped for the time that it took, not at the end
                page = read(connection, want, Place(page.next), limit - len(found))
                found += page.rows
            if output == "json":
                show_json(found)
                return
            for row in found:
                row["operator"] = f"{row['workflow']}.{row['operator']}"
                row["cpu"] = None if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.2f}s"
                row["memory"] = None if row["memory_peak"] is None else size(row["memory_peak"])
                row["labels"] = ", ".join(row["labels"])
                row["failures"] = row["failures"] or None
                row["blocked"] = row["limit_key"] if row["blocked"] else None
            columns = [
                "id",
                "operator",
                "subject",
                "state",
                "attempt",
                "failures",
                "queued_at",
                "started_at",
                "ended_at",
            ]
            _list(found, [*columns, "cpu", "memory", "labels", "blocked", "exit_code", "reason"], "no runs yet")

        _repeat(picture, watch)


@click.command()
@click.argument("run", metavar="RUN|OPERATOR")
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on until the run has ended; of an OPERATOR, into its next runs, until Ctrl-C.",
)
@click.option("-n", "--lines", type=click.IntRange(1), help="Only the last ones.")
@click.option("--subject", help="With OPERATOR: for which entity.")
@namespace_option
@database_option
def logs(
    run: str, follow: bool, lines: int | None, subject: str | None, namespace: str, database_url: str | None
) -> None:
    """Show what a run wrote, all its attempts: of run number RUN, or of the newest run of OPERATOR (workflow.operator)."""
    from pgsig.errors import NotFound
    from pgsig.store.reading import row

    workflow, dot, operator = run.partition(".")
    if not dot and not (run.isascii() and run.isdecimal() and 0 < int(run) < 2**63):
        raise click.BadParameter("give the number of a run, or workflow.operator", param_hint="RUN|OPERATOR")
    with connected(database_url) as connection:
        if not dot:
            if row(connection, "run", id=int(run)) is None:
                raise NotFound(f"there is no run {run}", code="PS204", where="run", fix="pgsig runs lists them")
            _log_of(connection, int(run), follow, lines)
            return
        found = row(
            connection, "newest_run", namespace=namespace, workflow=workflow, operator=operator, subject=subject
        )
        if found is None:
            raise NotFound(f"{run} has never run", code="PS204", where="run", fix="pgsig ps lists operators")
        while found is not None:
            say(f"run {found['id']}")
            _log_of(connection, found["id"], follow, lines)
            found, lines = _next_run(connection, found["id"]) if follow else None, None


def _next_run(connection: Connection, run: int) -> dict[str, Any]:
    """The run of the same operator and subject that begins after this one, once it does."""
    from pgsig.store.reading import row

    while (found := row(connection, "next_run", run=run)) is None:
        Event().wait(LOOK_EVERY / 2)
    return found


def _log_of(connection: Connection, run: int, follow: bool, lines: int | None) -> None:
    from pgsig.model import FINAL
    from pgsig.store.reading import row, rows

    pause, seq, attempt, log = Event(), 0, 0, _Log()
    if lines is not None:
        text, seq, attempt = _end_of(connection, run, lines)
        log.write(text)
    while True:
        # Asked before the log is read: what an ended run wrote is there by then.
        now = row(connection, "run", id=run)
        while found := rows(connection, "log_after", id=run, after=seq, limit=1000):
            if lines is None or follow:
                for piece in found:
                    if attempt and piece["attempt"] > attempt:
                        log.end_line()
                        if follow:
                            say(f"run {run}, attempt {piece['attempt']}")
                    attempt = max(attempt, piece["attempt"])
                    log.write(piece["text"])
            seq = found[-1]["seq"]
        if not follow or now is None or now["state"] in FINAL:
            log.end_line()
            return
        sys.stdout.flush()
        pause.wait(LOOK_EVERY / 2)


def _end_of(connection: Connection, run: int, lines: int) -> tuple[str, int, int]:
    """The last lines of a log, the position of its end and the attempt that wrote it. It is stored in pieces, which are no lines."""
    from pgsig.store.reading import rows

    pieces: list[dict[str, Any]] = []
    before = 2**31 - 1
    while found := rows(connection, "log_before", id=run, before=before, limit=100):
        pieces += found
        before = found[-1]["seq"]
        if sum(piece["text"].count("\n") for piece in pieces) > lines:
            break
    if not pieces:
        return "", 0, 0
    parts: list[str] = []
    attempt = 0
    for piece in reversed(pieces):
        if piece["attempt"] != attempt and parts and not parts[-1].endswith("\n"):
            parts.append("\n")
        attempt = piece["attempt"]
        parts.append(piece["text"])
    text = "".join(parts)
    end = "\n" if text.endswith("\n") else ""
    return "\n".join(text.removesuffix("\n").split("\n")[-lines:]) + end, pieces[0]["seq"], attempt


class _Log:
    """A log as it comes: in pieces, which may end within a line. On a terminal it may colour it, not steer it; in a file or pipe it
    stays as it is."""

    def __init__(self) -> None:
        self.within_line = False

    def write(self, text: str) -> None:
        if text:
            click.echo(coloured(text) if sys.stdout.isatty() else text, nl=False, color=True)
            self.within_line = not text.endswith("\n")

    def end_line(self) -> None:
        if self.within_line:
            click.echo()
        self.within_line = False


@click.command()
@click.argument("pattern", required=False)
@click.option("--subject", help="Only signals about this subject.")
@click.option("--namespace", help="Only this namespace. Default: all.")
@click.option("-n", "--lines", type=click.IntRange(0, 500), default=10, show_default=True, help="Earlier ones.")
@click.option("--no-follow", is_flag=True, help="Only the earlier ones.")
@database_option
@output_option
def tail(
    pattern: str | None,
    subject: str | None,
    namespace: str | None,
    lines: int,
    no_follow: bool,
    database_url: str | None,
    output: str,
) -> None:
    """Follow signals as they come; only those of PATTERN, for instance 'model.*' or 'run.shop.**'."""
    from pgsig.store.reading import Cursor, Filter, Place, arrivals, here, signals

    settings = settings_of(database_url)
    want = Filter(key=pattern, subject=subject, namespace=namespace)
    with connected(database_url) as connection:
        connection.execute("LISTEN pgsig_changes")
        connection.execute("LISTEN pgsig_signals")
        # The cursor first: what commits in between is shown once, as it is left out of the earlier ones.
        cursor: Cursor = here(connection)
        earlier = signals(connection, want, Place(), lines).rows if lines else []
        for item in reversed(earlier):
            _show_signal(item, output)
        shown = {item["id"] for item in earlier}
        while not no_follow:
            try:
                news = arrivals(connection, cursor, want)
            except InvalidInput as error:
                raise PgsigError(error.problems[0].message, code=error.code, fix="start it again") from error
            for item, _ in news.signals:
                if item["id"] not in shown:
                    _show_signal(item, output)
            cursor = news.cursor
            sys.stdout.flush()
            if not news.more:
                shown.clear()
                _wait(connection, settings.poll_seconds)


def _wait(connection: Connection, seconds: float) -> None:
    """Until somebody rings, or the time is over."""
    for _ in connection.notifies(timeout=seconds, stop_after=1):
        pass


def _show_signal(item: dict[str, Any], output: str) -> None:
    if output == "json":
        value = item["value"]
        line = {**item, "value": json.loads(value) if isinstance(value, str) else value}
        click.echo(json.dumps(line, default=str))
        return
    moment = item["emitted_at"].astimezone().strftime("%H:%M:%S.%f")[:-3]
    value = "" if item["value"] in (None, "null") else cell(str(item["value"]), 100)
    subject = f"  [{cell(item['subject'])}]" if item["subject"] else ""
    space = f"{item['namespace']}:" if item["namespace"] != "default" else ""
    key = paint(
        f"{space}{harmless(item['key'])}",
        {"state": "cyan", "tick": "blue", "manual": "yellow"}.get(item["kind"], "green"),
    )
    show(f"{paint(moment, 'bright_black')}  {item['id']:>6}  {key}{subject}  {value}".rstrip())


@click.command()
@click.argument("operator", required=False)
@click.option("--subject", default="", help="For which entity.")
@click.option("--signal", type=click.IntRange(1, 2**63 - 1), help="What this signal did, or why it did nothing.")
@namespace_option
@database_option
@output_option
def why(
    operator: str | None, subject: str, signal: int | None, namespace: str, database_url: str | None, output: str
) -> None:
    """Explain why OPERATOR (workflow.operator) did or did not act, and what would make it; or what a signal did."""
    from pgsig.store import explain

    if (operator is None) == (signal is None):
        raise click.UsageError("give an OPERATOR or --signal")
    with connected(database_url) as connection:
        if signal is not None:
            answer = explain.why_signal(connection, signal)
        else:
            answer = explain.why(connection, str(operator), subject, namespace)
    if output == "json":
        show_json(answer)
    else:
        show(harmless(answer["text"], lines=True))


def _list(found: list[dict[str, Any]], columns: list[str], empty: str) -> None:
    """A table without the columns in which nothing stands."""
    filled = [name for name in columns if any(row.get(name) not in (None, "", []) for row in found)]
    show_table(found, filled, empty=empty)
    if len(found) >= MOST:
        say(f"only the first {MOST} are shown")
