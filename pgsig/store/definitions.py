"""Applying definitions, and reading those in force. Statements: `sql/queries/definitions.sql`.

An apply is one transaction that holds its namespace's lane from its first statement on. So no worker is
deciding anything of the namespace meanwhile, and the next one that does reads what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgsig import condition
from pgsig.condition import Leaf, Tick
from pgsig.condition.duration import limit
from pgsig.decide.catalog import Path, is_simple
from pgsig.decide.explain import words
from pgsig.definition import Definition, parse
from pgsig.definition.changes import Changes, KnownOperator, compare
from pgsig.definition.check import FunctionUse
from pgsig.errors import Conflict, InvalidInput, Problem
from pgsig.failpoints import reached
from pgsig.model import Action, Json, Kind, Operator, Rule
from pgsig.store.database import Connection, query, translated
from pgsig.store.origin import foreign_origin


@dataclass(frozen=True)
class Applied:
    """version: the workflow's number from here on.

    changes: what became different; `changes.any` is false if nothing.
    """

    version: int
    changes: Changes


def apply(connection: Connection, document: Definition | Json, *, base: int | None = None) -> Applied:
    """Bring a workflow to what a definition says, in one transaction; the same definition again changes
    nothing.

    A rule that says what it said keeps its state; a new or changed one sees what commits after the apply.
    Runs of an operator that is gone are asked to stop. An `at` that is past by now never comes. base: the
    version that the caller saw; another one by now raises Conflict. Raises InvalidInput with everything
    that is wrong.
    """
    definition = document if isinstance(document, Definition) else parse(document)
    with translated(), connection.transaction():
        lane = _rows(connection, "lock_lane", namespace=definition.namespace)[0]["lane"]
        reached("apply.locked")
        if (foreign := foreign_origin(connection)) is not None:
            raise foreign
        changes, known = _compare(connection, definition)
        if base is not None and base != changes.before:
            raise Conflict(
                f"the workflow is at version {changes.before} by now, not {base}",
                code="PS541",
                where=definition.workflow,
                fix="look at the plan again",
            )
        check_paths(connection, definition)
        if changes.same:
            return Applied(changes.before, changes)
        version = changes.before + 1
        _save(connection, definition, changes, known, version)
        reached("apply.saved")
        _do(
            connection, "announce_definitions",
            lane=lane, namespace=definition.namespace, workflow=definition.workflow,
        )  # fmt: skip
    reached("apply.committed")
    return Applied(version, changes)


def plan(connection: Connection, document: Definition | Json) -> Changes:
    """What `apply` would change, without doing it. Raises InvalidInput like `apply`."""
    definition = document if isinstance(document, Definition) else parse(document)
    with translated(), connection.transaction(force_rollback=True):
        check_paths(connection, definition)
        return _compare(connection, definition)[0]


def check_paths(connection: Connection, definition: Definition) -> None:
    """Check what only Postgres can: SQL/JSON paths and SQL functions. Raises InvalidInput with all that are wrong."""
    problems = [problem for use in definition.functions if (problem := _try_function(connection, use)) is not None]
    for use in definition.paths:
        try:
            with connection.transaction():
                _do(connection, "try_predicate" if use.predicate else "try_path", path=use.path)
        except psycopg.errors.SingletonSqlJsonItemRequired:
            fix = "write the predicate alone: $.auc > 0.9, not $ ? (@.auc > 0.9)"
            problems.append(
                Problem("PS528", f'"{use.path}" selects something, a predicate is true or false', use.where, fix)
            )
        except (psycopg.DataError, psycopg.errors.SyntaxError, psycopg.errors.UndefinedObject) as error:
            what = f'"{use.path}" is not a SQL/JSON path: {error.diag.message_primary}'
            problems.append(
                Problem(
                    "PS528",
                    what,
                    use.where,
                    "for instance $.auc > 0.9" if use.predicate else "for instance $.model_id",
                )
            )
    if problems:
        located = [definition.source.locate(problem) for problem in problems]
        raise InvalidInput(located, subject=definition.source.name or "the definition")


def _try_function(connection: Connection, use: FunctionUse) -> Problem | None:
    found = _rows(connection, "try_function", name=use.name)[0]["case"]
    if found == "good":
        return None
    what = {
        "unknown": f"there is no SQL function {use.name}",
        "arguments": f"{use.name} does not take (signal jsonb, state jsonb)",
        "answer": f"{use.name} does not answer with state jsonb, met boolean",
    }[found]
    fix = f"create it: FUNCTION {use.name}(signal jsonb, INOUT state jsonb, OUT met boolean)"
    return Problem("PS528", what, use.where, fix)


def catalog(connection: Connection) -> list[Operator]:
    """Every operator in force, of all namespaces, with its rules in order of declaration."""
    return changed(connection, dict.fromkeys(catalog_revisions(connection), -1))[1]


def changed(connection: Connection, since: Mapping[int, int]) -> tuple[set[Path], list[Operator]]:
    """The workflows that changed after these revisions of lanes, and their operators in force, as `catalog` has them: of some there may be
    none any more."""
    workflows = _rows(connection, "changed_workflows", lanes=list(since), revisions=list(since.values()))
    operators = [
        Operator(
            id=row["id"],
            namespace=row["namespace"],
            workflow=row["workflow"],
            name=row["name"],
            kind=Kind(row["kind"]),
            version=row["version"],
            spec=row["spec"],
            rules=tuple(_rule(row["id"], *rule) for rule in row["rules"]),
            paused=row["paused"],
        )
        for row in _rows(connection, "catalog", workflows=[row["id"] for row in workflows])
    ]
    return {(row["namespace"], row["name"]) for row in workflows}, operators


def _rule(
    operator: int,
    rule: int,
    name: str,
    action: str,
    ordinal: int,
    condition: Json,
    by: str,
    since: str,
    options: Json,
    has_words: bool,
) -> Rule:
    most = limit(options["max"]) if "max" in options else None
    then = Action(options["then"]) if "then" in options else None
    return Rule(
        rule,
        operator,
        name,
        Action(action),
        ordinal,
        condition,
        by,
        since,
        most,
        then,
        bool(options.get("shadow")),
        has_words,
    )


def catalog_revisions(connection: Connection) -> dict[int, int]:
    """The revision of each lane's definitions: it grows with every apply.

    Read it before the catalog, not after.
    """
    return {row["lane"]: row["revision"] for row in _rows(connection, "catalog_revisions")}


def _compare(connection: Connection, definition: Definition) -> tuple[Changes, dict[str, KnownOperator]]:
    now = _rows(connection, "workflow_now", namespace=definition.namespace, workflow=definition.workflow)
    if not now:
        return compare(definition, {}, before=0, digest=""), {}
    known = {
        row["name"]: KnownOperator(
            row["id"], row["name"], row["kind"], row["spec"], row["removed"], tuple(row["rules"])
        )
        for row in _rows(connection, "workflow_operators", workflow=now[0]["id"])
    }
    digest = "" if now[0]["removed"] else now[0]["digest"]
    return compare(definition, known, before=now[0]["version"], digest=digest), known


def _save(
    connection: Connection,
    definition: Definition,
    changes: Changes,
    known: dict[str, KnownOperator],
    version: int,
) -> None:
    names = {"namespace": definition.namespace, "workflow": definition.workflow}
    workflow = _rows(connection, "save_workflow", **names, version=version)[0]["id"]
    _do(
        connection,
        "save_version",
        workflow=workflow,
        version=version,
        definition=Jsonb(definition.document),
        digest=definition.digest,
    )
    operators = [{"name": item.name, "kind": item.kind, "spec": item.spec} for item in definition.operators]
    saved = _rows(connection, "save_operators", workflow=workflow, version=version, operators=Jsonb(operators))
    ids = {row["name"]: row["id"] for row in saved}

    kept = {
        (change.name, rule.name): rule.id
        for change in changes.operators
        for rule in change.rules
        if rule.change == "kept"
    }
    old_rules, new_rules = [], []
    for operator in definition.operators:
        for ordinal, rule in enumerate(operator.rules):
            place = {"name": rule.name, "ordinal": ordinal}
            if (operator.name, rule.name) in kept:
                old_rules.append({"id": kept[operator.name, rule.name], **place})
            else:
                said = {
                    "action": rule.action,
                    "condition": rule.condition,
                    "by": rule.by,
                    "digest": rule.digest,
                    "options": rule.options,
                    "told": told(rule.condition, f"{definition.workflow}.{operator.name}", rule.options),
                }
                new_rules.append({"operator_id": ids[operator.name], **place, **said})
    gone = [rule.id for change in changes.operators for rule in change.rules if rule.change == "removed"]
    _do(connection, "remove_rules", rules=gone, version=version)
    _do(connection, "keep_rules", rules=Jsonb(old_rules))
    _do(connection, "save_rules", rules=Jsonb(new_rules), version=version)

    triggers = [
        {"operator_id": ids[operator.name], "name": trigger.name, "spec": trigger.spec}
        for operator in definition.operators
        for trigger in operator.triggers
    ]
    _do(connection, "remove_triggers", workflow=workflow, triggers=Jsonb(triggers))
    _do(connection, "save_triggers", triggers=Jsonb(triggers))

    removed = [known[change.name].id for change in changes.operators if change.change == "removed"]
    if removed:
        _do(connection, "remove_operators", operators=removed)
        _do(connection, "stop_operators", operators=removed)
    started = [change.name for change in changes.operators if change.autostart]
    if started:
        _do(connection, "autostart", **names, operators=started)


def told(tree: Json, operator: str, options: Json) -> Json:
    """The words of a rule's explanation where they are always the same: of one term without a limit. None where not."""
    root, _ = condition.parse(tree, operator=operator)
    return words(root) if isinstance(root, Leaf | Tick) and is_simple(root) and "max" not in options else None


def _rows(connection: Connection, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name).encode(), parameters).fetchall()


def _do(connection: Connection, name: str, /, **parameters: Any) -> None:
    connection.execute(query(name).encode(), parameters)
