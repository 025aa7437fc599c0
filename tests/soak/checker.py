"""The judge: what has to be true of all that was written down. Pure, and written without a look at how pgsig does it.

The numbers are those of the twelve and more invariants that the report names; `CLAIMS` says each in a line.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.soak.definition import MAY_OVERLAP, STREAMING
from tests.soak.emitter import OWN
from tests.soak.evidence import Evidence, Signal, Told
from tests.soak.model import Expected, expect

CLAIMS = {
    1: "every committed signal is there once and was evaluated once; each interested rule has one end for it, or waits with it",
    2: "each firing is one action, no more and no less; what it consumed is marked so in the same transaction",
    3: "the signals, one after the other in their order, lead to the same actions",
    4: "a signal that cannot be evaluated is put aside, and nothing else is",
    5: "epochs of a run grow; no grant is executed twice, an end counts only under the epoch that is in force, and its job is not refused",
    6: "runs of one instance that may not overlap do not, by the jobs' own clocks and locks",
    7: "a due time is fired once",
    8: "no run is held by a runner that is dead",
    9: "every action names the version that was in force when it was decided",
    10: "generations never shrink; in the end what was ordered last is what runs",
    12: "it came to rest in time",
    15: "runs make the moves that are published, and none after their end",
}
MOVES = {
    None: {"queued"},
    "queued": {"starting", "stopped"},
    "starting": {"running", "retrying", "succeeded", "failed", "stopped", "lost"},
    "running": {"retrying", "succeeded", "failed", "stopped", "lost"},
    "retrying": {"starting", "stopped", "failed"},
}
ENDS = {"succeeded", "failed", "stopped", "lost"}


@dataclass
class Verdict:
    """checked: how many things each claim was tried on. findings: what contradicts it."""

    checked: Counter[int] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)

    def claim(self, number: int, holds: bool, what: str) -> None:
        self.checked[number] += 1
        if not holds:
            self.findings.append((number, what))

    @property
    def good(self) -> bool:
        return not self.findings


def judge(evidence: Evidence) -> Verdict:
    verdict = Verdict()
    check_ledgers(evidence, verdict)
    expected = check_order(evidence, verdict)
    check_actions(evidence, expected, verdict)
    check_outcomes(evidence, expected, verdict)
    check_grants(evidence, verdict)
    check_overlap(evidence, verdict)
    check_ticks(evidence, verdict)
    check_moves(evidence, verdict)
    check_rest(evidence, verdict)
    return verdict


# ── what was committed ──


def check_ledgers(evidence: Evidence, verdict: Verdict) -> None:
    """The emitters' ledgers, and what jobs were told, against the log."""
    stored = Counter(signal.source for signal in evidence.signals if signal.kind == "user")
    known: set[str] = set()
    for name, ledger in evidence.ledgers.items():
        tries = {line["try"]: [signal[3] for signal in line["signals"]] for line in ledger if "try" in line}
        ends = {line[end]: end for line in ledger for end in ("done", "undone", "unknown") if end in line}
        for number, tags in tries.items():
            known.update(tags)
            counts = [stored[tag] for tag in tags]
            match ends.get(number):
                case "done":
                    for tag, count in zip(tags, counts, strict=True):
                        verdict.claim(
                            1, count == 1, f"signal {tag} of {name} was committed, and is in the log {count} times"
                        )
                case "undone":
                    verdict.claim(
                        1, not any(counts), f"transaction {number} of {name} was rolled back, and is in the log"
                    )
                case _:
                    whole = counts in ([0] * len(counts), [1] * len(counts))
                    verdict.claim(1, whole, f"of transaction {number} of {name} the log has a part: {counts}")
    jobs = {signal.source for signal in evidence.signals if signal.event_id and signal.key == "load.done"}
    for tag in set(stored) - known - jobs - {OWN}:
        verdict.claim(1, False, f"nobody emitted signal {tag}")
    ids = {signal.id for signal in evidence.signals}
    for line in evidence.jobs:
        if line.what == "emitted":
            verdict.claim(
                1, line.detail in ids, f"signal {line.detail} of run {line.run} was committed, and is not in the log"
            )
    events = Counter((s.namespace, s.source, s.event_id) for s in evidence.signals if s.event_id)
    for event, count in events.items():
        verdict.claim(1, count == 1, f"event {event} is in the log {count} times")


# ── what was evaluated, and what it led to ──


def check_order(evidence: Evidence, verdict: Verdict) -> Expected:
    """Work out from the cursors in which order the signals were evaluated, and from that what had to follow."""
    order: list[tuple[Signal, int]] = []
    for lane in sorted({signal.lane for signal in evidence.signals} | set(evidence.first)):
        taken = list(walk(evidence, lane))
        order += taken
        seen = {signal.id for signal, _ in taken}
        for signal in evidence.signals:
            if signal.lane == lane:
                verdict.claim(1, signal.id in seen, f"signal {signal.id}, {signal.key}, was never evaluated")
    return expect(evidence.rules, order)


def walk(evidence: Evidence, lane: int) -> Iterator[tuple[Signal, int]]:
    """The signals of a lane in the order in which they were taken, each with the transaction that took it."""
    waiting = [(signal.xid, signal.id, signal) for signal in evidence.signals if signal.lane == lane]
    heapq.heapify(waiting)
    open_: dict[int, Signal] = {}  # may be seen by now, and was not taken
    start, end, last = Snapshot(evidence.first.get(lane, "1:1:")), None, 0
    for step in evidence.steps:
        if step.lane != lane:
            continue
        window = end or Snapshot(step.s2 or step.s1)
        while waiting and waiting[0][0] < window.xmax:
            signal = heapq.heappop(waiting)[2]
            open_[signal.id] = signal
        upto = step.last_id if step.s2 is not None and step.last_id is not None else None
        for number in sorted(open_):
            signal = open_[number]
            if (
                window.sees(signal.xid)
                and not start.sees(signal.xid)
                and number > last
                and (upto is None or number <= upto)
            ):
                del open_[number]
                yield signal, step.xid
        if step.s2 is None:
            start, end, last = Snapshot(step.s1), None, 0
        else:
            start, end, last = Snapshot(step.s1), Snapshot(step.s2), step.last_id or 0


class Snapshot:
    """Postgres' pg_snapshot."""

    def __init__(self, text: str) -> None:
        xmin, xmax, running = text.split(":")
        self.xmin, self.xmax = int(xmin), int(xmax)
        self.running = {int(xid) for xid in running.split(",") if xid}

    def sees(self, xid: int) -> bool:
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


def check_actions(evidence: Evidence, expected: Expected, verdict: Verdict) -> None:
    found: dict[tuple[int, str, int], list[tuple[int, ...]]] = defaultdict(list)
    versions = {step.xid: step.versions for step in evidence.steps}
    by_hand = 0
    for action in evidence.actions:
        if action.rule_id == 0:
            by_hand += 1
            continue
        found[action.rule_id, action.subject, action.cause_id].append(tuple(sorted(action.evidence)))
        known = versions.get(action.xid % 2**32) or versions.get(action.xid)
        verdict.claim(2, known is not None, f"action {action.id} was not written by a transaction that took signals")
        if known is not None:
            newest = known.get(str(action.operator_id))
            verdict.claim(
                9, newest == action.version, f"action {action.id} names version {action.version}, in force was {newest}"
            )
    names = {rule.id: f"{rule.namespace}.{rule.operator}" for rule in evidence.rules}
    for key, evidence_of in expected.fired.items():
        what = f"{names.get(key[0])} for {key[1]!r} by signal {key[2]}"
        times = len(found.get(key, []))
        verdict.claim(2, times <= 1, f"{times} actions of {what}")
        verdict.claim(1, times >= 1, f"no action of {what}: the signal is lost")
        if times == 1:
            verdict.claim(3, found[key][0] == evidence_of, f"{what} has evidence {found[key][0]}, not {evidence_of}")
    for key in set(found) - set(expected.fired):
        verdict.claim(2, False, f"an action too many: {names.get(key[0])} for {key[1]!r} by signal {key[2]}")


def check_outcomes(evidence: Evidence, expected: Expected, verdict: Verdict) -> None:
    actions = {action.id: action for action in evidence.actions}
    consumed: set[tuple[int, int, str]] = set()
    aside: set[tuple[int, int]] = set()
    for outcome in evidence.outcomes:
        place = (outcome.signal_id, outcome.rule_id, outcome.subject)
        if outcome.outcome == "quarantined":
            aside.add((outcome.signal_id, outcome.rule_id))
            continue
        verdict.claim(1, outcome.outcome == "consumed", f"{place} ended as {outcome.outcome}")
        consumed.add(place)
        action = actions.get(outcome.action_id or 0)
        paired = (
            action is not None and outcome.signal_id in action.evidence and action.rule_id == outcome.rule_id
            and action.xid == outcome.xid
        )  # fmt: skip
        verdict.claim(2, paired, f"{place} was consumed by action {outcome.action_id}, which does not say so, or later")
    for place in expected.consumed | consumed:
        verdict.claim(1, place in expected.consumed and place in consumed, f"consumed or not? {place}")
    for both in expected.aside | aside:
        verdict.claim(4, both in expected.aside and both in aside, f"put aside or not? {both}")
    for where in set(expected.pending) | set(evidence.pending):
        is_, must = evidence.pending.get(where, frozenset()), expected.pending.get(where, frozenset())
        verdict.claim(
            1, is_ == must, f"rule and subject {where} wait with {sorted(is_)[:9]}, not with {sorted(must)[:9]}"
        )


# ── what was executed ──


def check_grants(evidence: Evidence, verdict: Verdict) -> None:
    runs = {run.id: run for run in evidence.runs}
    started: dict[int, list[Told]] = defaultdict(list)
    ended = {(line.run, line.epoch): line for line in evidence.jobs if line.what == "end"}
    over: set[tuple[int, int]] = set()
    for line in sorted(evidence.jobs, key=lambda line: line.at):
        if line.what == "refused" and line.detail in ("PS402", "PS403"):
            over.add((line.run, line.epoch))
        if line.what == "emitted":
            good = (line.run, line.epoch) not in over
            verdict.claim(5, good, f"run {line.run}: its job was refused while epoch {line.epoch} was in force")
        if line.what == "start":
            before = started[line.run]
            grew = not before or before[-1].epoch < line.epoch
            verdict.claim(
                5, grew, f"run {line.run} began under epoch {line.epoch} after {before[-1].epoch if before else 0}"
            )
            before.append(line)
            known = runs.get(line.run)
            verdict.claim(
                5, known is not None and line.epoch <= known.epoch, f"run {line.run}: nobody granted epoch {line.epoch}"
            )
    for run in evidence.runs:
        if run.state == "succeeded":
            end = ended.get((run.id, run.epoch))
            good = end is not None and end.detail == 0
            verdict.claim(5, good, f"run {run.id} has succeeded under epoch {run.epoch}, and its job does not say so")


def check_overlap(evidence: Evidence, verdict: Verdict) -> None:
    ends = {(line.run, line.epoch): line.at for line in evidence.jobs if line.what == "end"}
    spans: dict[str, list[tuple[float, float, Told]]] = defaultdict(list)
    for line in evidence.jobs:
        if line.name.split(".")[1] in MAY_OVERLAP:
            continue
        if line.what == "met":
            verdict.claim(6, False, f"{line.name}: run {line.run} epoch {line.epoch} met {line.detail}")
        if line.what == "start":
            key = (line.run, line.epoch)
            # A job that was killed has no end: it was alive when it last said so.
            spans[line.name].append((line.at, max(line.at, ends.get(key, 0.0), evidence.beats.get(key, 0.0)), line))
    for name, found in spans.items():
        found.sort(key=lambda span: span[0])
        latest, who = 0.0, 0
        for begin, end, line in found:
            verdict.claim(
                6, latest <= begin, f"{name}: run {line.run} began {latest - begin:.3f} s before run {who} ended"
            )
            if end > latest:
                latest, who = end, line.run


def check_ticks(evidence: Evidence, verdict: Verdict) -> None:
    fired = Counter((trigger, due) for trigger, due, _ in evidence.ticks)
    for place, count in fired.items():
        verdict.claim(7, count == 1, f"trigger and due time {place} were fired {count} times")
    ledger = {signal for _, _, signal in evidence.ticks}
    ticks = {signal.id for signal in evidence.signals if signal.kind == "tick"}
    for signal in ledger | ticks:
        verdict.claim(7, signal in ledger and signal in ticks, f"tick {signal} is a due time or a signal, not both")


def check_moves(evidence: Evidence, verdict: Verdict) -> None:
    last: dict[int, tuple[str, int]] = {}
    for move in evidence.moves:
        state, epoch = last.get(move.run_id, (None, 0))
        what = f"run {move.run_id}: {move.old_state} to {move.state}, epoch {move.old_epoch} to {move.epoch}"
        if move.state != move.old_state:
            verdict.claim(15, move.state in MOVES.get(move.old_state, set()), what)
        verdict.claim(15, move.old_state == state, f"{what}: it was {state}")
        verdict.claim(5, move.epoch >= epoch, what)
        if move.state == "starting":
            verdict.claim(5, move.epoch == epoch + 1, f"{what}: a grant is one epoch")
        last[move.run_id] = (move.state, move.epoch)
    for run in evidence.runs:
        verdict.claim(
            15, last.get(run.id) == (run.state, run.epoch), f"run {run.id} is {run.state}, nobody saw it become so"
        )
    newest: dict[tuple[int, str], int] = {}
    for operator, subject, old, new in evidence.generations:
        verdict.claim(
            10,
            new >= max(old, newest.get((operator, subject), 0)),
            f"generation of {operator} {subject!r}: {old} to {new}",
        )
        newest[operator, subject] = new


def check_rest(evidence: Evidence, verdict: Verdict) -> None:
    """All faults are over, everything was waited for."""
    for what in evidence.late:
        verdict.claim(12, False, what)
    verdict.claim(12, True, "")
    for run in evidence.runs:
        held = run.state in ("starting", "running")
        verdict.claim(8, not held or bool(run.runner_alive), f"run {run.id} is {run.state} and its runner is dead")
        if run.name.split(".")[1] not in STREAMING:
            verdict.claim(10, run.state in ENDS, f"run {run.id} of {run.name} is still {run.state}")
    live = {(run.id, run.epoch) for run in evidence.runs if run.state not in ENDS}
    for name, wanted in evidence.wanted.items():
        alive, observed = evidence.alive.get(name), evidence.observed.get(name)
        if wanted:
            good = observed == "running" and alive is not None and alive in live
            verdict.claim(10, good, f"{name} was ordered to run; the database says {observed}, alive is {alive}")
        else:
            good = alive is None and observed not in ("starting", "running", "retrying", "queued")
            verdict.claim(10, good, f"{name} was ordered to stop; the database says {observed}, alive is {alive}")
