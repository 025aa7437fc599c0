"""The judge finds what it is there to find: each test takes good evidence and spoils one thing in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.soak.checker import judge, walk
from tests.soak.evidence import Action, Evidence, Move, Outcome, Rule, Run, Signal, Step, Told

ITEM, EACH, BOTH, PICKY = 1, 2, 3, 4
NAME = "n.each.s"


def signal(
    number: int, key: str, value: str = "1", *, xid: int | None = None, kind: str = "user", subject: str = "s"
) -> Signal:
    return Signal(number, 0, xid or 100 + number, kind, "n", key, subject, value, f"tag-{number}")


def good() -> Evidence:
    """Two takes: of signals 1 to 3, and of 4 to 6; the transaction of 4 was open at the first. A run of two grants, another of one."""
    signals = [
        signal(1, "load.each"), signal(2, "load.a"), signal(3, "load.picky", "1e4999"), signal(4, "load.a", xid=101),
        signal(5, "load.b", xid=205), signal(6, "tick.soak.ticked", xid=206, kind="tick", subject=""),
    ]  # fmt: skip
    signals = [s._replace(xid=100) if s.id == 1 else s for s in signals]
    versions = {"1": 1, "2": 7, "3": 1, "4": 1, "5": 1}
    return Evidence(
        ledgers={"e0": [
            {"try": "0.1", "signals": [["n", "load.each", "s", "tag-1"], ["n", "load.a", "s", "tag-2"]]}, {"done": "0.1"},
            {"try": "0.2", "signals": [["n", "load.picky", "s", "tag-3"], ["n", "load.a", "s", "tag-4"]]}, {"done": "0.2"},
            {"try": "0.3", "signals": [["n", "load.a", "s", "tag-7"]]}, {"undone": "0.3"},
            {"try": "0.4", "signals": [["n", "load.b", "s", "tag-5"]]}, {"unknown": "0.4"},
        ]},
        first={0: "90:90:"},
        signals=signals,
        steps=[Step(0, 1, "101:200:101", None, None, 200, versions), Step(0, 2, "300:300:", None, None, 300, versions)],
        rules=[
            Rule(EACH, 2, "n", "each", {"signal": "load.each"}),
            Rule(BOTH, 3, "n", "both", {"all": [{"signal": "load.a"}, {"signal": "load.b"}]}),
            Rule(PICKY, 4, "n", "picky", {"signal": "load.picky", "eq": 1}), Rule(5, 5, "n", "ticked", {"every": "3s"}),
        ],
        actions=[
            Action(1, 2, EACH, "s", 1, (1,), 7, 200), Action(2, 3, BOTH, "s", 5, (2, 5), 1, 300), Action(3, 5, 5, "", 6, (6,), 1, 300),
        ],
        outcomes=[
            Outcome(1, EACH, "s", "consumed", 1, 200), Outcome(3, PICKY, "", "quarantined", None, 200),
            Outcome(2, BOTH, "s", "consumed", 2, 300), Outcome(5, BOTH, "s", "consumed", 2, 300), Outcome(6, 5, "", "consumed", 3, 300),
        ],
        pending={(BOTH, "s"): frozenset({4})},
        jobs=[
            Told("start", NAME, 1, 1, 1, 10.0), Told("start", NAME, 1, 3, 2, 20.0), Told("end", NAME, 1, 3, 2, 21.0, 0),
            Told("start", NAME, 2, 1, 1, 22.0), Told("end", NAME, 2, 1, 1, 23.0, 0),
        ],
        beats={(1, 1): 12.0},
        runs=[Run(1, NAME, "succeeded", 3, 2, True), Run(2, NAME, "succeeded", 1, 1, True)],
        moves=[
            Move(1, None, "queued", None, 0, 1), Move(1, "queued", "starting", 0, 1, 1), Move(1, "starting", "running", 1, 1, 1),
            Move(1, "running", "retrying", 1, 2, 2), Move(1, "retrying", "starting", 2, 3, 2), Move(1, "starting", "succeeded", 3, 3, 2),
            Move(2, None, "queued", None, 0, 1), Move(2, "queued", "starting", 0, 1, 1), Move(2, "starting", "succeeded", 1, 1, 1),
        ],
        generations=[(2, "s", 0, 1), (2, "s", 1, 2)],
        ticks=[(1, "2026-01-01 00:00:00+00", 6)],
        wanted={"n.service.s": False}, observed={"n.service.s": "stopped"},
    )  # fmt: skip


def test_good_evidence_is_good() -> None:
    verdict = judge(good())
    assert verdict.findings == []
    assert all(verdict.checked[number] for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15))


def put(listed: list[Any], place: int, **new: object) -> None:
    listed[place] = listed[place]._replace(**new)


Spoil = Callable[[Evidence], object]
CASES: dict[str, tuple[int, str, Spoil]] = {
    "a committed signal that is not in the log": (1, "in the log 0 times", lambda e: e.signals.pop(0)),
    "a signal that is in the log twice": (1, "in the log 2 times", lambda e: e.signals.append(e.signals[0]._replace(id=9))),
    "a signal that was rolled back": (1, "was rolled back", lambda e: e.signals.append(signal(7, "load.c"))),
    "a signal that nobody emitted": (1, "nobody emitted", lambda e: e.signals.append(signal(8, "load.c"))),
    "half a transaction": (1, "has a part", lambda e: (e.ledgers["e0"].pop(1), e.signals.pop(1))),
    "a job's signal that is not there": (1, "of run 1 was", lambda e: e.jobs.append(Told("emitted", NAME, 1, 1, 1, 11.0, 77))),
    "a signal that no take has seen": (1, "never evaluated", lambda e: e.signals.append(signal(10, "load.c", xid=400))),
    "a signal that was skipped by a take": (1, "was never evaluated", lambda e: e.first.__setitem__(0, "101:101:")),
    "a signal without its action": (1, "the signal is lost", lambda e: e.actions.pop(0)),
    "a signal without its outcome": (1, "consumed or not", lambda e: e.outcomes.pop(0)),
    "a signal that waits and was consumed": (1, "wait with", lambda e: e.pending.__setitem__((BOTH, "s"), frozenset({2, 4}))),
    "a signal that is waited with no more": (1, "wait with", lambda e: e.pending.clear()),
    "two actions for one firing": (2, "2 actions of", lambda e: e.actions.append(e.actions[0]._replace(id=9))),
    "an action of its own making": (2, "an action too many", lambda e: e.actions.append(Action(9, 2, EACH, "s", 4, (4,), 7, 300))),
    "an action apart from its outcome": (2, "does not say so", lambda e: put(e.actions, 0, xid=300)),
    "an action of no take": (2, "not written by a transaction", lambda e: put(e.actions, 0, xid=299)),
    "an action that used up the wrong signal": (3, "has evidence", lambda e: put(e.actions, 1, evidence=(4, 5))),
    "a good signal put aside": (4, "put aside or not", lambda e: e.outcomes.append(Outcome(4, BOTH, "", "quarantined", None, 300))),
    "a bad signal that was not": (4, "put aside or not", lambda e: e.outcomes.pop(1)),
    "a job of an old epoch": (5, "began under epoch 2 after 3", lambda e: e.jobs.append(Told("start", NAME, 1, 2, 1, 21.5))),
    "a grant that was executed twice": (5, "began under epoch 3 after 3", lambda e: e.jobs.append(Told("start", NAME, 1, 3, 2, 21.5))),
    "an epoch that nobody granted": (5, "nobody granted", lambda e: e.jobs.append(Told("start", NAME, 2, 9, 1, 24.0))),
    "an end that an old epoch reported": (5, "its job does not say so", lambda e: put(e.jobs, 2, epoch=1)),
    "a job that was refused in its time": (5, "was refused while epoch 3", lambda e: e.jobs.extend([
        Told("refused", NAME, 1, 3, 2, 20.2, "PS402"), Told("emitted", NAME, 1, 3, 2, 20.4, 1)])),
    "an epoch that shrinks": (5, "epoch 2 to 1", lambda e: e.moves.__setitem__(4, Move(1, "retrying", "starting", 2, 1, 2))),
    "two runs at once, by the clock": (6, "before run 1 ended", lambda e: e.beats.__setitem__((1, 1), 20.5)),
    "two runs at once, by the lock": (6, "met", lambda e: e.jobs.append(Told("met", NAME, 2, 1, 1, 22.0, "[1, 3, 99]"))),
    "a due time that was fired twice": (7, "fired 2 times", lambda e: e.ticks.append((1, e.ticks[0][1], 6))),
    "a tick without a signal": (7, "not both", lambda e: e.ticks.append((1, "later", 99))),
    "a run of a dead runner": (8, "its runner is dead", lambda e: e.runs.append(Run(3, "n.sink.s", "running", 1, 1, False))),
    "an action by an old definition": (9, "names version 6", lambda e: put(e.actions, 0, version=6)),
    "a generation that shrinks": (10, "generation", lambda e: e.generations.append((2, "s", 2, 1))),
    "a service that was stopped and lives": (10, "ordered to stop", lambda e: e.alive.__setitem__("n.service.s", (5, 1))),
    "a service that was started and does not": (10, "ordered to run", lambda e: e.wanted.__setitem__("n.service.s", True)),
    "a batch run without an end": (10, "still queued", lambda e: e.runs.append(Run(3, NAME, "queued", 0, 1))),
    "no rest": (12, "waited", lambda e: e.late.append("waited 9 s for rest")),
    "a move that is not published": (15, "succeeded to running", lambda e: e.moves.append(Move(2, "succeeded", "running", 1, 1, 1))),
    "a state that nobody saw come": (15, "nobody saw", lambda e: e.moves.pop()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_finds(case: str) -> None:
    number, words, spoil = CASES[case]
    evidence = good()
    spoil(evidence)
    found = [what for broken, what in judge(evidence).findings if broken == number]
    assert any(words in what for what in found), found


def test_windows_are_walked_as_they_were_taken() -> None:
    """A window in two portions: by position, whatever the order of the transactions."""
    evidence = Evidence(
        first={0: "10:10:"},
        signals=[signal(1, "k", xid=14), signal(2, "k", xid=12), signal(3, "k", xid=11), signal(4, "k", xid=30)],
        steps=[
            Step(0, 1, "10:10:", "20:20:", 2, 21, {}), Step(0, 2, "20:20:", None, None, 22, {}), Step(0, 3, "40:40:", None, None, 41, {}),
        ],
    )  # fmt: skip
    assert [(found.id, xid) for found, xid in walk(evidence, 0)] == [(1, 21), (2, 21), (3, 22), (4, 41)]
