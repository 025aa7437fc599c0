"""Conditions that are SQL functions, and the instances that signals belong to: what both need to know before a decision.

A function is asked by whoever can (`ask`); its verdicts are answers like those of predicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pgsig.condition import Leaf
from pgsig.decide.catalog import CompiledRule
from pgsig.decide.match import Answers, Match, is_asked
from pgsig.model import Json, Signal

LONGEST_SUBJECT = 200  # bytes
StateKey = tuple[int, str]  # rule id, instance


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a `met_by` function said."""

    met: bool
    state: Json


def custom_key(rule: CompiledRule, leaf: Leaf, subject: str) -> str:
    """Under which name the verdict on a signal is among the answers."""
    return f"met_by {rule.rule.id} {leaf.index} {subject}"


def instance_of(rule: CompiledRule, signal: Signal, answers: Answers) -> str:
    """The instance of a rule that a signal belongs to; "" where it names none."""
    if rule.rule.by == "subject":
        return signal.subject
    if rule.rule.by == "none":
        return ""
    return _subject(str(answers.get((signal.id, rule.rule.by)) or ""))


def _subject(text: str) -> str:
    """What is found at a path, as a subject: runs of the instance emit signals about it, and a subject has at most 200 bytes."""
    if len(text.encode()) <= LONGEST_SUBJECT:
        return text
    return f"{text[:40]}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def ask_functions(
    matches: Iterable[Match],
    states: Mapping[StateKey, Json],
    answers: Answers,
    ask: Callable[[str, Signal, Json], Verdict | str],
) -> dict[tuple[int, str], object]:
    """The verdicts on every match of a rule with such conditions, one signal after the other: each is given what the function
    remembered of the one before. A signal without subject is put to the instance without subject alone.

    ask: (function, signal, what it remembers) → its verdict, or the error that it made.
    """
    verdicts: dict[tuple[int, str], object] = {}
    memory: dict[tuple[StateKey, int], Json] = {}
    for found in matches:
        if (rule := found.rule) is None or not rule.custom:
            continue
        subject = instance_of(rule, found.signal, answers)
        key = (rule.rule.id, subject)
        for leaf in found.hits:
            if not isinstance(leaf, Leaf) or leaf.met_by is None or not is_asked(leaf, found.signal, answers):
                continue
            before = (states.get(key) or {}).get("custom", {}).get(str(leaf.index))
            verdict = ask(leaf.met_by, found.signal, memory.get((key, leaf.index), before))
            verdicts[found.signal.id, custom_key(rule, leaf, subject)] = verdict
            if isinstance(verdict, Verdict):
                memory[key, leaf.index] = verdict.state
    return verdicts
