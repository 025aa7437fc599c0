"""DECIDE: what one signal costs in the pure core, without a database: deciding by the size of a condition, matching by the number of
rules, and both for signals that come one by one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pgsig.decide.catalog import Catalog, build
from pgsig.decide.decide import decide
from pgsig.decide.decision import Past, needs
from pgsig.decide.match import match
from pgsig.engine import settle_memory
from pgsig.model import Action, Kind, Operator, Rule, Signal
from tests.bench.report import Report, paired

TURNS = 5  # of a round
AT = datetime(2026, 1, 1, tzinfo=UTC)


def measure(report: Report, *, rounds: int, signals: int, most_rules: int) -> None:
    for terms in (1, 10):
        report.figure(
            f"decide: a condition of {terms} terms", [_decide(terms, signals) for _ in range(rounds)], "µs/signal"
        )
    for what, how, number in (("match", _together, signals), ("one by one", _one_by_one, signals // 10)):
        for kind in ("exact", "wildcard"):
            few, many = _by_rules(kind, (10, most_rules), number, rounds, how)
            report.figure(f"{what}: {kind}, 10 rules", few, "µs/signal")
            report.figure(f"{what}: {kind}, {most_rules:,} rules", many, "µs/signal")
            report.ratio(f"{what}, {kind}: {most_rules:,} rules / 10 rules", paired(many, few), "≤ 1.2")


def _operator(number: int, condition: Any) -> Operator:
    rule = Rule(number, number, "start.0", Action.START, 0, condition)
    return Operator(number, "default", "w", f"o{number}", Kind.STREAMING, 1, {}, (rule,))


def _signals(keys: list[str], many: int) -> list[Signal]:
    return [
        Signal(i, "default", keys[i % len(keys)], f"s{i // len(keys) % 50}", "1", "me", AT, i)
        for i in range(1, many + 1)
    ]


def _decide(terms: int, many: int) -> float:
    keys = [f"key.k{i}" for i in range(terms)]
    leaves: list[Any] = [{"signal": key} for key in keys]
    catalog = build([_operator(1, leaves[0] if terms == 1 else {"all": leaves})])
    every = _signals(keys, many)
    batches = [every[i : i + 500] for i in range(0, many, 500)]
    states: dict[Any, Any] = {}
    begin = time.process_time()
    for batch in batches:
        found = match(catalog, batch)
        wanted = needs(found, {})
        decision = decide(catalog, found, Past({key: states[key] for key in wanted.states if key in states}), {})
        for key, body in decision.states.items():
            states[key] = body
            if body is None:
                del states[key]
    return (time.process_time() - begin) / many * 1e6


def _by_rules(
    kind: str, sizes: tuple[int, int], many: int, rounds: int, how: Callable[[Catalog, list[Signal]], int]
) -> tuple[list[float], ...]:
    """Of each number of rules, the rounds' least: what disturbs a turn only makes it longer. They take turns, one right after the other."""
    # Signals meet the same one rule of ten, whatever number of others there is.
    pattern = "team{}.*.done" if kind == "wildcard" else "team{}.job.done"
    catalogs = [build([_operator(i + 1, {"signal": pattern.format(i)}) for i in range(rules)]) for rules in sizes]
    batch = _signals([f"team{i}.job.done" for i in range(10)], many)
    settle_memory()  # as the engine does
    costs: tuple[list[float], ...] = tuple([] for _ in sizes)
    gc.disable()
    try:
        for number in range(rounds + 1):
            turns = [[_clocked(how, catalog, batch) for catalog in catalogs] for _ in range(TURNS)]
            for into, taken in zip(costs, zip(*turns, strict=True), strict=True):
                if number:  # the first round warms up
                    into.append(min(taken) / many * 1e6)
    finally:
        gc.enable()
    return costs


def _clocked(how: Callable[[Catalog, list[Signal]], int], catalog: Catalog, batch: list[Signal]) -> float:
    begin = time.process_time()
    found = how(catalog, batch)
    took = time.process_time() - begin
    assert found == len(batch)
    return took


def _together(catalog: Catalog, batch: list[Signal]) -> int:
    return len(match(catalog, batch))


def _one_by_one(catalog: Catalog, batch: list[Signal]) -> int:
    """As an engine does it where each comes alone: whatever a step does that grows with the rules, each signal pays."""
    orders = 0
    for signal in batch:
        found = match(catalog, [signal])
        needs(found, {})
        orders += len(decide(catalog, found, Past({}), {}).orders)
    return orders
