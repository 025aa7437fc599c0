"""A whole definition: checked, with every problem at once, and brought into the canonical form for Postgres.

    {"workflow": …, "namespace"?: …, "description"?: …, "operators": {name: OPERATOR}}
    OPERATOR: {"batch" | "streaming": {…}, "description"?: …, "order"?: [actions],
               "start"?, "stop"?, "restart"?, "reload"?: condition or list of conditions}

One condition stands as an object, several as a list. Beside a condition's form, `by` says what an instance
of the rule is: "subject" (default, left out), "none", or a SQL/JSON path into the value. Rules count in the
order in which an operator declares them; as Postgres does not keep the order of keys, `order` names the
actions where it is not start, stop, restart, reload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgsig import condition
from pgsig.definition import check, reading, spec
from pgsig.definition.reading import Source, escape
from pgsig.definition.spec import Wrong
from pgsig.errors import InvalidInput, Problem
from pgsig.model import Action, Json, Kind

ACTIONS = ("start", "stop", "restart", "reload")
ABOUT = "description"
MOST_OPERATORS = 1000
MOST_RULES = 100  # of one operator


@dataclass(frozen=True)
class RuleDefinition:
    """name: its action and, from the second of an action on, its number: start, start.2.

    digest: of what it says, that is without its name.
    """

    name: str
    action: Action
    condition: Json
    by: str
    digest: str


@dataclass(frozen=True)
class TriggerDefinition:
    """A periodic trigger of an operator. Its name follows from its spec."""

    name: str
    spec: Json


@dataclass(frozen=True)
class OperatorDefinition:
    """One operator, ready to be stored. rules are in order of declaration."""

    name: str
    kind: Kind
    spec: Json
    rules: tuple[RuleDefinition, ...]
    triggers: tuple[TriggerDefinition, ...]

    @property
    def autostart(self) -> bool:
        return bool(self.spec.get("autostart"))


@dataclass(frozen=True)
class Definition:
    """A checked workflow.

    document: its canonical JSON. paths: the SQL/JSON paths in it, which only Postgres can check.
    """

    namespace: str
    workflow: str
    operators: tuple[OperatorDefinition, ...]
    document: dict[str, Any]
    digest: str
    paths: tuple[check.PathUse, ...] = ()
    source: Source = field(default_factory=Source)


def load(path: str | Path) -> Definition:
    """Read and check a file. Raises OSError, and InvalidInput with everything that is wrong, by line."""
    document, source = reading.read(Path(path))
    return parse(document, source)


def parse(document: Json, source: Source | None = None) -> Definition:
    """Check a document. Raises InvalidInput with everything that is wrong."""
    source = source or Source()
    problems: list[Problem] = []
    definition = _parse(document, source, problems)
    problems = [*source.problems, *(problem for problem in problems if not source.knows(problem))]
    if problems or definition is None:
        raise InvalidInput([source.locate(problem) for problem in problems], subject=source.name or "the definition")
    return definition


def _parse(document: Json, source: Source, problems: list[Problem]) -> Definition | None:
    wrong = spec.problems_of(problems)
    if not isinstance(document, dict):
        wrong("", "a definition is an object with workflow and operators")
        return None
    check.plain(document, "", wrong)
    if problems:
        return None
    for key in document:
        if key not in ("workflow", "namespace", ABOUT, "operators"):
            spec.unknown(key, ("workflow", "namespace", ABOUT, "operators"), f"/{escape(key)}", wrong, "a definition")
    workflow, namespace = document.get("workflow"), document.get("namespace") or "default"
    canonical: dict[str, Any] = {"workflow": _name(workflow, "/workflow", "a workflow", wrong)}
    if _name(namespace, "/namespace", "a namespace", wrong) != "default":
        canonical["namespace"] = namespace
    _description(document, "", canonical, wrong)
    given = document.get("operators")
    if not isinstance(given, dict) or not given or len(given) > MOST_OPERATORS:
        wrong(
            "/operators",
            f"a workflow has 1 to {MOST_OPERATORS} operators",
            "operators: {train: {batch: {command: […]}}}",
        )
        return None
    operators: list[OperatorDefinition] = []
    canonical["operators"] = {}
    for name, body in given.items():
        where = f"/operators/{escape(name)}"
        _name(name, where, "an operator", wrong)
        operator, kept = _operator(str(workflow), name, body, where, wrong, problems)
        operators.append(operator)
        canonical["operators"][name] = kept
    check.references(str(workflow), given, wrong)
    if problems:
        return None
    return Definition(
        namespace,
        str(workflow),
        tuple(operators),
        canonical,
        condition.digest(canonical),
        tuple(check.paths(given)),
        source,
    )


def _operator(
    workflow: str, name: str, body: Json, where: str, wrong: Wrong, problems: list[Problem]
) -> tuple[OperatorDefinition, dict[str, Any]]:
    if not isinstance(body, dict):
        wrong(
            where,
            "an operator is an object with batch or streaming, and when to start, stop, restart or reload it",
        )
        body = {"batch": {"command": ["true"]}}
    for key in body:
        if key not in (*Kind, *ACTIONS, ABOUT, "order"):
            near = {
                "stream": "streaming",
                "job": "batch",
                "trigger": "start",
                "when": "start",
                "on": "start",
            }.get(key)
            if near:
                wrong(
                    f"{where}/{escape(key)}",
                    f'"{key}" is not a key of an operator',
                    f"did you mean {near}?",
                    "PS522",
                )
            else:
                spec.unknown(key, (*Kind, *ACTIONS, ABOUT, "order"), f"{where}/{escape(key)}", wrong, "an operator")
    kinds = [kind for kind in Kind if kind in body]
    if len(kinds) != 1:
        wrong(
            where,
            "an operator is either batch (ends by itself) or streaming (runs until stopped)",
            "write one of the two",
        )
    kind = kinds[0] if kinds else Kind.BATCH
    kept: dict[str, Any] = {}
    if kinds:
        kept[kind.value] = spec.canonical(kind, body[kind], f"{where}/{kind}", wrong)
    _description(body, where, kept, wrong)
    order = _order(body, where, wrong)
    rules: list[RuleDefinition] = []
    triggers: dict[str, TriggerDefinition] = {}
    for action in order:
        several = body[action] if isinstance(body[action], list) else [body[action]]
        if not several or len(several) > MOST_RULES:
            wrong(f"{where}/{action}", f"an action has 1 to {MOST_RULES} conditions", "leave the key out")
        forms = []
        for i, given in enumerate(several[:MOST_RULES]):
            place = f"{where}/{action}/{i}" if isinstance(body[action], list) else f"{where}/{action}"
            tree, by = _by(given, place, wrong)
            node, found = condition.parse(tree, operator=f"{workflow}.{name}", where=place)
            problems.extend(found)
            if node is None:
                continue
            form = condition.dump(node)
            forms.append(form if by == "subject" else {**form, "by": by})
            digest = condition.digest([action.upper(), form, by])
            if any(rule.digest == digest for rule in rules):
                wrong(place, f"says the same as another {action} of this operator", "keep one", "PS529")
            rules.append(RuleDefinition(f"{action}.{i + 1}" if i else action, Action(action.upper()), form, by, digest))
            triggers |= {
                leaf.name: TriggerDefinition(leaf.name, leaf.spec)
                for leaf in condition.leaves(node)
                if isinstance(leaf, condition.Tick)
            }
        kept[action] = forms if len(forms) != 1 else forms[0]
    if order != [action for action in ACTIONS if action in body]:
        kept["order"] = order
    return OperatorDefinition(name, kind, kept.get(kind.value, {}), tuple(rules), tuple(triggers.values())), kept


def _by(tree: Json, where: str, wrong: Wrong) -> tuple[Json, str]:
    """A condition without its `by`, and that."""
    if not isinstance(tree, dict) or "by" not in tree:
        return tree, "subject"
    by = tree["by"]
    if not isinstance(by, str) or not (by in ("subject", "none") or by.startswith(("$", "strict $", "lax $"))):
        wrong(f"{where}/by", "by is subject, none, or a path into the value", "for instance $.model_id", "PS503")
        by = "subject"
    return {key: value for key, value in tree.items() if key != "by"}, by


def _order(body: dict[str, Any], where: str, wrong: Wrong) -> list[str]:
    declared = [key for key in body if key in ACTIONS]
    order = body.get("order")
    if order is None:
        return declared
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(declared):
        wrong(
            f"{where}/order",
            f"order names each action of the operator once: {', '.join(declared) or 'there is none'}",
            "or leave it out",
        )
        return declared
    return [str(action) for action in order]


def _description(body: dict[str, Any], where: str, kept: dict[str, Any], wrong: Wrong) -> None:
    text = body.get(ABOUT)
    if text is None:
        return
    if not isinstance(text, str) or len(text) > 10_000:
        wrong(f"{where}/{ABOUT}", "a description is a text of at most 10000 characters")
    elif text:
        kept[ABOUT] = text


def _name(value: Json, where: str, what: str, wrong: Wrong) -> Json:
    if not isinstance(value, str) or not spec.NAME.fullmatch(value):
        said = f'"{value}" does not name {what}' if value is not None else f"{what} needs a name"
        wrong(where, said, "a lower-case letter, then up to 62 of a-z 0-9 _ -", "PS529")
    return value
