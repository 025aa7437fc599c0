"""The doors into the log that are SQL: what they refuse, with every reason at once; who may use them; repeated events; chains of cause."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support_core import Background, Connection, one, operator, wait_until_blocked

KIB = 1024


def codes(error: psycopg.Error) -> list[str]:
    """The codes of a refusal with the fields that they are about, `PS101 key`, one for each line."""
    lines = (error.diag.message_primary or "").splitlines()
    found = [re.match(r"(PS\d{3}) ([^:]*):", line) for line in lines]
    assert all(found), lines
    return [f"{match[1]} {match[2].strip('/')}".strip() for match in found if match]


def emit(connection: Connection, key: str | None = "k", value: str = "1", **more: Any) -> int:
    given = sql.SQL("").join(sql.SQL(", {} => {}").format(sql.Identifier(k), v) for k, v in more.items())
    row = connection.execute(sql.SQL("SELECT pgsig.emit({}, {}::jsonb{})").format(key, value, given)).fetchone()
    assert row is not None
    return int(row[0])


def insert(connection: Connection, **given: Any) -> None:
    row = {"key": "k", **given}
    connection.execute(
        sql.SQL("INSERT INTO pgsig.signals ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(map(sql.Literal, row.values()))
        )
    )


def count(connection: Connection) -> int:
    return int(one(connection, "SELECT count(*) FROM pgsig.signals"))


# ── refusals ──


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"key": None}, ["PS101 key"]),
        ({"key": ""}, ["PS101 key"]),
        ({"key": "a.*"}, ["PS101 key"]),
        ({"key": "Big Key"}, ["PS101 key"]),
        ({"key": "a..b"}, ["PS101 key"]),
        ({"key": "a\nb"}, ["PS101 key"]),
        ({"key": "k" * 201}, ["PS101 key"]),
        ({"key": "run.w.o.succeeded"}, ["PS102 key"]),
        ({"key": "tick"}, ["PS102 key"]),
        ({"value": json.dumps([["x" * 50, i] for i in range(6000)])}, ["PS103 value"]),
        ({"namespace": "No"}, ["PS104 namespace"]),
        ({"namespace": None}, ["PS104 namespace"]),
        ({"namespace": "n" * 64}, ["PS104 namespace"]),
        ({"subject": "é" * 101}, ["PS105 subject"]),
        ({"source": "s" * 201}, ["PS106 source"]),
        ({"event_id": ""}, ["PS107 event_id"]),
        ({"event_id": "e" * 201}, ["PS107 event_id"]),
        (
            {"key": "manual.*", "namespace": "", "subject": "s" * 300, "source": "s" * 300, "event_id": ""},
            ["PS101 key", "PS102 key", "PS104 namespace", "PS105 subject", "PS106 source", "PS107 event_id"],
        ),
    ],
)
def test_emit_and_insert_name_every_problem(connection: Connection, given: dict[str, Any], problems: list[str]) -> None:
    for door in emit, insert:
        with pytest.raises(psycopg.Error) as refused:
            door(connection, **given)
        assert codes(refused.value) == problems
        assert refused.value.sqlstate == problems[0][:5]
        assert refused.value.diag.message_hint == "nothing was stored"
    assert count(connection) == 0


def test_the_quick_look_and_the_names_of_the_problems_agree(connection: Connection) -> None:
    """The guard decides by a quick look, and asks only then what is wrong. Odd rows, by the letter of the rules in Python."""
    chance = random.Random(7)
    pieces = [
        "",
        "a",
        "z9",
        "-",
        ":",
        "_",
        ".",
        "..",
        "run",
        "tick",
        "manual",
        "timer",
        "runs",
        "A",
        "é",
        " ",
        "*",
        "\n",
        "/",
        "{",
        "`",
        "a" * 63,
        "k" * 199,
    ]
    outcome: dict[bool, int] = {True: 0, False: 0}
    for _ in range(600):
        key = "".join(chance.choices(pieces, k=chance.randint(0, 3)))
        namespace = "".join(chance.choices(pieces, k=chance.randint(1, 2))) if chance.random() < 0.3 else "default"
        good = (
            re.fullmatch(r"[a-z0-9_:-]+(\.[a-z0-9_:-]+)*", key) is not None
            and len(key) <= 200
            and re.match(r"(run|tick|manual|timer)(\.|\Z)", key) is None
            and re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", namespace) is not None
        )
        outcome[good] += 1
        for door in insert, emit:
            refusal = ""
            try:
                door(connection, key=key, namespace=namespace)
            except psycopg.Error as error:
                refusal = error.sqlstate or "?"
            assert bool(re.match("PS10[124]$", refusal)) is not good, (key, namespace, refusal)
    assert min(outcome.values()) > 60


def test_the_lane_is_the_namespace_s(connection: Connection) -> None:
    for number in range(8):
        for door in insert, emit:
            door(connection, namespace=f"n{number}")
            door(connection, namespace=f"n{number}", event_id=f"{door.__name__}{number}")
    for subject in "", "s" * 190, "s" * 200:
        insert(connection, subject=subject)
        emit(connection, subject=subject)
    insert(connection, kind="state", key="run.w.o.failed")
    connection.execute("""SELECT pgsig.emit_many('[{"key": "a"}, {"key": "a", "namespace": "n1"}]')""")
    assert count(connection) == 41
    assert one(connection, "SELECT count(DISTINCT lane) FROM pgsig.signals") >= 2
    assert one(connection, "SELECT count(*) FROM pgsig.signals WHERE lane <> hashtextextended(namespace, 0) & 3") == 0


def test_what_only_pgsig_writes(connection: Connection) -> None:
    insert(connection, key="manual.w.o", kind="manual")
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(connection, kind="other")
    with pytest.raises(psycopg.Error, match="PS101"):
        insert(connection, key="manual.*", kind="manual")
    for column in "value", "subject", "source", "kind":
        with pytest.raises(psycopg.errors.NotNullViolation):
            insert(connection, **{column: None})


@pytest.mark.parametrize("given", [{"lane": 3}, {"xid": "3"}, {"lane": 3, "xid": "3", "depth": 7, "id": 9}])
def test_nobody_passes_the_guard_by_naming_what_it_gives(connection: Connection, given: dict[str, Any]) -> None:
    """The owner, who may name every column, neither."""
    for more in {}, {"namespace": "n1"}, {"event_id": "e"}:
        with pytest.raises(psycopg.Error) as refused:
            insert(connection, key="Big Key", **more, **given)
        assert codes(refused.value) == ["PS101 key"]
        insert(connection, **more, **given)
    assert count(connection) == 3
    forged = "lane <> hashtextextended(namespace, 0) & 3 OR xid = '3' OR NOT pg_visible_in_snapshot(xid, pg_current_snapshot())"
    assert one(connection, f"SELECT count(*) FROM pgsig.signals WHERE {forged}") == 0


@pytest.mark.parametrize("more", ["", ", namespace => 'n1'", ", event_id => 'e'", ", kind => 'tick'"])
def test_insert_says_what_it_stored(connection: Connection, more: str) -> None:
    names, values = ["key"], ["'k'"]
    for name, value in re.findall(r"(\w+) => ('\w+')", more):
        names.append(name)
        values.append(value)
    statement = f"INSERT INTO pgsig.signals ({', '.join(names)}) VALUES ({', '.join(values)}) RETURNING *"
    with connection.transaction():
        said = connection.execute(statement.encode()).fetchone()
        assert said is not None
        assert one(connection, "SELECT xid = pg_current_xact_id() FROM pgsig.signals")
    assert None not in said[:5] + said[9:]  # all but the value, which is null, the event's id and the run's
    assert connection.execute("SELECT * FROM pgsig_private.signal").fetchall() == [said]
    assert connection.execute("SELECT * FROM pgsig.signals").fetchall() == [said]


def test_what_was_can_be_loaded(connection: Connection) -> None:
    """By who may: position and time as they are given, and where they are not, as ever."""
    earlier = one(connection, "SELECT clock_timestamp() - interval '1 second'")
    with connection.cursor().copy("COPY pgsig.signals (id, emitted_at, key, kind) FROM STDIN") as copy:
        copy.write_row((-7, earlier, "k", "user"))
        copy.write_row((None, None, "run.w.o.failed", "state"))
    found = connection.execute("SELECT id, emitted_at FROM pgsig.signals ORDER BY id").fetchall()
    assert found[0] == (-7, earlier)
    assert found[1][0] > 0
    assert found[1][1] > earlier


def test_copy_and_merge_store_a_repeated_event_once(connection: Connection) -> None:
    with connection.cursor().copy("COPY pgsig.signals (key, namespace, event_id) FROM STDIN") as copy:
        for event_id in "e", "f", "e":
            copy.write_row(("k", "n1", event_id))
    if connection.info.server_version >= 170000:  # an older one merges into no view
        merge = """
            MERGE INTO pgsig.signals s USING (VALUES ('f'), ('g')) v(event) ON s.event_id = v.event || '?'
             WHEN NOT MATCHED THEN INSERT (key, namespace, event_id) VALUES ('k', 'n1', v.event)
        """
        assert connection.execute(merge.encode()).rowcount == 1
    else:
        connection.execute(
            "INSERT INTO pgsig.signals (key, namespace, event_id) VALUES ('k', 'n1', 'g') ON CONFLICT DO NOTHING"
        )
    assert connection.execute("SELECT event_id FROM pgsig.signals ORDER BY id").fetchall() == [("e",), ("f",), ("g",)]


@pytest.mark.parametrize("key", ["a", "a.b-c:d_e.9", "k" * 200, "runner.x", "ticker", "manuals.a"])
def test_emit_takes(connection: Connection, key: str) -> None:
    emit(connection, key)
    assert count(connection) == 1


def test_emit_many_names_every_problem_and_keeps_nothing(connection: Connection) -> None:
    signals = [{"key": "fine"}, {"key": "*", "vla\nue": 1}, "text", {"key": "b", "subject": "s" * 300}, None]
    with pytest.raises(psycopg.Error) as refused:
        connection.execute("SELECT pgsig.emit_many(%s::jsonb)", [json.dumps(signals)])
    wanted = ["PS111 1/vla ue", "PS101 1/key", "PS110 2", "PS105 3/subject", "PS110 4"]
    assert sorted(codes(refused.value)) == sorted(wanted)
    assert count(connection) == 0
    for other in ("{}", "1", "null"):
        with pytest.raises(psycopg.Error, match="PS110"):
            connection.execute("SELECT pgsig.emit_many(%s::jsonb)", [other])


def test_emit_many_answers_in_order(connection: Connection) -> None:
    signals = [{"key": "k", "value": number} for number in range(50)]
    rows = connection.execute("SELECT pgsig.emit_many(%s::jsonb)", [json.dumps(signals)]).fetchall()
    stored = connection.execute("SELECT id FROM pgsig.signals ORDER BY value::int").fetchall()
    assert rows == stored == sorted(rows)


@pytest.mark.parametrize(
    ("value", "state"),
    [('"\\u0000"', "22P05"), ('"\\ud800"', "22P02"), ("NaN", "22P02"), ("Infinity", "22P02"), ("{", "22P02"), ("[" * 20000, "54001")],
)  # fmt: skip
def test_values_that_are_none(connection: Connection, value: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        emit(connection, "k", value)
    assert refused.value.sqlstate == state


@pytest.mark.parametrize("value", ["1e4999", "[" * 1500 + "]" * 1500, '{"a": 1, "a": 2}', '"' + "é" * 100000 + '"'])
def test_odd_values_are_kept(connection: Connection, value: str) -> None:
    """What Postgres can hold is a fact; what a worker cannot read of it is put aside there."""
    signal = emit(connection, "k", value)
    same = "SELECT value = %s::jsonb FROM pgsig.signals WHERE id = %s"
    assert one(connection, same, value, signal)


# ── repeated events ──


def test_repeated_event_answers_with_its_first_position(connection: Connection) -> None:
    first = emit(connection, "k", '{"a": 1, "b": 2}', event_id="e", source="s")
    assert emit(connection, "k", '{"b": 2, "a": 1}', event_id="e", source="s") == first
    assert emit(connection, "k", '{"a": 1, "b": 2}', event_id="e", source="other") != first
    assert emit(connection, "k", '{"a": 1, "b": 2}', event_id="e", source="s", namespace="elsewhere") != first
    insert = "INSERT INTO pgsig.signals (key, value, source, event_id) VALUES ('k', '{\"a\": 1, \"b\": 2}', 's', 'e')"
    assert connection.execute(insert.encode()).rowcount == 0
    assert count(connection) == 3


@pytest.mark.parametrize("other", [{"key": "l"}, {"value": "2"}, {"subject": "s"}])
def test_repeated_event_with_another_body(connection: Connection, other: dict[str, str]) -> None:
    emit(connection, "k", "1", event_id="e")
    with pytest.raises(psycopg.Error) as refused:
        emit(connection, **{"key": "k", "value": "1", "event_id": "e", **other})
    assert refused.value.sqlstate == "PS109"
    assert count(connection) == 1


def test_event_of_a_transaction_that_rolled_back_was_none(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        emit(connection, "k", "1", event_id="e")
    emit(connection, "k", "2", event_id="e")
    assert one(connection, "SELECT value FROM pgsig.signals") == 2


def test_repetition_within_emit_many(connection: Connection) -> None:
    signals = [{"key": "k", "event_id": "e"}, {"key": "l"}, {"key": "k", "event_id": "e"}]
    ids = [row[0] for row in connection.execute("SELECT pgsig.emit_many(%s::jsonb)", [json.dumps(signals)])]
    assert ids[0] == ids[2] != ids[1]
    assert count(connection) == 2


@pytest.mark.parametrize("seed", range(3))
def test_emit_many_answers_as_emit_would_one_by_one(connection: Connection, seed: int) -> None:
    """Signals with and without event ids, repeated within the array and of before, from several sources and namespaces."""
    chance = random.Random(seed)
    known: dict[tuple[str, str, str], int] = {}
    for _ in range(4):
        signals: list[dict[str, Any]] = [
            {"key": "k", "namespace": chance.choice(["a", "b"]), "source": chance.choice(["s", "t"]),
             "event_id": chance.choice([None, *(f"e{number}" for number in range(30))])}
            for _ in range(25)
        ]  # fmt: skip
        ids = [row[0] for row in connection.execute("SELECT pgsig.emit_many(%s::jsonb)", [json.dumps(signals)])]
        assert len(ids) == len(signals)
        new = []
        for given, id in zip(signals, ids, strict=True):
            place = (given["namespace"], given["source"], given["event_id"])
            if given["event_id"] is None or place not in known:
                new.append(id)
                known[place] = id
            else:
                assert id == known[place]
        assert new == sorted(set(new))  # each of its own, in the order given
        found = connection.execute(
            "SELECT id, namespace, source, event_id FROM pgsig.signals WHERE id = ANY (%s)", [new]
        )
        assert {row[0]: row[1:] for row in found} == {
            id: (given["namespace"], given["source"], given["event_id"])
            for given, id in zip(signals, ids, strict=True)
            if id in new
        }
        assert count(connection) == one(connection, "SELECT count(DISTINCT id) FROM pgsig.signals")


def test_emit_many_sees_what_another_stores_meanwhile(connection: Connection, database: str) -> None:
    """It waits for a transaction that has stored one of its event ids, and answers with that position, though it began before."""
    with psycopg.connect(database) as other:
        first = one(other, "SELECT pgsig.emit('k', event_id => 'e')")
        call = 'SELECT pgsig.emit_many(\'[{"key": "l"}, {"key": "k", "event_id": "e"}, {"key": "m"}]\')'
        with psycopg.connect(database, autocommit=True) as second:
            waiting = Background(lambda: [row[0] for row in second.execute(call.encode())])
            wait_until_blocked(connection, second)
            other.commit()
            ids = waiting.result()
    assert ids[1] == first
    keys = connection.execute("SELECT key FROM pgsig.signals WHERE id = ANY (%s) ORDER BY id", [[ids[0], ids[2]]])
    assert [row[0] for row in keys] == ["l", "m"]


# ── chains of cause ──


def test_depth_comes_from_the_run(connection: Connection) -> None:
    operator_id = operator(connection, "o")
    connection.execute(
        "INSERT INTO pgsig_private.run (id, operator_id, generation, version, action_id, depth) VALUES (7, %s, 1, 1, 1, 41)",
        [operator_id],
    )
    emit(connection, "k", run_id=7)
    connection.execute("INSERT INTO pgsig.signals (key, run_id) VALUES ('k', 7)")
    connection.execute('SELECT pgsig.emit_many(\'[{"key": "k", "run_id": 7}]\')')
    assert connection.execute("SELECT DISTINCT depth FROM pgsig.signals").fetchall() == [(41,)]
    for door in emit, insert:
        with pytest.raises(psycopg.Error) as refused:
            door(connection, key="k", run_id=8)
        assert refused.value.sqlstate == "PS108"


def test_emit_many_of_plain_signals_of_a_run_s_and_of_repeated_events(connection: Connection) -> None:
    operator_id = operator(connection, "o")
    connection.execute(
        "INSERT INTO pgsig_private.run (id, operator_id, generation, version, action_id, depth) VALUES (7, %s, 1, 1, 1, 41)",
        [operator_id],
    )
    first = emit(connection, "k", event_id="known")
    signals = [
        {"key": "plain"},
        {"key": "told", "run_id": 7},
        {"key": "k", "value": 1, "event_id": "known"},
        {"key": "told", "run_id": 7, "event_id": "new", "namespace": "n1"},
        {"key": "told", "run_id": 7, "event_id": "new", "namespace": "n1"},
        {"key": "plain", "namespace": "n1", "source": "s"},
    ]
    ids = [row[0] for row in connection.execute("SELECT pgsig.emit_many(%s::jsonb)", [json.dumps(signals)])]
    assert ids[2] == first
    assert ids[3] == ids[4]
    new = [ids[0], ids[1], ids[3], ids[5]]
    assert new == sorted(new)
    found = connection.execute(
        "SELECT key, namespace, run_id, depth, event_id, source = session_user, lane = hashtextextended(namespace, 0) & 3, kind"
        " FROM pgsig.signals WHERE id = ANY (%s) ORDER BY id",
        [new],
    ).fetchall()
    assert found == [
        ("plain", "default", None, 0, None, True, True, "user"),
        ("told", "default", 7, 41, None, True, True, "user"),
        ("told", "n1", 7, 41, "new", True, True, "user"),
        ("plain", "n1", None, 0, None, False, True, "user"),
    ]
    for wrong, code in ({"run_id": 8}, "PS108"), ({"event_id": "new", "namespace": "n1"}, "PS109"):
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(
                "SELECT pgsig.emit_many(%s::jsonb)", [json.dumps([{"key": "plain"}, {"key": "k", **wrong}])]
            )
        assert refused.value.sqlstate == code
    assert count(connection) == 5
