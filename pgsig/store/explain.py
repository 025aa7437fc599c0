"""WHY: what each rule of an operator waits for, what it has, what it did last, and the verdict; and what became of one signal.

The answer about an operator is made by the database (`sql/api/60_why.sql` to `62_why.sql`), so that `SELECT pgsig.why(…)`, the
command, the API and the page cannot differ. Here are its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from pgsig.errors import NotFound
from pgsig.store.database import Connection, translated
from pgsig.store.reading import Row, row, rows


class Verdict(StrEnum):
    """The closed list of verdicts on a rule, or on an operator as a whole. The sentence of an answer begins with one of these words."""

    STARTED = "started"  # its last firing ordered a run, which has begun or is over
    STOPPED = "stopped"  # its last firing stopped what lived
    RELOADED = "reloaded"  # its last firing handed signals to a live run
    QUEUED = "queued"  # a run was ordered and waits: behind another one, for a free place, or for its next attempt
    NO_RUNNER = "no_runner"  # a run was ordered, and no living runner serves its pool
    ALREADY_RUNNING = "already_running"  # its last firing wanted what was there
    ALREADY_STOPPED = "already_stopped"
    NOT_RUNNING = "not_running"  # a RELOAD found nothing alive
    MERGED = "merged"  # its last firing's signals went to a run that waited
    SKIPPED = "skipped"  # its last firing found the operator busy, or its queue full
    OUTRANKED = "outranked"  # another rule of the operator fired by the same signal and came first
    LIMITED = "limited"  # it fired more often than its `max` allows
    SHADOW = "shadow"  # it only records what it would do
    WAITING = "waiting"  # it holds a part of what it needs
    DEBOUNCED = "debounced"  # it has what it needs and waits for quiet
    PREDICATE_FALSE = "predicate_false"  # the last signal of a key did not satisfy `eq` or `where`
    PREDICATE_TYPE_ERROR = "predicate_type_error"  # it could not be compared: a text is not a number
    UNCHANGED = "unchanged"  # the value was that before, and the rule looks for a change
    NOT_FOR_IT = "not_for_it"  # the last signal of a key was of another source or subject, or older than the rule
    WINDOW_EXPIRED = "window_expired"  # what it held grew too old, or its window closed
    LATE = "late"  # the last signal belonged to a window that was closed
    QUARANTINED = "quarantined"  # the last signal could not be evaluated
    NOT_EVALUATED = "not_evaluated"  # a signal that fits waits for a worker
    NEVER_MATCHED = "never_matched"  # nothing has come since the rule was made
    PAUSED = "paused"  # the operator is paused; what comes is held, collapsed or dropped
    BY_HAND = "by_hand"  # the newest action was ordered by a person
    NO_RULES = "no_rules"  # the operator has none: it runs when somebody starts it


# What keeps a signal from counting at a leaf, as pgsig_private.why_not says it.
BECAUSE = {
    "older": "it came before the rule was made",
    "source": "it is of another source",
    "subject": "it is about another subject",
    "false": "it does not satisfy the predicate",
    "type": "it cannot be compared, a text is not a number",
    "waits": "no worker has evaluated it yet",
    "fits": "it satisfies, and changed nothing",
}


def why(connection: Connection, operator: str, subject: str = "", namespace: str = "default") -> dict[str, Any]:
    """Explain one operator (`workflow.operator`) for one subject. Raises NotFound.

    Returns {operator, subject, namespace, desired, observed, paused, verdict, sentence, rules, text}; each rule is {rule, action, verdict,
    sentence, waiting: the tree, missing: what would make it happen, last}. `text` says it all in lines.
    """
    with translated():
        found = row(connection, "why", operator=operator, subject=subject, namespace=namespace)
    answer: dict[str, Any] = found["why"] if found else {}
    return answer


def why_signal(connection: Connection, id: int) -> dict[str, Any]:
    """What a signal did, or why it did nothing. Raises NotFound.

    Returns {id, key, subject, rules: [{workflow, operator, rule, action, verdict, text, subjects, action_id?}], near: keys, text}.
    """
    signal = row(connection, "signal", id=id)
    if signal is None:
        raise NotFound(
            f"there is no signal {id}", code="PS404", where="signal", fix="it may be older than what is kept"
        )
    leaves = rows(connection, "why_signal_rules", id=id)
    ended = rows(connection, "why_signal_outcomes", id=id)
    found = [_fate(rule, leaves, ended) for rule in dict.fromkeys(leaf["rule_id"] for leaf in leaves)]
    near: list[str] = []
    if not found and signal["kind"] == "user":
        known = [item["key"] for item in rows(connection, "why_keys", namespace=signal["namespace"])]
        near = get_close_matches(signal["key"], known, 3, 0.75)
    answer = {"id": id, "key": signal["key"], "subject": signal["subject"], "rules": found, "near": near}
    return {**answer, "text": "\n".join(_lines(answer, signal))}


def _fate(rule: int, leaves: Sequence[Row], ended: Sequence[Row]) -> dict[str, Any]:
    """What one interested rule did with a signal."""
    mine = [leaf for leaf in leaves if leaf["rule_id"] == rule]
    outcomes = [item for item in ended if item["rule_id"] == rule]
    waiting = sorted({subject for leaf in mine for subject in leaf["waiting"]})
    first = mine[0]
    fate = {name: first[name] for name in ("workflow", "operator", "rule", "action")}
    fate |= {"action_id": None, "subjects": [], "condition": "; ".join(dict.fromkeys(leaf["text"] for leaf in mine))}
    if outcomes:
        last = outcomes[0]
        fate |= {
            "verdict": last["outcome"],
            "action_id": last["action_id"],
            "subjects": [item["subject"] for item in outcomes],
        }
        by = f"by action {last['action_id']}" if last["action_id"] else last["detail"]
        return {**fate, "text": f"{last['outcome']}{f', {by}' if by else ''}{_about(fate['subjects'])}"}
    if waiting:
        fate |= {"verdict": "waiting", "subjects": waiting}
        return {**fate, "text": f"waited with, until the rest of the condition comes{_about(waiting)}"}
    near = next((leaf["because"] for leaf in mine if leaf["because"] != "fits"), "fits")
    if any(leaf["because"] == "waits" for leaf in mine):
        near = "waits"
    return {**fate, "verdict": near, "text": BECAUSE[near]}


def _about(subjects: Sequence[str]) -> str:
    named = [subject for subject in subjects if subject]
    return f" (for {', '.join(named[:5])}{' and more' if len(named) > 5 else ''})" if named else ""


def _lines(answer: dict[str, Any], signal: Row) -> list[str]:
    about = f" about {answer['subject']}" if answer["subject"] else ""
    lines = [f"signal {answer['id']}: {answer['key']}{about} = {signal['value'][:100]}"]
    for rule in answer["rules"]:
        lines.append(f"  {rule['workflow']}.{rule['operator']}, {rule['rule']} → {rule['action']}: {rule['text']}")
        lines.append(f"    {rule['condition']}")
    if not answer["rules"]:
        lines.append("  no rule is interested in this key")
    if answer["near"]:
        lines.append(f"  did you mean {' or '.join(answer['near'])}?")
    return lines
