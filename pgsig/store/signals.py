"""The statements of a worker's transaction: take, ask, load, lock, record. Explained in `sql/api`, named in `sql/queries/engine.sql`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pgsig.decide.custom import StateKey, Verdict
from pgsig.decide.decision import Needs
from pgsig.decide.plan import most_runs
from pgsig.model import Instance, Json, LiveRun, Operator, Signal, State
from pgsig.store.database import Connection, query
from pgsig.store.wire import array, quoted, wire


class Locked(NamedTuple):
    """Instances that are locked, by operator and subject, with what is alive of each; and ids for actions and for runs."""

    instances: dict[tuple[int, str], Instance]
    action_ids: list[int]
    run_ids: list[int]


@dataclass(slots=True)
class Taken:
    """Signals in their order, and the revision of the definitions of each lane that they came from. locked: what was locked with them."""

    signals: list[Signal] = field(default_factory=list)
    revisions: dict[int, int] = field(default_factory=dict)
    locked: Locked | None = None


def take(
    connection: Connection, limit: int, expected: Mapping[str, Sequence[Operator]], *, idle: str = "", lane: int | None = None
) -> Taken:  # fmt: skip
    """The next signals of every lane that nobody else is at. Must be the first statement of a READ COMMITTED transaction.

    expected: by "namespace key", the operators that each signal of that key leads to an order for, at its subject. Where one such signal
    is all there is, but for signals of keys LIKE `idle`, their instances are locked at once. lane: look at this one alone.
    """
    of_keys = [(key, operator) for key, operators in expected.items() for operator in operators]
    rows = wire(connection).ask(
        "take", limit=str(limit), keys=array([quoted(key) for key, _ in of_keys]),
        operators=array([str(operator.id) for _, operator in of_keys]),
        count=str(max((sum(map(most_runs, operators)) for operators in expected.values()), default=0)), idle=idle,
        lane=None if lane is None else str(lane),
    )  # fmt: skip
    taken = Taken()
    for row in rows:
        if row[0] is None:
            taken.locked = _locked(*row[13:])
        else:
            taken.revisions[row[11]] = row[12]
            taken.signals.append(Signal._make(row[:11]))
    return taken


def _locked(rows: Iterable[Sequence[Any]], action_ids: list[int], run_ids: list[int]) -> Locked:
    instances = {
        (operator_id, subject): Instance(
            operator_id, subject, generation, desired, [LiveRun(r[0], State(r[1]), *r[2:]) for r in runs or ()]
        )
        for operator_id, subject, desired, generation, runs, *_ in rows
    }
    return Locked(instances, action_ids, run_ids)


def own(connection: Connection) -> list[Signal]:
    """What the transaction itself has emitted, in its order."""
    found = connection.execute(query("own_signals").encode()).fetchall()
    return [
        Signal(position, namespace, key, subject, value, source, at, int(xid), depth, run_id, event_id)
        for position, namespace, key, subject, value, source, at, xid, depth, run_id, event_id in found
    ]


def ask(connection: Connection, questions: Sequence[tuple[Signal, str, bool]]) -> dict[tuple[int, str], object]:
    """Answers by (signal id, path): True, False or None for a predicate, a text or None for a correlation path."""
    if not questions:
        return {}
    found: dict[tuple[int, str], object] = {}
    rows = connection.execute(query("ask"), {
        "numbers": list(range(len(questions))), "values": [signal.value for signal, _, _ in questions],
        "paths": [path for _, path, _ in questions], "predicates": [predicate for _, _, predicate in questions],
    })  # fmt: skip
    for number, truth, text in rows:
        signal, path, predicate = questions[number]
        found[signal.id, path] = truth if predicate else text
    return found


def held(connection: Connection, operators: Sequence[int]) -> list[tuple[int, Signal]]:
    """The signals that wait for the resume of operators, in their order, each with the rule that it waits at."""
    if not operators:
        return []
    rows = connection.execute(query("held_signals"), {"operators": list(operators)})
    found = []
    for rule, position, namespace, key, subject, value, source, at, xid, depth, run_id, event_id in rows.fetchall():
        found.append(
            (rule, Signal(position, namespace, key, subject, value, source, at, int(xid), depth, run_id, event_id))
        )
    return found


def ask_function(connection: Connection, name: str, signal: Signal, state: Json) -> Verdict | str:
    """What a user's own condition says of a signal, or the error that it made."""
    said = {
        "id": signal.id,
        "key": signal.key,
        "subject": signal.subject,
        "source": signal.source,
        "emitted_at": signal.at.isoformat(),
    }
    document = json.dumps(said, ensure_ascii=False)[:-1] + f', "value": {signal.value}}}'
    given = {"name": name, "signal": document, "state": json.dumps(state, ensure_ascii=False)}
    row = connection.execute(query("ask_function"), given).fetchone()
    if row is None or row[2] is not None:
        return row[2] if row else "it did not answer"
    return Verdict(row[1], row[0])


def load(connection: Connection, needs: Needs) -> tuple[dict[StateKey, Json], dict[int, dict[str, bool]]]:
    """The states that a batch needs, by (rule, instance), and the subjects of live instances by operator: whether a runner has one."""
    states: dict[StateKey, Json] = {}
    live: dict[int, dict[str, bool]] = {}
    if needs.states or needs.whole_rules:
        keys = sorted(needs.states)
        for rule_id, subject, body in connection.execute(query("load_states"), {
            "rules": [rule_id for rule_id, _ in keys], "subjects": [subject for _, subject in keys], "whole": sorted(needs.whole_rules),
        }):  # fmt: skip
            states[rule_id, subject] = body
    if needs.operators:
        operators = {"operators": sorted(needs.operators)}
        for operator_id, subject, granted in connection.execute(query("live_subjects"), operators):
            live.setdefault(operator_id, {})[subject] = granted
    return states, live


def lock(connection: Connection, keys: Iterable[tuple[int, str]], count: int, already: Locked | None = None) -> Locked:
    """Lock instances in one order and tell what is alive of them; reserve ids for `count` actions and as many runs. already: what is locked
    and reserved; where that is all, nothing is asked."""
    wanted = set(keys)
    if not wanted:
        return Locked({}, [], [])
    if already and wanted <= already.instances.keys() and count <= len(already.run_ids):
        return already
    ordered = sorted(wanted)
    rows = wire(connection).ask(
        "lock_instances", count=str(count), operators=array([str(operator) for operator, _ in ordered]),
        subjects=array([quoted(subject) for _, subject in ordered]),
    )  # fmt: skip
    return _locked(rows, rows[0][5], rows[0][6])


def record(connection: Connection, document: dict[str, Any]) -> None:
    """Write a batch's rows, without waiting for it; empty documents write nothing. Actions that one signal caused by itself, with nothing
    more to tell, go as columns: they are most of all."""
    if not document:
        return
    actions = document.get("actions", ())
    plain: list[Json] = []
    others: list[Json] = []
    for row in actions:
        (plain if _is_plain(row) else others).append(row)
    if plain:
        document = {name: rows for name, rows in {**document, "actions": others}.items() if rows}
    wire(connection).send(
        "record", document=json.dumps(document, ensure_ascii=False),
        ids=_numbers(plain, "id"), operators=_numbers(plain, "operator_id"), rules=_numbers(plain, "rule_id"),
        subjects=array([quoted(row["subject"]) for row in plain]), actions=array([row["action"] for row in plain]),
        results=array([row["result"] for row in plain]), versions=_numbers(plain, "version"), causes=_numbers(plain, "cause_id"),
        depths=_numbers(plain, "depth"), runs=array(["NULL" if (run := row["run_id"]) is None else str(run) for row in plain]),
        consumed=array(["t" if row["consumed"] else "f" for row in plain]),
    )  # fmt: skip


def _is_plain(action: Json) -> bool:
    return bool(action["explanation"] is None and action["nth"] == 0 and action["evidence"] == (action["cause_id"],))


def _numbers(rows: Sequence[Json], column: str) -> str:
    return array([str(row[column]) for row in rows])


def fire_timers(connection: Connection) -> float | None:
    """Turn timers that fell due into signals. Returns the seconds until the next one, None when none is set."""
    row = connection.execute(query("fire_timers")).fetchone()
    return None if row is None or row[0] is None else float(row[0])


def depth_limit(connection: Connection) -> int:
    row = connection.execute(query("depth_limit")).fetchone()
    return int(row[0]) if row else 100
