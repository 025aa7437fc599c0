"""A whole definition: checked, with every problem at once, and brought into the canonical form for Postgres.

    {"workflow": …, "namespace"?: …, "description"?: …, "operators": {name: OPERATOR}}
    OPERATOR: {"batch" | "streaming": {…}, "description"?: …, "order"?: [actions],
               "start"?, "stop"?, "restart"?, "reload"?: condition or list of conditions}

One condition stands as an object, several as a list. Beside a condition's form stand the options of its rule:
`by`, `max`, `then`, `shadow` (see `options`). Rules count in the order in which an operator declares them; as
Postgres does not keep the order of keys, the canonical form names the actions in `order` where there are several.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgsig import condition
from pgsig.definition import check, loops, never, options, reading, spec
from pgsig.definition.check import PlacedRule
from pgsig.definition.reading import Source, escape
from pgsig.definition.values import NAME, Wrong, problems_of
from pgsig.errors import InvalidInput, Problem
from pgsig.model import Action, Json, Kind

ACTIONS = ("start", "stop", "restart", "reload")
ABOUT = "description"
MOST_OPERATORS = 1000
MOST_RULES = 100  # of one operator


@dataclass(frozen=True)
class RuleDefinition:
    """name: its action and, from the second of an action on, its number: start, start.2.

    options: `max`, `then` and `shadow`, those that are said. digest: of what it says, that is without its name.
    """

    name: str
    action: Action
    condition: Json
    by: str
    digest: str
    options: dict[str, Any] = field(default_factory=dict)


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

    document: its canonical JSON. paths, functions: the SQL/JSON paths and SQL functions in it, which only Postgres can check.
    """

    namespace: str
    workflow: str
    operators: tuple[OperatorDefinition, ...]
    document: dict[str, Any]
    digest: str
    paths: tuple[check.PathUse, ...] = ()
    functions: tuple[check.FunctionUse, ...] = ()
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
    wrong = problems_of(problems)
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
    read: list[PlacedRule] = []
    canonical["operators"] = {}
    for name, body in given.items():
        where = f"/operators/{escape(name)}"
        _name(name, where, "an operator", wrong)
        operator, kept = _operator(str(workflow), name, body, where, wrong, problems, read)
        operators.append(operator)
        canonical["operators"][name] = kept
    check.references(str(workflow), given, wrong)
    never.check(read, wrong)
    loops.check(str(workflow), read, wrong)
    if problems:
        return None
    return Definition(
        namespace,
        str(workflow),
        tuple(operators),
        canonical,
        condition.digest(canonical),
        tuple(check.paths(given)),
        tuple(check.functions(given)),
        source,
    )


def _operator(
    workflow: str, name: str, body: Json, where: str, wrong: Wrong, problems: list[Problem], read: list[PlacedRule]
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
            tree, by, said = options.split(given, action, place, wrong)
            node, found = condition.parse(tree, operator=f"{workflow}.{name}", where=place)
            problems.extend(found)
            if node is None:
                continue
            read.append(PlacedRule(name, action, node, by, said, place))
            check.tick_params(node, kept.get(kind.value, {}).get("accepts"), place, wrong)
            form = condition.dump(node)
            forms.append({**form, **({} if by == "subject" else {"by": by}), **said})
            digest = condition.digest([action.upper(), form, by, *([said] if said else [])])
            if any(rule.digest == digest for rule in rules):
                wrong(place, f"says the same as another {action} of this operator", "keep one", "PS529")
            title = f"{action}.{i + 1}" if i else action
            rules.append(RuleDefinition(title, Action(action.upper()), form, by, digest, said))
            triggers |= {
                leaf.name: TriggerDefinition(leaf.name, leaf.spec)
                for leaf in condition.leaves(node)
                if isinstance(leaf, condition.Tick)
            }
        kept[action] = forms if len(forms) != 1 else forms[0]
    if len(order) > 1:
        kept["order"] = order
    return OperatorDefinition(name, kind, kept.get(kind.value, {}), tuple(rules), tuple(triggers.values())), kept


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
    if not isinstance(value, str) or not NAME.fullmatch(value):
        said = f'"{value}" does not name {what}' if value is not None else f"{what} needs a name"
        wrong(where, said, "a lower-case letter, then up to 62 of a-z 0-9 _ -", "PS529")
    return value
