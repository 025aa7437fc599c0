"""Applying definitions: one transaction, nothing twice, nothing lost that did not change."""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgsig.definition import parse
from pgsig.definition.reading import read_text
from pgsig.errors import Conflict, InvalidInput
from pgsig.model import Action, Kind
from pgsig.store.definitions import Applied, apply, catalog, catalog_revisions, check_paths, plan
from pgsig.store.definitions import changed as changed_since
from tests.support import wait_for
from tests.support_core import many_rules

Connection = psycopg.Connection[Any]
Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    return {
        "workflow": "shop",
        "operators": {
            "train": {
                "streaming": {"command": ["train"]},
                "start": {"signal": "data.ready"},
                "stop": {"signal": "ops.stop"},
            },
            "report": {"batch": {"command": ["report"]}, "start": [{"signal": "report.wanted"}, {"every": "1h"}]},
        },
    }


def changed(document: Document, path: str, value: Any) -> Document:
    """A copy with one place set, or taken away (None)."""
    copied = copy.deepcopy(document)
    *steps, last = path.split("/")
    place = copied
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copied


def rules(connection: Connection) -> dict[str, tuple[int, str]]:
    """Name of each rule in force: its id and the snapshot that it begins at."""
    return {
        f"{operator.name}.{rule.name}": (rule.id, str(rule.since))
        for operator in catalog(connection)
        for rule in operator.rules
    }


def triggers(connection: Connection) -> list[tuple[Any, ...]]:
    statement = "SELECT id, spec, removed_at IS NOT NULL, created_at FROM pgsig_private.trigger ORDER BY id"
    return connection.execute(statement).fetchall()


def counts(connection: Connection) -> Any:
    tables = ("workflow", "workflow_version", "operator", "operator_version", "rule", "trigger")
    columns = ", ".join(f"(SELECT count(*) FROM pgsig_private.{table})" for table in tables)
    return connection.execute(f"SELECT {columns}".encode()).fetchone()


def changes(applied: Applied) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    return {
        operator.name: (operator.change, [(rule.change, rule.name) for rule in operator.rules])
        for operator in applied.changes.operators
    }


def test_a_first_apply_is_what_the_worker_loads(connection: Connection, document: Document) -> None:
    before = catalog_revisions(connection)
    applied = apply(connection, document)
    assert applied.version == 1
    assert changes(applied) == {
        "train": ("added", [("new", "start"), ("new", "stop")]),
        "report": ("added", [("new", "start"), ("new", "start.2")]),
    }
    by_name = {operator.name: operator for operator in catalog(connection)}
    train = by_name["train"]
    assert (train.namespace, train.path, train.kind, train.version) == ("default", "shop.train", Kind.STREAMING, 1)
    assert train.spec == {"command": ["train"]}
    assert [(rule.name, rule.action, rule.ordinal, rule.condition, rule.by) for rule in train.rules] == [
        ("start", Action.START, 0, {"signal": "data.ready"}, "subject"),
        ("stop", Action.STOP, 1, {"signal": "ops.stop"}, "subject"),
    ]
    assert [spec for _, spec, _, _ in triggers(connection)] == [{"every": "1h"}]
    after = catalog_revisions(connection)
    assert sum(after[lane] - before[lane] for lane in after) == 1


def test_the_same_again_changes_nothing(connection: Connection, document: Document) -> None:
    apply(connection, document)
    before = counts(connection), catalog_revisions(connection), triggers(connection)
    applied = apply(connection, json.loads(json.dumps(document, sort_keys=True)))
    assert (applied.version, applied.changes.any) == (1, False)
    assert (counts(connection), catalog_revisions(connection), triggers(connection)) == before


def test_rule_7_a_rule_that_did_not_change_keeps_its_id_a_changed_one_begins_now(
    connection: Connection, document: Document
) -> None:
    apply(connection, document)
    before = rules(connection)
    new = changed(document, "operators/train/start", [{"signal": "more.data"}, {"signal": "data.ready"}])
    new = changed(new, "operators/train/stop", {"signal": "ops.halt"})
    expected = {"train": ("changed", [("new", "start"), ("kept", "start.2"), ("new", "stop"), ("removed", "stop")])}
    assert {"train": changes(Applied(0, plan(connection, new)))["train"]} == expected
    assert rules(connection) == before
    applied = apply(connection, new)
    assert {"train": changes(applied)["train"]} == expected
    assert changes(applied)["report"][0] == "unchanged"
    after = rules(connection)
    assert after["train.start.2"] == before["train.start"]
    assert after["train.stop"][0] not in {rule for rule, _ in before.values()}
    assert {name: after[name] for name in after if name.startswith("report")} == (
        {name: before[name] for name in before if name.startswith("report")}
    )
    assert {operator.version for operator in catalog(connection)} == {2}
    assert connection.execute("SELECT count(*) FROM pgsig_private.operator_version").fetchone() == (4,)


def test_the_order_of_declaration_counts(connection: Connection, document: Document) -> None:
    apply(connection, document)
    before = rules(connection)
    applied = apply(connection, changed(document, "operators/train/order", ["stop", "start"]))
    assert applied.version == 2
    assert rules(connection) == before
    train = next(operator for operator in catalog(connection) if operator.name == "train")
    assert [rule.name for rule in train.rules] == ["stop", "start"]


def test_a_trigger_keeps_its_last_due_time_unless_it_was_gone(connection: Connection, document: Document) -> None:
    apply(connection, document)
    (first,) = triggers(connection)
    apply(connection, changed(document, "operators/report/batch", {"command": ["other"]}))
    assert triggers(connection) == [first]
    without = changed(document, "operators/report/start", {"signal": "report.wanted"})
    apply(connection, without)
    assert [gone for _, _, gone, _ in triggers(connection)] == [True]
    apply(connection, document)
    ((number, _, gone, created),) = triggers(connection)
    assert (number, gone) == (first[0], False)
    assert created > first[3]


def test_an_operator_that_goes_is_stopped_and_may_come_back(connection: Connection, document: Document) -> None:
    apply(connection, document)
    report = next(operator for operator in catalog(connection) if operator.name == "report")
    runs = [
        {
            "id": number, "operator_id": report.id, "subject": subject, "generation": 1, "version": 1, "action_id": 1,
            "depth": 1, "pool": "default", "priority": 0, "slots": 1, "params": {}, "evidence": [], "claimable": True,
        }
        for number, subject in ((1, ""), (2, "eu"))
    ]  # fmt: skip
    connection.execute("SELECT * FROM pgsig_private.lock_instances(%s, %s)", [[report.id] * 2, ["", "eu"]])
    connection.execute("SELECT pgsig_private.record(%s)", [json.dumps({"runs": runs})])
    without = changed(document, "operators/report", None)
    assert changes(Applied(0, plan(connection, without)))["report"] == (
        "removed", [("removed", "start"), ("removed", "start.2")],
    )  # fmt: skip
    apply(connection, without)
    assert [operator.name for operator in catalog(connection)] == ["train"]
    found = connection.execute("SELECT state FROM pgsig.runs ORDER BY id").fetchall()
    assert found == [("stopped",), ("stopped",)]
    instances = connection.execute("SELECT desired, observed FROM pgsig_private.instance").fetchall()
    assert instances == [("stopped", "stopped")] * 2
    assert [gone for _, _, gone, _ in triggers(connection)] == [True]
    applied = apply(connection, document)
    assert changes(applied)["report"][0] == "added"
    again = next(operator for operator in catalog(connection) if operator.name == "report")
    assert again.id == report.id
    assert {rule.id for rule in again.rules}.isdisjoint({rule.id for rule in report.rules})


def test_autostart_is_a_manual_signal_of_the_first_apply_that_says_so(
    connection: Connection, document: Document
) -> None:
    eager = changed(document, "operators/train/streaming", {"command": ["train"], "autostart": True})
    apply(connection, document)
    assert plan(connection, eager).operators[0].autostart
    apply(connection, eager)
    apply(connection, changed(eager, "description", "the same, described"))
    found = connection.execute("SELECT key, kind, source, value FROM pgsig.signals").fetchall()
    order = {"action": "START", "params": {}, "reason": "autostart"}
    assert found == [("manual.shop.train", "manual", "pgsig", order)]


def test_paths_are_tried_in_the_database_and_refused_with_their_lines(connection: Connection) -> None:
    text = """
workflow: w
operators:
  a:
    batch: {command: [x]}
    start:
      - {signal: a.b, where: "$ ? (@.auc > 0.5)"}
      - {signal: a.b, where: "$.auc >"}
      - {signal: a.b, where: "$.auc > $limit"}
      - {signal: a.b, where: "exists($.a) && !($.b == 1) || $.c starts with \\"x\\""}
      - {signal: a.c, by: "$..x"}
      - {signal: a.d, where: "$.auc > 0.5", by: "$.id"}
      - {signal: a.e, where: "strict $.auc > 0.5"}
"""
    definition = parse(*read_text(text, "w.yaml"))
    for use in (apply, plan, check_paths):
        with pytest.raises(InvalidInput) as refused:
            use(connection, definition)
        places = [problem.where.split()[0] for problem in refused.value.problems]
        assert places == ["w.yaml:7", "w.yaml:8", "w.yaml:9", "w.yaml:11"]
        assert {problem.code for problem in refused.value.problems} == {"PS528"}
        assert "write the predicate alone" in refused.value.problems[0].fix
    assert counts(connection) == (0, 0, 0, 0, 0, 0)


def test_a_document_with_mistakes_changes_nothing(connection: Connection, document: Document) -> None:
    with pytest.raises(InvalidInput):
        apply(connection, changed(document, "operators/train/start", {"signal": "A"}))
    assert counts(connection) == (0, 0, 0, 0, 0, 0)


def test_a_stale_base_is_refused(connection: Connection, document: Document) -> None:
    apply(connection, document, base=0)
    with pytest.raises(Conflict, match="PS541"):
        apply(connection, document, base=0)
    assert apply(connection, document, base=1).version == 1


def test_what_changed_since_revisions_is_told(connection: Connection, document: Document) -> None:
    apply(connection, document)
    apply(connection, {**document, "namespace": "other", "workflow": "beside"})
    shop, beside = ("default", "shop"), ("other", "beside")
    known = catalog_revisions(connection)
    assert changed_since(connection, known) == (set(), [])
    assert changed_since(connection, dict.fromkeys(known, -1)) == ({shop, beside}, catalog(connection))

    apply(connection, changed(document, "operators/report", None))
    paths, operators = changed_since(connection, known)
    assert (paths, [operator.name for operator in operators]) == ({shop}, ["train"])
    known = catalog_revisions(connection)

    (paused,) = [
        operator for operator in catalog(connection) if operator.namespace == "other" and operator.name == "train"
    ]
    for mode in ("hold", None):
        pauses = Jsonb({"pauses": [{"operator_id": paused.id, "mode": mode}]})
        connection.execute("SELECT pgsig_private.record(%s)", [pauses])
        paths, operators = changed_since(connection, known)
        assert (paths, {one.name: one.paused for one in operators}) == ({beside}, {"train": mode, "report": None})
        known = catalog_revisions(connection)


def test_of_many_workflows_only_what_changed_is_read(connection: Connection, document: Document) -> None:
    """By index, whatever the planner expects: rows that the tables themselves count."""
    many_rules(connection, 3000, 2)
    known = catalog_revisions(connection)
    apply(connection, document)
    for _ in range(7):  # the seventh time by a plan for whatever comes
        with connection.transaction():
            before = definitions_read(connection)
            assert changed_since(connection, known)[0] == {("default", "shop")}
            assert definitions_read(connection) - before <= 30


def definitions_read(connection: Connection) -> int:
    """Rows that this transaction has read so far."""
    (read,) = connection.execute(
        "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables"
        " WHERE relid = ANY ('{pgsig_private.workflow,pgsig_private.operator,pgsig_private.rule}'::regclass[])"
    ).fetchone() or (0,)
    return int(read)


def test_namespaces_are_apart(connection: Connection, document: Document) -> None:
    apply(connection, document)
    apply(connection, {**document, "namespace": "other"})
    assert sorted({(operator.namespace, operator.version) for operator in catalog(connection)}) == [
        ("default", 1), ("other", 1),
    ]  # fmt: skip
    assert len(catalog(connection)) == 4


def test_an_apply_waits_for_the_batch_that_is_being_decided(
    database: str, connection: Connection, document: Document
) -> None:
    done = threading.Event()

    def work() -> None:
        with psycopg.connect(database, autocommit=True) as mine:
            apply(mine, document)
            done.set()

    thread = threading.Thread(target=work)
    connection.execute("SELECT pgsig.emit('data.ready')")
    with connection.transaction():
        assert connection.execute("SELECT * FROM pgsig_private.take(10)").fetchall()  # holds the lane
        thread.start()
        with psycopg.connect(database, autocommit=True) as other:
            blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_for(lambda: other.execute(blocked).fetchone() == (1,))
        assert not done.is_set()
    wait_for(done)
    thread.join()


def test_two_applies_at_once_become_two_versions(database: str, connection: Connection, document: Document) -> None:
    documents = [changed(document, "description", str(number)) for number in range(4)]
    versions: list[int] = []

    def work(mine: Document) -> None:
        with psycopg.connect(database, autocommit=True) as other:
            versions.append(apply(other, mine).version)

    threads = [threading.Thread(target=work, args=[each]) for each in documents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2, 3, 4]
    assert len(rules(connection)) == 4


def test_everybody_is_told(database: str, connection: Connection, document: Document) -> None:
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute("LISTEN pgsig_definitions")
        apply(connection, document)
        assert [note.channel for note in listener.notifies(timeout=5, stop_after=1)] == ["pgsig_definitions"]
