"""The way of a signal, from the log to a recorded action: one transaction of a worker, read from top to bottom.

    take ─► match ─► ask ─► decide ─► lock ─► plan ─► record

What was taken, what the rules remember, and what was ordered commit together or not at all. Killing a worker anywhere loses nothing and
repeats nothing: the cursor moves in the same transaction.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pgsig.decide.catalog import Catalog, build
from pgsig.decide.custom import ask_functions
from pgsig.decide.decide import decide
from pgsig.decide.decision import Decision, Fate, Past, needs
from pgsig.decide.match import Match, is_resume, match, questions
from pgsig.decide.plan import Effects, carry_out, runs_wanted
from pgsig.failpoints import reached
from pgsig.model import Json, Outcome
from pgsig.store import definitions, signals
from pgsig.store.database import Connection, one_way


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction did. taken: signals evaluated. actions: actions recorded. last_id: position of the last signal, 0 for none."""

    taken: int = 0
    actions: int = 0
    last_id: int = 0


class Engine:
    """Evaluates signals over one connection. The only thing it keeps between transactions is a copy of the definitions."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.catalog: Catalog | None = None
        self.at_work: list[int] = []  # positions of the signals of the last step, also where it failed

    def step(
        self, limit: int = 500, *, suspects: Mapping[int, str] | None = None, poison: Mapping[int, str] | None = None
    ) -> Step:
        """Evaluate up to `limit` signals.

        suspects: positions of signals whose evaluation failed, with the error: a rule that fails at one again puts it aside, the
        others go on. Not to be used with a limit above 1. poison: those that are put aside for every interested rule.
        """
        self.at_work = []
        with one_way(self.connection):
            taken = signals.take(self.connection, limit)
            if not taken.signals:
                return Step()
            self.at_work = [signal.id for signal in taken.signals]
            reached("engine.taken")
            catalog = self.definitions(taken.revisions)
            matches = match(catalog, taken.signals)
            actions = self.evaluate(catalog, matches, suspects or {}, poison or {}) if matches else 0
            reached("engine.recorded")
        reached("engine.committed")
        return Step(len(taken.signals), actions, taken.signals[-1].id)

    def evaluate(
        self, catalog: Catalog, matches: Sequence[Match], suspects: Mapping[int, str], poison: Mapping[int, str]
    ) -> int:
        """Decide and record. Returns the number of actions."""
        sound = [found for found in matches if found.signal.id not in poison]
        held = self.held(catalog, sound)
        answers = signals.ask(self.connection, questions([*held, *sound]))
        states, live = signals.load(self.connection, needs([*held, *sound], answers))
        if any(found.rule is not None and found.rule.custom for found in (*held, *sound)):
            ask = partial(signals.ask_function, self.connection)
            answers |= ask_functions([*held, *sound], states, answers, ask)
        decision = decide(catalog, sound, Past(states, live, held), answers, suspects)
        decision.fates += put_aside(matches, poison)
        reached("engine.decided")
        self.record(decision)
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

    def record(self, decision: Decision) -> None:
        effects = Effects()
        action_ids: list[int] = []
        if decision.orders:
            keys = [(order.operator.id, order.subject) for order in decision.orders]
            wanted = sum(runs_wanted(order) for order in decision.orders)
            instances, action_ids, numbers = signals.lock(self.connection, keys, wanted)
            reached("engine.locked")
            run_ids = iter(numbers)
            for order, action_id, key in zip(decision.orders, action_ids, keys, strict=False):
                carry_out(order, instances[key], effects, action_id, run_ids)
        document = effects.document()
        if outcomes := [
            row for fate in decision.fates if (row := _outcome(fate, effects.actions, action_ids)) is not None
        ]:
            document["outcomes"] = outcomes
        if decision.states:
            document["states"] = [
                {"rule_id": rule, "subject": subject, "body": body} for (rule, subject), body in decision.states.items()
            ]
        if decision.pauses:
            document["pauses"] = [{"operator_id": operator, "mode": mode} for operator, mode in decision.pauses.items()]
        if decision.released:
            document["released"] = [{"signal_id": signal, "rule_id": rule} for signal, rule in decision.released]
        if decision.timers:
            document["timers"] = [
                {"rule_id": rule, "subject": subject, "due": due} for (rule, subject), due in decision.timers.items()
            ]
        signals.record(self.connection, document)

    def fire_timers(self) -> float | None:
        """Let what fell due become signals. Returns the seconds until the next timer, None when none is set."""
        reached("engine.timers")
        return signals.fire_timers(self.connection)

    def definitions(self, revisions: dict[int, int]) -> Catalog:
        """The definitions in force. An apply takes the lane's lock too, so what is read here cannot change before the commit."""
        if self.catalog is None or any(
            self.catalog.revisions.get(lane) != revision for lane, revision in revisions.items()
        ):
            known = definitions.catalog_revisions(self.connection)
            self.catalog = build(definitions.catalog(self.connection), known, signals.depth_limit(self.connection))
            settle_memory()
        return self.catalog


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


def _outcome(fate: Fate, actions: Sequence[Json], action_ids: Sequence[int]) -> Json | None:
    """The row of a fate. None where it goes with its action's: the signal that completed the condition was consumed by it."""
    action_id = None
    if fate.order is not None:
        action = actions[fate.order]
        if (
            fate.outcome is Outcome.CONSUMED
            and fate.detail is None
            and fate.signal_id == action["cause_id"]
            and ((fate.rule_id, fate.subject) == (action["rule_id"], action["subject"]))
        ):
            action["consumed"] = True
            return None
        action_id = action_ids[fate.order]
    return {"signal_id": fate.signal_id, "rule_id": fate.rule_id, "subject": fate.subject, "outcome": fate.outcome,
            "action_id": action_id, "detail": fate.detail}  # fmt: skip
