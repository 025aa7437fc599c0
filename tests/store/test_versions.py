"""Versions: what changed when, going back, what a plan says of state and runs; and workers that hold old definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pgsig import cli
from pgsig.definition import parse
from pgsig.engine import Engine
from pgsig.errors import Conflict, NotFound
from pgsig.model import Json
from pgsig.settings import Settings
from pgsig.store import versions
from pgsig.store.database import Connection, connect
from pgsig.store.definitions import apply
from pgsig.worker import Worker
from tests.flow.workshop import Workshop
from tests.support_core import announce_all

Pgsig = Callable[..., tuple[int, str]]


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


@pytest.fixture
def pgsig(database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pgsig:
    monkeypatch.setenv("DATABASE_URL", database)

    def run(*argv: str) -> tuple[int, str]:
        code = cli.run(argv)
        out, err = capsys.readouterr()
        return code, out + err

    return run


BOTH = {"all": [{"signal": "a"}, {"signal": "b"}]}


def document(**operators: Json) -> dict[str, Json]:
    return {"workflow": "w", "operators": operators}


def batch(start: Json, **more: Json) -> dict[str, Json]:
    return {"batch": {"command": ["true"]}, "start": start, **more}


# ── history and going back ──


def test_history_tells_what_changed(connection: Connection) -> None:
    apply(connection, document(op=batch(BOTH), old=batch({"signal": "x"})))
    apply(connection, document(op=batch({"signal": "a"}), new=batch({"signal": "y"})))
    second, first = versions.history(connection, "w")
    assert (second.version, second.in_force, first.version, first.in_force) == (2, True, 1, False)
    assert second.changes is not None
    assert first.changes is not None
    assert sorted(versions.words(second.changes)) == ["+new", "-old", "~op (+start, -start)"]
    assert sorted(versions.words(first.changes)) == ["+old", "+op"]
    [only] = versions.history(connection, "w", limit=1)
    assert only.changes == second.changes
    with pytest.raises(NotFound, match="PS542"):
        versions.history(connection, "nothing")


def test_a_stored_definition_reads_as_it_was_written(connection: Connection) -> None:
    # A jsonb sorts keys by their length: the order of actions, by which rules count, must not follow that.
    whole = document(op={"streaming": {"command": ["true"]}, "restart": {"signal": "r"}, "start": {"signal": "a"}, "stop": {"signal": "s"}},
                     plain=batch({"signal": "a"}, stop={"signal": "s"}))  # fmt: skip
    apply(connection, whole)
    _, stored = versions.document(connection, "w")
    assert parse(stored).digest == parse(whole).digest
    assert [[rule.name for rule in op.rules] for op in sorted(parse(stored).operators, key=lambda op: op.name)] == [
        ["restart", "start", "stop"], ["start", "stop"]]  # fmt: skip


def test_rollback_is_an_apply_of_what_was(connection: Connection, pgsig: Pgsig) -> None:
    run = pgsig
    apply(connection, document(op=batch(BOTH)))
    apply(connection, document(op=batch({"signal": "a"})))
    code, said = run("rollback", "w", "--to", "1", "--dry-run")
    assert (code, "version 2 → 3" in said) == (0, True)
    assert versions.document(connection, "w")[0] == 2
    code, said = run("rollback", "w", "--to", "1", "--base", "1")
    assert (code, "PS541" in said) == (1, True)
    code, said = run("rollback", "w", "--to", "1")
    assert (code, "version 3 is in force, it says what version 1 said" in said) == (0, True)
    assert versions.document(connection, "w")[1] == versions.document(connection, "w", version=1)[1]
    code, said = run("rollback", "w", "--to", "3")
    assert "nothing changed" in said
    code, said = run("rollback", "w", "--to", "9")
    assert (code, "there is no version 9 of w (it has 1 to 3)" in said) == (1, True)


def test_show_and_history_print(connection: Connection, pgsig: Pgsig, tmp_path: Path) -> None:
    run = pgsig
    apply(connection, document(op=batch({"signal": "a", "eq": "on"})))
    apply(connection, document(op=batch({"signal": "b"})))
    code, said = run("show", "w", "--version", "1")
    assert code == 0
    (tmp_path / "old.yaml").write_text(said)
    assert yaml.safe_load(said) == document(op=batch({"signal": "a", "eq": "on"}))
    code, said = run("apply", str(tmp_path / "old.yaml"))
    assert (code, "version 3 is in force" in said) == (0, True)
    code, said = run("history", "w")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == ["VERSION", "3", "2", "1"]
    assert "~op (+start, -start)" in said


# ── what a plan says ──


def test_a_plan_tells_when_replicas_count(connection: Connection, pgsig: Pgsig, tmp_path: Path) -> None:
    serve = {"command": ["true"]}
    file = tmp_path / "w.yaml"
    for replicas, told in ((None, "new"), (3, "nothing → 3 (from the next START on)"), (2, "3 → 2 (from the next RESTART on)"),
                           (None, "2 → nothing (from the next RESTART on)")):  # fmt: skip
        more = {"replicas": replicas} if replicas else {}
        file.write_text(yaml.safe_dump(document(op={"streaming": {**serve, **more}})))
        for command in ("plan", "apply"):
            code, said = pgsig(command, str(file))
            assert (code, told in said) == (0, True), said


def test_a_plan_tells_what_waits_and_what_is_in_flight(shop: Workshop, pgsig: Pgsig, tmp_path: Path) -> None:
    run = pgsig
    shop.apply(
        keeps=batch(BOTH, stop={"signal": "halt"}), changes=BOTH, goes={"all": [{"signal": "a"}, {"signal": "c"}]}
    )
    shop.call("SELECT pgsig.act('w.changes', 'START')")
    shop.call("SELECT pgsig.act('w.goes', 'START')")
    shop.emit("a", 1, "x")
    shop.emit("a", 1, "y")
    shop.evaluate()
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump(document(keeps=batch(BOTH), changes=batch({"signal": "a"}))))
    code, said = run("plan", str(file))
    assert code == 0
    for line in ("(keeps its state: 2 waiting signals)", "(2 waiting signals will expire)", "in flight: 1 queued run, as they were started",
                 "its live runs are stopped: 1 queued run", "2 waiting signals of its rules will expire"):  # fmt: skip
        assert line in said, said
    code, said = run("plan", str(file), "-o", "json")
    told = {item["name"]: item for item in yaml.safe_load(said)["operators"]}
    assert (told["changes"]["queued_runs"], [rule["waiting"] for rule in told["changes"]["rules"]]) == (1, [0, 2])
    # Held signals wait too.
    shop.call("SELECT pgsig.pause('w.keeps')")
    shop.emit("b", 1, "x")
    shop.evaluate()
    by_operator = dict(
        shop.connection.execute(
            "SELECT r.id, o.name FROM pgsig_private.rule r JOIN pgsig_private.operator o ON o.id = operator_id"
        )
    )
    waits = {by_operator[rule]: waiting for rule, (waiting, _) in versions.flight(shop.connection, "w").waiting.items()}
    assert waits == {"keeps": 3, "changes": 1, "goes": 2}


def test_levels_are_counted_apart(shop: Workshop) -> None:
    shop.apply(op={"all": [{"signal": "a"}, {"signal": "on", "sticky": True}]})
    shop.emit("on")
    shop.evaluate()
    assert list(versions.flight(shop.connection, "w").waiting.values()) == [(0, 1)]


# ── old and new workers side by side ──


def test_an_engine_with_an_old_copy_never_decides_by_it(shop: Workshop, database: str) -> None:
    with connect(database, name="second") as another:
        second = Engine(another)
        shop.apply(op={"signal": "a"})
        for engine in (shop.engine, second):  # both have a copy of version 1
            shop.emit("a")
            assert engine.step().taken == 1
        for version in range(2, 6):
            shop.apply(op={"signal": "a", "eq": version})
            old, new = shop.emit("a", version - 1), shop.emit("a", version)
            taken = (second, shop.engine)[version % 2].step()
            while shop.evaluate() or second.step().taken:
                pass
            assert taken.taken > 0
            last = shop.connection.execute(
                "SELECT version, cause_id FROM pgsig.actions ORDER BY id DESC LIMIT 1"
            ).fetchone()
            assert last == (version, new)
            assert shop.outcomes(old) == []


def test_without_the_check_of_revisions_it_would(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.apply(op={"signal": "a"})
    shop.emit("a")
    shop.evaluate()
    monkeypatch.setattr(Engine, "definitions", lambda self, revisions: self.catalog)
    shop.apply(op={"signal": "a", "eq": 2})
    shop.emit("a", 1)
    shop.evaluate()
    assert shop.call("SELECT max(version) FROM pgsig.actions WHERE action = 'START'") == 1


def test_a_condition_of_a_newer_pgsig_stops_an_old_worker_and_loses_nothing(shop: Workshop, database: str) -> None:
    shop.apply(op={"signal": "a"}, other={"signal": "b"})
    shop.emit("nobody.waits")
    shop.evaluate()
    shop.call("""UPDATE pgsig_private.rule SET condition = '{"signal": "a", "from_the_future": 1}' WHERE name = 'start'
                    AND operator_id = (SELECT id FROM pgsig_private.operator WHERE name = 'op') RETURNING 1""")
    announce_all(shop.connection)
    a, b = shop.emit("a"), shop.emit("b")
    for _ in range(3):
        with pytest.raises(
            ValueError, match=r'rule start of w\.op: PS502 /from_the_future: "from_the_future" does not go with signal'
        ):
            shop.engine.step(poison={a: "tried three times"})
    assert (shop.actions(), shop.outcomes(a)) == ([], [])
    # A worker that can read it takes over where the old one stood.
    shop.connection.execute(
        "UPDATE pgsig_private.rule SET condition = '{\"signal\": \"a\"}' WHERE condition ? 'from_the_future'"
    )
    with connect(database, name="newer") as another:
        assert Engine(another).step().taken == 2
    assert [(operator, evidence) for operator, _, _, _, evidence in shop.actions()] == [("op", [a]), ("other", [b])]


@pytest.mark.parametrize("known", [True, False])
def test_a_worker_reads_the_definitions_before_it_is_one(shop: Workshop, database: str, known: bool) -> None:
    """So that no lane waits for it; what it cannot read it says when it is asked."""
    shop.apply(op={"signal": "a"})
    if not known:
        shop.connection.execute("UPDATE pgsig_private.rule SET condition = '{\"from_the_future\": 1}'")
    worker = Worker(Settings(database_url=database))
    session = worker.open()
    try:
        assert (session.engine.catalog is not None) is known
    finally:
        worker.leave(session)


def test_an_apply_on_a_stale_base_is_refused(connection: Connection) -> None:
    apply(connection, document(op=batch(BOTH)))
    apply(connection, document(op=batch({"signal": "a"})), base=1)
    with pytest.raises(Conflict, match="PS541"):
        apply(connection, document(op=batch({"signal": "b"})), base=1)
