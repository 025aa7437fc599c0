"""All that was written down during a soak: by emitters and jobs in files, by the database, and by the witness in it. Plain values: a test
can make them up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]


class Signal(NamedTuple):
    id: int
    lane: int
    xid: int
    kind: str
    namespace: str
    key: str
    subject: str
    value: str
    source: str
    event_id: str | None = None


class Step(NamedTuple):
    """A take of one lane: the cursor that it left, its transaction, and the newest version of each operator in it."""

    lane: int
    seq: int
    s1: str
    s2: str | None
    last_id: int | None
    xid: int
    versions: dict[str, int]


class Rule(NamedTuple):
    """A rule in force. condition: its canonical form."""

    id: int
    operator_id: int
    namespace: str
    operator: str
    condition: dict[str, Any]


class Action(NamedTuple):
    id: int
    operator_id: int
    rule_id: int
    subject: str
    cause_id: int
    evidence: Sequence[int]
    version: int
    xid: int


class Outcome(NamedTuple):
    signal_id: int
    rule_id: int
    subject: str
    outcome: str
    action_id: int | None
    xid: int


class Run(NamedTuple):
    """runner: whether its runner's process is among the living; None before any."""

    id: int
    name: str
    state: str
    epoch: int
    attempt: int
    runner_alive: bool | None = None


class Move(NamedTuple):
    """old_state, old_epoch: None at the beginning."""

    run_id: int
    old_state: str | None
    state: str
    old_epoch: int | None
    epoch: int
    attempt: int


class Told(NamedTuple):
    """A line of jobs.jsonl. what: start, end, met, emitted, refused, reloaded. name: namespace.operator.subject. at: CLOCK_BOOTTIME."""

    what: str
    name: str
    run: int
    epoch: int
    attempt: int
    at: float
    detail: Any = None


@dataclass
class Evidence:
    """See the module.

    ledgers: lines by emitter. pending: signals that a rule's state still holds, by (rule, subject). ticks: (trigger, due, signal).
    beats: when a job was last alive, by (run, epoch). alive: (run, epoch) by name, of jobs that held their lock at the end.
    wanted: whether name is to live at the end. observed: what the database says of it. late: what did not come to rest in time.
    """

    ledgers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    jobs: list[Told] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    first: dict[int, str] = field(
        default_factory=dict
    )  # snapshot up to which a lane was evaluated before the first step
    rules: list[Rule] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    pending: dict[tuple[int, str], frozenset[int]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    generations: list[tuple[int, str, int, int]] = field(default_factory=list)
    ticks: list[tuple[int, str, int]] = field(default_factory=list)
    beats: dict[tuple[int, int], float] = field(default_factory=dict)
    alive: dict[str, tuple[int, int]] = field(default_factory=dict)
    wanted: dict[str, bool] = field(default_factory=dict)
    observed: dict[str, str] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)


def lines(path: Path) -> Iterable[dict[str, Any]]:
    """The lines of a book that are whole: a process that is killed may leave half of one."""
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def told(path: Path) -> list[Told]:
    known = ("what", "name", "run", "epoch", "attempt", "at")
    found = []
    for line in lines(path):
        detail = [value for name, value in line.items() if name not in (*known, "pid")]
        found.append(Told(*(line[name] for name in known), *detail[:1]))
    return found


def collect(connection: Connection, folder: Path) -> Evidence:
    """Read everything, at rest."""

    def ask(text: str) -> list[tuple[Any, ...]]:
        return connection.execute(text.encode()).fetchall()

    pending = {
        (rule, subject): frozenset(entry[0] for entries in body.get("pending", {}).values() for entry in entries)
        for rule, subject, body in ask("SELECT rule_id, subject, body FROM pgsig_private.rule_state")
    }
    return Evidence(
        ledgers={path.stem.removeprefix("ledger-"): list(lines(path)) for path in sorted(folder.glob("ledger-*.jsonl"))},
        jobs=told(folder / "jobs.jsonl"),
        signals=[Signal(*row) for row in ask(
            "SELECT id, lane, xid::text::bigint, kind, namespace, key, subject, left(value::text, 100), source, event_id FROM pgsig.signals"
        )],
        steps=[Step(*row) for row in ask("SELECT lane, seq, s1, s2, last_id, xid::bigint, versions FROM soak.step ORDER BY lane, seq")],
        first={row[0]: row[1] for row in ask("SELECT lane, s1::text FROM soak.first")},
        rules=[Rule(*row) for row in ask(
            "SELECT r.id, r.operator_id, w.namespace, o.name, r.condition FROM pgsig_private.rule r"
            " JOIN pgsig_private.operator o ON o.id = r.operator_id JOIN pgsig_private.workflow w ON w.id = o.workflow_id"
        )],
        actions=[Action(*row) for row in ask(
            "SELECT id, operator_id, rule_id, subject, cause_id, evidence, version, xmin::text::bigint FROM pgsig_private.action"
        )],
        outcomes=[Outcome(*row) for row in ask(
            "SELECT signal_id, rule_id, subject, outcome, action_id, xmin::text::bigint FROM pgsig_private.outcome"
            " UNION ALL SELECT cause_id, rule_id, subject, 'consumed', id, xmin::text::bigint FROM pgsig_private.action WHERE consumed"
        )],
        pending={place: found for place, found in pending.items() if found},
        runs=[Run(*row) for row in ask(
            "SELECT r.id, w.namespace || '.' || o.name || '.' || r.subject, r.state, r.epoch, r.attempt, p.ended_at IS NULL"
            " FROM pgsig_private.run r JOIN pgsig_private.operator o ON o.id = r.operator_id"
            " JOIN pgsig_private.workflow w ON w.id = o.workflow_id LEFT JOIN pgsig_private.process p ON p.id = r.runner_id"
        )],
        moves=[Move(*row) for row in ask(
            "SELECT run_id, old_state, state, old_epoch, epoch, attempt FROM soak.move ORDER BY id"
        )],
        generations=[(row[0], row[1], row[2], row[3]) for row in ask(
            "SELECT operator_id, subject, old, new FROM soak.generation ORDER BY id"
        )],
        ticks=[(row[0], row[1], row[2]) for row in ask("SELECT trigger_id, due_at::text, signal_id FROM pgsig_private.tick")],
        beats={
            (int(path.name.split("-")[0]), int(path.name.split("-")[1])): float(text)
            for path in (folder / "beats").iterdir() if (text := path.read_text().strip())
        },
        observed={row[0]: row[1] for row in ask(
            "SELECT namespace || '.' || operator || '.' || subject, observed FROM pgsig.operators WHERE kind = 'streaming'"
        )},
    )  # fmt: skip
