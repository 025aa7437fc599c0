"""`init`, `migrate`, `validate`, `plan`, `apply`: from nothing to a workflow that is in force."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgsig.cli.common import connected, database_option, find_modules_here, output_option, settings_of
from pgsig.cli.output import cell, harmless, paint, say, show, show_json

if TYPE_CHECKING:
    from pgsig.definition import Definition
    from pgsig.definition.changes import Changes, OperatorChange
    from pgsig.errors import Problem
    from pgsig.store.versions import Flight

TEMPLATES = Path(__file__).with_name("templates")
SIGNS = {"added": "+", "new": "+", "changed": "~", "removed": "-", "unchanged": " ", "kept": " "}


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--template", type=click.Choice(["ml", "blank"]), default="ml", show_default=True)
def init(folder: Path, template: str) -> int:
    """Write a small working example into DIR (default: here).

    Files that are there already are never overwritten.
    """
    files = sorted(path for path in (TEMPLATES / template).iterdir() if path.is_file())
    names = {path: path.name.removesuffix(".txt") for path in files}
    taken = [name for name in names.values() if (folder / name).exists()]
    if taken:
        say(f"PS540 {folder}: has {', '.join(taken)} already (choose another folder: pgsig init NAME)")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for path, name in names.items():
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(path.read_text(encoding="utf-8"))
        show(str(folder / name))
    here = "" if folder == Path() else f"cd {folder} && "
    say(f"Next: {here}pgsig dev")
    return 0


@click.command()
@click.option(
    "--restored",
    is_flag=True,
    help="It was restored from a dump, and shall go on here. What was evaluated before the dump is not evaluated again. "
    "Does nothing where it was not.",
)
@database_option
@output_option
def migrate(restored: bool, database_url: str | None, output: str) -> None:
    """Bring the database's schema to this version of pgsig.

    Safe to run again, and from many places at once.
    """
    from pgsig.store.migrate import migrate as run

    done = run(settings_of(database_url).database_url, restored=restored)
    if output == "json":
        show_json({"before": done.before, "after": done.after, "api": done.api, "adopted": done.adopted})
        return
    if done.adopted is not None:
        show(f"restored from a dump, goes on here; {done.adopted} signals had been emitted since the restore")
    if done.before == done.after and not done.api:
        show(f"schema {done.after}: nothing to do")
    else:
        moved = f"{done.before or 'none'} → {done.after}" if done.before != done.after else done.after
        show(f"schema {moved}" + (", functions and views re-applied" if done.api else ""))


@click.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.option("--database", is_flag=True, help="Also try the SQL/JSON paths, in the database.")
@database_option
@output_option
def validate(files: tuple[str, ...], database: bool, database_url: str | None, output: str) -> int:
    """Check definitions, given as files or as module:workflow, and name everything that is wrong with them."""
    from pgsig.errors import InvalidInput

    found: list[Definition] = []
    problems: list[Problem] = []
    for name in files:
        try:
            found.append(definition_of(name))
        except InvalidInput as error:
            problems += error.problems
    if database or database_url:
        from pgsig.store.definitions import check_paths

        with connected(database_url) as connection:
            for definition in found:
                try:
                    check_paths(connection, definition)
                except InvalidInput as error:
                    problems += error.problems
    if output == "json":
        show_json({"ok": not problems, "errors": [problem.as_dict() for problem in problems]})
    else:
        for problem in problems:
            say(str(problem))
        for definition in found if not problems else ():
            rules = sum(len(operator.rules) for operator in definition.operators)
            show(f"{definition.workflow}: {paint('ok', 'green')}, {len(definition.operators)} operators, {rules} rules")
            _warn(definition)
    return 1 if problems else 0


@click.command()
def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of a definition, for editors and programs that write definitions."""
    from pgsig.definition.schema import text

    show(text().rstrip())


@click.command()
@click.argument("file")
@database_option
@output_option
def plan(file: str, database_url: str | None, output: str) -> None:
    """Show what applying FILE (or module:workflow) would change."""
    definition = definition_of(file)
    with connected(database_url) as connection:
        show_plan(connection, definition, output)


@click.command()
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Only show what would change, like plan.")
@database_option
@output_option
def apply(file: str, dry_run: bool, database_url: str | None, output: str) -> None:
    """Bring a workflow to what FILE (or module:workflow) says, in one transaction.

    Again, it changes nothing.
    """
    from pgsig.store import definitions

    definition = definition_of(file)
    with connected(database_url) as connection:
        if dry_run:
            show_plan(connection, definition, output)
            return
        applied = definitions.apply(connection, definition)
    if output == "json":
        show_json({"version": applied.version, **applied.changes.as_dict()})
        return
    if applied.changes.any:
        show_changes(applied.changes)
        _warn(definition)
        show(f"{definition.workflow}: version {applied.version} is in force")
    else:
        show(f"{definition.workflow}: nothing changed, version {applied.version} stays")


def definition_of(name: str) -> Definition:
    """The definition in a file or behind module:workflow. Raises OSError, InvalidInput and PgsigError."""
    from pgsig.definition import load

    module, colon, attribute = name.partition(":")
    if Path(name).suffix in (".yaml", ".yml", ".json") or Path(name).exists() or not colon:
        return load(name)
    return _imported(name, module, attribute)


def _imported(name: str, module: str, attribute: str) -> Definition:
    from importlib import import_module

    from pgsig.definition.workflow import Workflow
    from pgsig.errors import InvalidInput, PgsigError

    find_modules_here()
    try:
        found = import_module(module)
    except InvalidInput:  # what it declares is wrong, and it says what and where
        raise
    except Exception as error:
        if not (isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name)):
            say("".join(traceback.format_exception(error)).rstrip())
        what = f"{module} cannot be imported: {type(error).__name__}: {error}"
        raise PgsigError(what, code="PS532", where=name, fix="run it where the module can be found") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)  # type: ignore[assignment]
    if not isinstance(found, Workflow):
        what = f"{attribute} of {module} is not a Workflow"
        raise PgsigError(what, code="PS532", where=name, fix="name one: wf = Workflow(…)")
    return found.definition()


def show_plan(connection: object, definition: Definition, output: str) -> None:
    """What an apply would change, and what it would meet: signals that rules wait with, runs that are alive."""
    from pgsig.store import definitions, versions

    changes = definitions.plan(connection, definition)  # type: ignore[arg-type]
    meets = versions.flight(connection, definition.workflow, definition.namespace)  # type: ignore[arg-type]
    if output == "json":
        show_json(versions.with_flight(changes, meets))
    elif changes.any:
        show_changes(changes, meets)
        _warn(definition)
    else:
        show(f"{definition.workflow}: nothing would change, version {changes.before} stays")


def show_changes(changes: Changes, meets: Flight | None = None) -> None:
    """Every operator that changes, with its fields and rules, and how many stay as they are."""
    before = f"version {changes.before} → {changes.before + 1}" if changes.before else "new"
    space = "" if changes.namespace == "default" else f" in namespace {changes.namespace}"
    show(f"workflow {changes.workflow}{space}: {before}")
    for operator in changes.operators:
        if operator.change != "unchanged":
            _show_operator(operator, meets)
    if same := sum(operator.change == "unchanged" for operator in changes.operators):
        show(f"  {same} operator{'s' if same > 1 else ''} unchanged")


def _show_operator(operator: OperatorChange, meets: Flight | None) -> None:
    sign = SIGNS[operator.change]
    live, queued = meets.runs.get(operator.name, (0, 0)) if meets else (0, 0)
    runs = ", ".join(f"{n} {word} {_many('run', n)}" for n, word in ((live, "live"), (queued, "queued")) if n)
    waits = {rule.id: meets.waiting.get(rule.id or 0, (0, 0)) for rule in operator.rules} if meets else {}
    waiting = sum(signals for signals, _ in waits.values())
    show(paint(f"  {sign} {operator.name}", _colour(operator.change)) + f" ({operator.kind})")
    if operator.change == "removed":
        show("      its live runs are stopped" + (f": {runs}" if runs else ""))
        if waiting:
            show(f"      {waiting} waiting {_many('signal', waiting)} of its rules will expire")
        return
    if runs and operator.change == "changed":
        show(f"      in flight: {runs}, as they were started")
    if operator.autostart:
        show("      starts now (autostart)")
    for name, (old, new) in operator.fields.items():
        when = ""
        if name == "replicas":
            when = " (from the next RESTART on)" if (new or 1) < (old or 1) else " (from the next START on)"
        show(f"      {name}: {cell(old) or 'nothing'} → {cell(new) or 'nothing'}{when}")
    for rule in operator.rules:
        by = "" if rule.by == "subject" else f" by {rule.by}"
        condition = harmless(json.dumps(rule.condition, ensure_ascii=False))
        said = "".join(f", {name} {cell(value)}" for name, value in rule.options.items())
        note = _note(rule.change, *waits.get(rule.id, (0, 0)))
        show(paint(f"      {SIGNS[rule.change]} {rule.name}: {condition}{by}{said}{note}", _colour(rule.change)))


def _note(change: str, waiting: int, levels: int) -> str:
    """What becomes of a rule's state."""
    has = [f"{n} {_many(word, n)}" for n, word in ((waiting, "waiting signal"), (levels, "level")) if n]
    if change == "kept":
        return f" (keeps its state: {', '.join(has)})" if has else " (keeps its state)"
    return f" ({', '.join(has)} will expire)" if has else ""


def _many(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _colour(change: str) -> str | None:
    return {"+": "green", "~": "yellow", "-": "red"}.get(SIGNS[change])


def _warn(definition: Definition) -> None:
    from pgsig.foresight import warnings

    for text in warnings(definition, datetime.now(UTC)):
        say(f"note: {text}")
