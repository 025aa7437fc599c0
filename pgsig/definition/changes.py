"""What an apply changes, operator by operator and rule by rule.

Pure: the difference of a definition and what is in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pgsig.definition.document import Definition, OperatorDefinition, RuleDefinition
from pgsig.model import Json


@dataclass(frozen=True)
class KnownOperator:
    """An operator as it is stored.

    rules: objects with id, name, action, condition, by, options and digest; those in force.
    """

    id: int
    name: str
    kind: str
    spec: Mapping[str, Any]
    removed: bool = False
    rules: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class RuleChange:
    """kept: with its state, under a name that may be new.

    new: sees what commits from now on. removed: with its state.
    """

    change: Literal["kept", "new", "removed"]
    name: str
    action: str
    condition: Json
    by: str
    options: Mapping[str, Any]
    id: int | None = None


@dataclass(frozen=True)
class OperatorChange:
    """fields: those of its spec that differ, each with the value before and after; None where there is
    none.
    """

    change: Literal["added", "changed", "removed", "unchanged"]
    name: str
    kind: str
    fields: Mapping[str, tuple[Json, Json]] = field(default_factory=dict)
    rules: tuple[RuleChange, ...] = ()
    autostart: bool = False


@dataclass(frozen=True)
class Changes:
    """before: the version in force, 0 if there is none. same: the definition is what is in force already."""

    namespace: str
    workflow: str
    before: int
    same: bool
    operators: tuple[OperatorChange, ...]

    @property
    def any(self) -> bool:
        """Whether an apply would make a new version."""
        return not self.same

    def as_dict(self) -> dict[str, Any]:
        """The changes for machines."""
        return {
            "namespace": self.namespace,
            "workflow": self.workflow,
            "before": self.before,
            "same": self.same,
            "operators": [
                {
                    "change": item.change,
                    "name": item.name,
                    "kind": item.kind,
                    "autostart": item.autostart,
                    "fields": {name: {"before": old, "after": new} for name, (old, new) in item.fields.items()},
                    "rules": [
                        {
                            "change": rule.change,
                            "name": rule.name,
                            "action": rule.action,
                            "condition": rule.condition,
                            "by": rule.by,
                            "options": dict(rule.options),
                        }
                        for rule in item.rules
                    ],
                }
                for item in self.operators
            ],
        }


def compare(definition: Definition, known: Mapping[str, KnownOperator], *, before: int, digest: str) -> Changes:
    """What it takes to get from the operators that are known to the definition."""
    found = [_operator(operator, known.get(operator.name)) for operator in definition.operators]
    wanted = {operator.name for operator in definition.operators}
    found += [
        OperatorChange("removed", old.name, old.kind, rules=tuple(_removed(rule) for rule in old.rules))
        for old in known.values()
        if old.name not in wanted and not old.removed
    ]
    same = digest == definition.digest
    return Changes(definition.namespace, definition.workflow, before, same, tuple(found))


def _operator(new: OperatorDefinition, old: KnownOperator | None) -> OperatorChange:
    if old is None or old.removed:
        rules = tuple(_new(rule) for rule in new.rules)
        return OperatorChange("added", new.name, new.kind, rules=rules, autostart=new.autostart)
    left = {rule["digest"]: rule for rule in old.rules}
    rules = tuple(_kept(rule, left.pop(rule.digest)) if rule.digest in left else _new(rule) for rule in new.rules)
    rules += tuple(_removed(rule) for rule in left.values())
    fields = {
        name: (old.spec.get(name), new.spec.get(name))
        for name in sorted({*old.spec, *new.spec})
        if old.spec.get(name) != new.spec.get(name)
    }
    if old.kind != new.kind:
        fields = {"kind": (old.kind, str(new.kind)), **fields}
    moved = [rule.digest for rule in new.rules] != [rule["digest"] for rule in old.rules]
    starts = new.autostart and not old.spec.get("autostart")
    return OperatorChange("changed" if fields or moved else "unchanged", new.name, new.kind, fields, rules, starts)


def _new(rule: RuleDefinition) -> RuleChange:
    return RuleChange("new", rule.name, rule.action, rule.condition, rule.by, rule.options)


def _kept(rule: RuleDefinition, old: Mapping[str, Any]) -> RuleChange:
    return RuleChange("kept", rule.name, rule.action, rule.condition, rule.by, rule.options, old["id"])


def _removed(old: Mapping[str, Any]) -> RuleChange:
    options = old.get("options", {})
    return RuleChange("removed", old["name"], old["action"], old["condition"], old["by"], options, old["id"])
