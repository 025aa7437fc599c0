"""The way of a signal, from the log to a recorded action: one transaction of a worker, read from top to bottom.

    take ─► match ─► ask ─► decide ─► lock ─► plan ─► record

Of a signal that comes alone, take locks at once what one of its key acted on of late. What only says that a run is starting, and no
rule asks for, is no company. What was taken, what the rules remember, and what was ordered commit together or not at all. Killing a
worker anywhere loses nothing and repeats nothing: the cursor moves in the same transaction.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgsig.decide.catalog import Catalog, build
from pgsig.decide.custom import ask_functions
from pgsig.decide.decide import decide
from pgsig.decide.decision import Decision, Fate, Past, needs
from pgsig.decide.match import STARTS, Match, is_resume, is_start, match, questions
from pgsig.decide.plan import Effects, Order, carry_out, most_runs
from pgsig.failpoints import reached
from pgsig.model import Json, Operator, Outcome
from pgsig.store import definitions, signals
from pgsig.store.database import Connection
from pgsig.store.wire import wire

FEW = 8  # signals that come together, and keys that are remembered
PART = 250  # actions that are written at once
TRUST = 2  # takes of one lane before all are looked at again


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction did. taken: signals evaluated. actions: actions recorded. last_id: position of the last signal, 0 for none.
    elsewhere: there may be more in lanes that were not looked at."""

    taken: int = 0
    actions: int = 0
    last_id: int = 0
    elsewhere: bool = False


class Engine:
    """Evaluates signals over one connection. The only thing it keeps between transactions is a copy of the definitions."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.catalog: Catalog | None = None
        self.at_work: list[int] = []  # positions of the signals of the last step, also where it failed
        # What came alone of late and led to orders: see `signals.take`.
        self.expected: dict[str, Sequence[Operator]] = {}
        self.lane: int | None = None  # from where
        self.trust = 0  # takes that may look there alone, since no lane had anything

    def step(
        self, limit: int = 500, *, suspects: Mapping[int, str] | None = None, poison: Mapping[int, str] | None = None
    ) -> Step:
        """Evaluate up to `limit` signals.

        suspects: positions of signals whose evaluation failed, with the error: a rule that fails at one again puts it aside, the
        others go on. Not to be used with a limit above 1. poison: those that are put aside for every interested rule.
        """
        self.at_work = []
        with wire(self.connection).transaction("take", "lock_instances", "record"):
            taken, elsewhere = self.take(limit)
            if not taken.signals:
                return Step()
            self.at_work = [signal.id for signal in taken.signals]
            reached("engine.taken")
            catalog = self.definitions(taken.revisions)
            matches = match(catalog, taken.signals)
            actions = self.evaluate(catalog, matches, suspects or {}, poison or {}, taken.locked) if matches else 0
            reached("engine.recorded")
        reached("engine.committed")
        self.expect(catalog, taken, acted=actions > 0)
        return Step(len(taken.signals), actions, taken.signals[-1].id, elsewhere)

    def take(self, limit: int) -> tuple[signals.Taken, bool]:
        """Signals, and whether only one lane was looked at. Where all lanes were empty a moment ago, what comes alone is looked for where
        such a signal came of late, before it is looked for everywhere."""
        look = partial(signals.take, self.connection, limit, self.expected, idle=self.idle)
        if self.trust and self.expected and self.lane is not None:
            self.trust -= 1
            taken = look(lane=self.lane)
            if taken.signals:
                return taken, True
        taken = look()
        self.trust = 0 if taken.signals else TRUST
        return taken, False

    @property
    def heeds_starts(self) -> bool:
        """Whether a rule may ask for the signals of runs that are starting, as far as is known."""
        return self.catalog is None or self.catalog.heeds_starts

    @property
    def idle(self) -> str:
        """What leads to nothing, as LIKE wants it."""
        return "" if self.heeds_starts else STARTS

    def expect(self, catalog: Catalog, taken: signals.Taken, acted: bool) -> None:
        """Where few signals come, one that comes alone is probably of a key that did so of late. Where many come together nothing is
        expected: a batch locks what it needs at once anyway."""
        if len(taken.signals) > FEW:
            self.expected.clear()
            return
        heeded = [signal for signal in taken.signals if catalog.heeds_starts or not is_start(signal)]
        if acted and len(heeded) == 1:
            name = f"{heeded[0].namespace} {heeded[0].key}"
            self.expected.pop(name, None)
            self.lane = next(iter(taken.revisions)) if len(taken.revisions) == 1 else None
            if operators := catalog.expected(heeded[0].namespace, heeded[0].key):
                self.expected[name] = operators
                if len(self.expected) > FEW:
                    del self.expected[next(iter(self.expected))]

    def evaluate(
        self, catalog: Catalog, matches: Sequence[Match], suspects: Mapping[int, str], poison: Mapping[int, str],
        locked: signals.Locked | None = None,
    ) -> int:  # fmt: skip
        """Decide and record. locked: see `signals.take`. Returns the number of actions."""
        sound = [found for found in matches if found.signal.id not in poison] if poison else matches
        held = self.held(catalog, sound)
        answers = signals.ask(self.connection, questions([*held, *sound]))
        states, live = signals.load(self.connection, needs([*held, *sound], answers))
        if catalog.custom and any(found.rule is not None and found.rule.custom for found in (*held, *sound)):
            ask = partial(signals.ask_function, self.connection)
            answers |= ask_functions([*held, *sound], states, answers, ask)
        decision = decide(catalog, sound, Past(states, live, held), answers, suspects)
        decision.fates += put_aside(matches, poison)
        reached("engine.decided")
        self.record(decision, locked)
        return len(decision.orders)

    def held(self, catalog: Catalog, matches: Sequence[Match]) -> list[Match]:
        """What waits for the resume of operators that are resumed in this batch, matched again."""
        resumed = {found.operator.id for found in matches if found.operator is not None and is_resume(found.signal)}
        again = []
        for rule_id, signal in signals.held(self.connection, sorted(resumed)):
            again += [
                found for found in match(catalog, [signal]) if found.rule is not None and found.rule.rule.id == rule_id
            ]
        return again

    def record(self, decision: Decision, already: signals.Locked | None = None) -> None:
        """Lock, plan and write. The rows of a part travel, and are written, while the next part is planned."""
        orders = decision.orders
        keys = [(order.operator.id, order.subject) for order in orders]
        instances, action_ids, numbers = signals.lock(
            self.connection, keys, sum(most_runs(order.operator) for order in orders), already
        )
        reached("engine.locked")
        run_ids = iter(numbers)
        outcomes, consumed = _outcomes(decision.fates, orders, action_ids)
        document = rest(decision, outcomes)
        for begin in range(0, max(1, len(orders)), PART):
            effects = Effects()
            for number in range(begin, min(begin + PART, len(orders))):
                carry_out(
                    orders[number], instances[keys[number]], effects, action_ids[number], run_ids, consumed[number]
                )
            signals.record(self.connection, document | effects.document())
            document = {}

    def fire_timers(self) -> float | None:
        """Let what fell due become signals. Returns the seconds until the next timer, None when none is set."""
        reached("engine.timers")
        return signals.fire_timers(self.connection)

    def prepare(self) -> None:
        """Read the definitions before a lane is held: with very many that takes seconds. What cannot be read is told by the steps."""
        with suppress(ValueError):
            self.definitions({})

    def definitions(self, revisions: dict[int, int]) -> Catalog:
        """The definitions in force. An apply takes the lane's lock too, so what is read here cannot change before the commit."""
        catalog = self.catalog
        if catalog is not None and all(catalog.revisions.get(lane) == revision for lane, revision in revisions.items()):
            return catalog
        self.expected.clear()  # the rules may be others
        self.catalog = None  # until it is whole again
        known = definitions.catalog_revisions(self.connection)
        if catalog is None:
            catalog = build(definitions.catalog(self.connection))
        else:
            catalog.replace(*definitions.changed(self.connection, catalog.revisions))
        catalog.revisions, catalog.depth_limit = known, signals.depth_limit(self.connection)
        settle_memory()
        self.catalog = catalog
        return catalog


def settle_memory() -> None:
    """Keep the garbage collector from walking the definitions again and again: with 100,000 rules that would double the cost of a signal.

    They hold no cycles, so the ones of before are freed all the same.
    """
    gc.collect()
    gc.freeze()


def put_aside(matches: Sequence[Match], poison: Mapping[int, str]) -> list[Fate]:
    """One quarantined outcome for each rule that was interested in a signal that could not be evaluated."""
    return [
        Fate(found.signal.id, found.rule.rule.id, "", Outcome.QUARANTINED, None, poison[found.signal.id][:500])
        for found in matches
        if found.rule is not None and found.signal.id in poison
    ]


def rest(decision: Decision, outcomes: Sequence[Json]) -> dict[str, Any]:
    """What of a decision is recorded beside its orders, as `pgsig_private.record` takes it."""
    rows: dict[str, Any] = {
        "outcomes": outcomes,
        "states": [{"rule_id": rule, "subject": subject, "body": body} for (rule, subject), body in decision.states.items()],
        "pauses": [{"operator_id": operator, "mode": mode} for operator, mode in decision.pauses.items()],
        "released": [{"signal_id": signal, "rule_id": rule} for signal, rule in decision.released],
        "timers": [{"rule_id": rule, "subject": subject, "due": due} for (rule, subject), due in decision.timers.items()],
    }  # fmt: skip
    return {name: value for name, value in rows.items() if value}


def _outcomes(
    fates: Sequence[Fate], orders: Sequence[Order], action_ids: Sequence[int]
) -> tuple[list[Json], list[bool]]:
    """The rows of fates, and for each order whether the signal that completed its condition was consumed by it: that fate needs no row."""
    rows, consumed = [], [False] * len(orders)
    for fate in fates:
        if (number := fate.order) is not None:
            order = orders[number]
            if (
                fate.outcome is Outcome.CONSUMED and fate.detail is None and fate.signal_id == order.cause_id
                and fate.rule_id == order.rule_id and fate.subject == order.subject
            ):  # fmt: skip
                consumed[number] = True
                continue
        rows.append({
            "signal_id": fate.signal_id, "rule_id": fate.rule_id, "subject": fate.subject, "outcome": fate.outcome,
            "action_id": None if number is None else action_ids[number], "detail": fate.detail,
        })  # fmt: skip
    return rows, consumed
