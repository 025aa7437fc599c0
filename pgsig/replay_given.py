"""Replay of signals that somebody gives, one JSON object a line: what they would lead to, with simulated runs.

    {"key": "model.trained", "value": {"auc": 0.9}, "subject": "m1", "emitted_at": "2026-01-01T00:00:00Z"}

Only `key` is needed; lines of `pgsig tail -o json` fit as they are. Orders by hand are obeyed. Ticks and timers are not read: the clock of
the replay makes its own. State signals end simulated runs where that is asked for, and are passed over otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from pgsig.definition import Definition
from pgsig.errors import InvalidInput, PgsigError, Problem
from pgsig.given import OWN, checked, moment_of
from pgsig.memory import Ask, AskFunction, Consequence, ask_here, no_function
from pgsig.model import FINAL, Signal, State
from pgsig.replay import Line
from pgsig.simulation import Simulation

KNOWN = frozenset(
    {
        "key",
        "value",
        "subject",
        "source",
        "namespace",
        "event_id",
        "emitted_at",
        "at",
        "id",
        "kind",
        "run_id",
        "depth",
        "lane",
        "xid",
    }
)
MOST_PROBLEMS = 100


def check_lines(lines: Iterable[str], name: str) -> int:
    """How many signals there are. Raises InvalidInput with every bad line, by number; only the first hundred are told one by one."""
    problems: list[Problem] = []
    bad = good = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = [Problem(p.code, p.message, f"{name}:{number} {p.where}".strip(), p.fix) for p in _problems(line)]
        good, bad = good + (not found), bad + bool(found)
        if len(problems) < MOST_PROBLEMS:
            problems += found
    if problems:
        more = [Problem("PS574", f"{bad} of {good + bad} lines are bad", name, "nothing was replayed")]
        raise InvalidInput(problems[:MOST_PROBLEMS] + more, subject=name)
    return good


def _problems(line: str) -> list[Problem]:
    def constant(word: str) -> None:
        raise ValueError(f"{word} is not a number that JSON has")

    try:
        given = json.loads(line, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        return [Problem("PS574", f"not JSON: {error}")]
    if not isinstance(given, dict):
        return [Problem("PS574", "a signal is an object with a key")]
    problems = [
        Problem("PS574", f'"{field}" is not a field of a signal', f"/{field}") for field in given.keys() - KNOWN
    ]
    texts = [
        field
        for field in ("key", "subject", "source", "namespace", "event_id")
        if not isinstance(given.get(field) or "", str)
    ]
    problems += [Problem("PS574", f"{field} is a text", f"/{field}") for field in texts]
    try:
        if (at := _at(given)) is not None:
            moment_of(at)
    except (ValueError, TypeError, OverflowError):
        problems.append(Problem("PS574", "not a moment: write 2026-01-01T00:00:00Z", "/emitted_at"))
    if not given.get("key"):
        problems.append(Problem("PS101", "a key is needed", "/key", "for instance model.trained"))
    elif isinstance(given["key"], str):
        try:
            # Whatever pgsig wrote itself is passed over or obeyed: only its form has to be right.
            key = given["key"]
            checked(f"own.{key}" if key.split(".", maxsplit=1)[0] in OWN else key, given.get("value"))
        except InvalidInput as error:
            problems += error.problems
    return problems


def _at(given: dict[str, Any]) -> Any:
    return given.get("emitted_at") or given.get("at")


class GivenReplay:
    """Replays checked lines. now: the time before the first line that tells one. finish: batch runs succeed at once; else they end where
    a line like `run.workflow.operator.succeeded` says so. `passed` counts lines of pgsig's own that were not needed, `elsewhere` those of
    other namespaces."""

    def __init__(
        self, definition: Definition, now: datetime, *,
        finish: bool = True, ask: Ask = ask_here, ask_function: AskFunction = no_function,
    ) -> None:  # fmt: skip
        self.definition = definition
        self.passed = self.elsewhere = self.seen = 0
        self._lines: list[Line] = []
        self._now = now
        self._make = partial(
            Simulation, definition, noted=self._noted, ask=ask, ask_function=ask_function, finish=finish
        )
        self._simulation: Simulation | None = None
        self._ends = not finish

    def lines(self, texts: Iterable[str]) -> Iterator[Line]:
        """Each action, in order."""
        for text in texts:
            if text.strip():
                given = json.loads(text)
                if (given.get("namespace") or "default") != self.definition.namespace:
                    self.elsewhere += 1
                    continue
                self._one(given)
                yield from self._lines
                self._lines.clear()

    def _one(self, given: dict[str, Any]) -> None:
        at = moment_of(_at(given)) if _at(given) else None
        if self._simulation is None:
            self._simulation = self._make(now=at or self._now)
            self._simulation.autostart()
        simulation = self._simulation
        if at is not None:
            simulation.advance_to(at)
        self.seen += 1
        key, value, subject = given["key"], given.get("value"), given.get("subject") or ""
        source = given.get("source") or "given"
        kind, _, path = key.partition(".")
        if kind == "manual":
            if (operator := simulation.memory.by_path.get(path)) is not None:
                simulation.order(operator, value, subject=subject, source=source)
        elif kind == "run":
            self._end(simulation, path, subject, value)
        elif kind in OWN:
            self.passed += 1
        else:
            simulation.emit(key, json.dumps(value, ensure_ascii=False), subject, source, event_id=given.get("event_id"))
        simulation.forget()

    def _end(self, simulation: Simulation, path: str, subject: str, value: Any) -> None:
        path, _, word = path.rpartition(".")
        operator = simulation.memory.by_path.get(path)
        alive = list(simulation.alive(operator.id, subject)) if operator is not None else []
        begun = [run for run in alive if run.state is not State.QUEUED]
        if operator is None:  # of another workflow: a fact like any other
            simulation.emit(f"run.{path}.{word}", json.dumps(value, ensure_ascii=False), subject, "pgsig")
        elif self._ends and word in FINAL and begun:
            simulation.end(begun[0], State(word), result=value)
        else:
            self.passed += 1

    def _noted(self, signal: Signal, result: Consequence | None) -> None:
        if result is None or self._simulation is None:
            return
        rules = self._simulation.memory.catalog.rules
        self._lines += [
            Line(
                "replay", signal.id, signal.key, signal.at, order.operator.name, order.subject,
                rules[order.rule_id].rule.name if order.rule_id else "manual", str(row["action"]), str(row["result"]), order.evidence,
            )
            for order, row in result.acted
        ]  # fmt: skip


def must_name_one(**given: object) -> None:
    """Raise PgsigError PS573 where not exactly one way to say what is replayed was used."""
    if sum(value for value in map(bool, given.values())) != 1:
        raise PgsigError(
            "say what to replay", code="PS573", fix="one of --since 1d, --from ID and/or --to ID, --file signals.jsonl"
        )
