"""WHY: what each rule of an operator waits for, what it has, and what it did last. The same value serves CLI, API and pages."""

from __future__ import annotations

from typing import Any

from psycopg.rows import dict_row

from pgsig.condition import parse
from pgsig.decide.advance import levels_of
from pgsig.decide.explain import explain, render
from pgsig.decide.find import View
from pgsig.decide.state import RuleState
from pgsig.errors import NotFound
from pgsig.store.database import Connection, query


def why(connection: Connection, operator: str, subject: str = "", namespace: str = "default") -> dict[str, Any]:
    """Explain one operator (`workflow.operator`) for one subject. Raises NotFound.

    Returns {operator, subject, desired, observed, rules: [{rule, action, condition tree, last}], text}; `text` says it all in lines.
    """
    given = {"operator": operator, "subject": subject, "namespace": namespace}
    with connection.cursor(row_factory=dict_row) as cursor:
        known = cursor.execute(
            "SELECT 1 FROM pgsig.operators WHERE namespace = %(namespace)s AND workflow || '.' || operator = %(operator)s LIMIT 1",
            given,
        ).fetchone()
        if known is None:
            raise NotFound(
                f'there is no operator "{operator}" in namespace "{namespace}"', code="PS201", fix="pgsig ps lists them"
            )
        instance = cursor.execute(query("why_instance"), given).fetchone() or {
            "desired": "stopped",
            "observed": "never_run",
        }
        last = {row["rule_id"]: row for row in cursor.execute(query("why_last_actions"), given).fetchall()}
        rows = cursor.execute(query("why_rules"), given).fetchall()
    rules: dict[int, dict[str, Any]] = {}
    for row in rows:
        entry = rules.setdefault(
            row["id"],
            {
                "name": row["name"],
                "action": row["action"],
                "condition": row["condition"],
                "path": row["path"],
                "states": {},
            },
        )
        if row["body"] is not None:
            entry["states"][row["subject"]] = RuleState.from_json(row["body"])
    document: dict[str, Any] = {
        "operator": operator,
        "subject": subject,
        "namespace": namespace,
        **instance,
        "rules": [],
    }
    about = f" for {subject}" if subject else ""
    lines = [f"{operator}{about}: wanted {instance['desired']}, seen {instance['observed']}"]
    if not rules:
        lines.append("  it has no rules: it runs when somebody starts it")
    for rule_id, entry in rules.items():
        root, problems = parse(entry["condition"], operator=entry["path"])
        if root is None:
            raise ValueError(f"rule {rule_id} cannot be read: {problems[0]}")
        own = entry["states"].get(subject) or RuleState()
        shared = entry["states"].get("") or RuleState()
        tree = explain(root, View(own.pending, levels_of(own, shared), own.clock))
        done = last.get(rule_id)
        document["rules"].append(
            {"rule": entry["name"], "action": entry["action"], "waiting": tree, "last": _plain(done)}
        )
        lines.append(f"  {entry['name']} → {entry['action']} when")
        lines += [f"    {line}" for line in render(tree)]
        lines.append(f"    last: {_told(done)}")
    if by_hand := last.get(0):
        lines.append(
            f"  by hand: {by_hand['action']}, {by_hand['result']}, at {by_hand['recorded_at']:%Y-%m-%d %H:%M:%S %Z}"
        )
        document["by_hand"] = _plain(by_hand)
    document["text"] = "\n".join(lines)
    return document


def _told(done: dict[str, Any] | None) -> str:
    if done is None:
        return "never"
    evidence = ", ".join(map(str, done["evidence"]))
    return f"action {done['id']} at {done['recorded_at']:%Y-%m-%d %H:%M:%S %Z}, {done['result']}, by signals {evidence}"


def _plain(row: dict[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {**row, "recorded_at": row["recorded_at"].isoformat()}
