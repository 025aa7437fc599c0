"""The storage core: every committed signal is taken once, in order, however transactions overlap.

`test_under_concurrency` throws everything at the real `take`. The rest steps two or three connections through the interleavings at which
plausible variants of it lose or repeat signals, and shows that the real one does not. A table lock serves as a gate: it stops a take
between two of its statements for as long as the test wants.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from tests.store.naive import VARIANTS
from tests.store.traffic import Emitter, Taker, Traffic
from tests.support_core import Background, Connection, one, wait_until_blocked

REAL = "SELECT key FROM pgsig_private.take(100)"
GATED = "SELECT key FROM naive.gated(100)"  # the real one, which reads one empty table more once it has its snapshot


class Scene:
    """Two takers, two emitters and a gate, each a connection of its own."""

    def __init__(self, stack: ExitStack, database: str) -> None:
        def connect() -> Connection:
            return stack.enter_context(psycopg.connect(database, autocommit=True))

        self.taker, self.other, self.emitter, self.late, self.gate = (connect() for _ in range(5))
        self.emitter.execute(VARIANTS.encode())
        self.emitter.execute(b"CREATE TABLE naive.gate ()")
        text = one(self.emitter, "SELECT pg_get_functiondef('pgsig_private.take'::regproc)")
        gated, times = re.subn(r"v_end := [^;]+;", r"\g<0> PERFORM FROM naive.gate;", text, count=1)
        assert times == 1
        self.emitter.execute(gated.replace("pgsig_private.take", "naive.gated").encode())
        # One lane only: a take looks at the others before or after, each with a snapshot of its own.
        self.emitter.execute("DELETE FROM pgsig_private.lane WHERE lane <> (hashtextextended('default', 0) & 3)")
        # The first call of a function in a session reads definitions, at which a gate would stop it too early.
        for name in (REAL, GATED, naive("no_filter"), naive("snapshot_late")):
            self.take(name)

    def emit(self, key: str, connection: Connection | None = None) -> None:
        (connection or self.emitter).execute("SELECT pgsig.emit(%s)", [key])

    def take(self, how: str, connection: Connection | None = None) -> list[str]:
        return [row[0] for row in (connection or self.taker).execute(how.encode())]

    @contextmanager
    def stopped_at(self, table: str, mode: str, how: str) -> Iterator[Background[list[str]]]:
        """Start a take and hold it where it needs `table`; it goes on when the block is left."""
        with self.gate.transaction():
            self.gate.execute(f"LOCK TABLE {table} IN {mode} MODE".encode())
            going = Background(lambda: self.take(how))
            wait_until_blocked(self.emitter, self.taker)
            yield going


@pytest.fixture
def scene(database: str) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack, database)


def naive(name: str) -> str:
    return f"SELECT * FROM naive.{name}()"


@pytest.mark.parametrize("seed", range(6))
def test_the_lag_is_what_is_committed_and_not_taken(scene: Scene, seed: int) -> None:
    """Also in the middle of a window: emitters that begin before it and commit within it or later, and small takes."""
    dice = random.Random(seed)
    waiting = {scene.emitter: 0, scene.late: 0}
    committed = taken = 0
    for _ in range(150):
        connection = dice.choice(list(waiting))
        match dice.choice(("emit", "emit", "emit", "end", "take")):
            case "emit":
                if not waiting[connection]:
                    connection.execute("BEGIN")
                many = dice.randint(1, 9)
                connection.execute("SELECT pgsig.emit('k') FROM generate_series(1, %s)", [many])
                waiting[connection] += many
            case "end":
                connection.execute("COMMIT")
                committed, waiting[connection] = committed + waiting[connection], 0
            case "take":
                taken += len(scene.take(f"SELECT key FROM pgsig_private.take({dice.randint(1, 12)})"))
        assert one(scene.other, "SELECT sum(waiting) FROM pgsig.lag") == committed - taken
    assert taken > 50


@pytest.mark.parametrize(
    ("how", "table", "first", "second"),
    [
        pytest.param(naive("no_filter"), "naive.cursor", ["z", "a"], ["a"], id="naive repeats it"),
        pytest.param(GATED, "naive.gate", ["z"], ["a"], id="take"),
    ],
)
def test_commit_between_snapshot_and_rows(
    scene: Scene, how: str, table: str, first: list[str], second: list[str]
) -> None:
    scene.emit("z")
    with scene.stopped_at(table, "ACCESS EXCLUSIVE", how) as going:  # the snapshot is taken, the cursor is not read yet
        scene.emit("a")
    assert going.result() == first
    assert scene.take(how) == second


@pytest.mark.parametrize(
    ("how", "table", "second"),
    [
        pytest.param(naive("snapshot_late"), "naive.cursor", [], id="naive loses it"),
        pytest.param(REAL, "pgsig_private.cursor", ["b"], id="take"),
    ],
)
def test_commit_between_rows_and_cursor(scene: Scene, how: str, table: str, second: list[str]) -> None:
    scene.emit("a")
    with scene.stopped_at(table, "SHARE", how) as going:  # the rows are read, the cursor cannot be written yet
        scene.emit("b")
    assert going.result() == ["a"]
    assert scene.take(how) == second


@pytest.mark.parametrize(
    ("how", "level", "second"),
    [
        pytest.param(naive("anywhere"), "REPEATABLE READ", ["a"], id="naive repeats it"),
        pytest.param(naive("anywhere"), "READ COMMITTED", [], id="right in READ COMMITTED"),
        pytest.param(REAL, "READ COMMITTED", [], id="take"),
    ],
)
def test_snapshot_older_than_the_lock(scene: Scene, how: str, level: str, second: list[str]) -> None:
    scene.emit("a")
    with scene.taker.transaction():
        scene.taker.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        scene.taker.execute("SELECT 1")  # in REPEATABLE READ the snapshot is fixed from here on
        assert scene.take(how, scene.other) == ["a"]
        assert scene.take(how) == second


def test_a_take_that_began_before_another_ended(scene: Scene) -> None:
    """Even the statement that calls `take` may be older than the lock: what counts are the statements inside."""
    scene.emit("a")
    with scene.gate.transaction():
        scene.gate.execute("LOCK TABLE pgsig_private.lane IN ACCESS EXCLUSIVE MODE")
        going = Background(lambda: scene.take(REAL))  # has its snapshot, waits before it asks for the lane
        wait_until_blocked(scene.emitter, scene.taker)
        # Everything of a take by hand but the look at the table that is the gate: another worker takes `a` meanwhile.
        with scene.other.transaction():
            lane = one(scene.other, "SELECT (hashtextextended('default', 0) & 3)::integer")
            assert one(scene.other, "SELECT pg_try_advisory_xact_lock(1885827945, %s)", lane)
            scene.other.execute(
                "INSERT INTO pgsig_private.cursor (lane, seq, s1) VALUES (%s, 2, pg_current_snapshot())", [lane]
            )
    assert going.result() == []


@pytest.mark.parametrize(
    ("how", "writes_first", "second"),
    [
        pytest.param(naive("anywhere"), True, [], id="naive loses its own signal"),
        pytest.param(naive("anywhere"), False, ["own"], id="right when it is first"),
        pytest.param(REAL, False, ["own"], id="take"),
    ],
)
def test_own_transaction_id_before_the_snapshot(scene: Scene, how: str, writes_first: bool, second: list[str]) -> None:
    with scene.taker.transaction():
        if writes_first:
            scene.taker.execute("SELECT pg_current_xact_id()")
        scene.emit("a")  # a younger transaction ends: by the snapshot, everything older has ended too
        assert scene.take(how) == ["a"]
        scene.emit("own", scene.taker)
    assert scene.take(how) == second


@pytest.mark.parametrize(
    ("how", "second"),
    [pytest.param(naive("last_id"), [], id="naive loses it"), pytest.param(REAL, ["early"], id="take")],
)
def test_commits_out_of_order(scene: Scene, how: str, second: list[str]) -> None:
    with scene.late.transaction():
        scene.emit("early", scene.late)
        scene.emit("late")
        assert scene.take(how) == ["late"]
    assert scene.take(how) == second


@pytest.mark.parametrize("mistake", ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT pg_current_xact_id()"])
def test_take_refuses_where_it_would_be_wrong(scene: Scene, mistake: str) -> None:
    scene.emit("a")
    with scene.taker.transaction(force_rollback=True):
        scene.taker.execute(mistake.encode())
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            scene.take(REAL)
    assert scene.take(REAL) == ["a"]


def test_cursor_cannot_move_twice(scene: Scene) -> None:
    """The second guard: even with the lock out of the way, two takes of one window cannot both commit."""
    scene.emit("a")
    insert = "INSERT INTO pgsig_private.cursor (lane, seq, s1) SELECT lane, seq + 1, pg_current_snapshot() FROM pgsig_private.cursor"
    with scene.taker.transaction():
        scene.taker.execute(insert)
        doubled = Background(lambda: scene.other.execute(insert))
        wait_until_blocked(scene.emitter, scene.other)
    with pytest.raises(psycopg.errors.UniqueViolation):
        doubled.result()


def test_window_in_pieces(scene: Scene) -> None:
    """A window larger than the limit is worked off in order; what commits meanwhile comes after it, even with a lower position."""
    take_two = "SELECT key FROM pgsig_private.take(2)"
    with scene.late.transaction():
        scene.emit("late", scene.late)
        scene.emitter.execute("INSERT INTO pgsig.signals (key) SELECT 'k' || i FROM generate_series(1, 5) i")
        assert scene.take(take_two) == ["k1", "k2"]
    assert [scene.take(take_two) for _ in range(4)] == [["k3", "k4"], ["k5"], ["late"], []]


def test_window_in_pieces_with_gaps(scene: Scene) -> None:
    """Positions of one window may lie far apart, and other signals between them."""
    take_two = "SELECT key FROM pgsig_private.take(2)"
    with scene.late.transaction():
        scene.emit("early", scene.late)
        for number in range(1, 4):
            scene.emit(f"a{number}")
            scene.emitter.execute(
                "SELECT setval('pgsig_private.signal_id', nextval('pgsig_private.signal_id') + %s)", [10**number]
            )
        scene.emitter.execute(
            "INSERT INTO pgsig.signals (namespace, key)"
            " SELECT n, 'elsewhere' FROM generate_series(1, 20), unnest(ARRAY['alpha', 'beta', 'gamma']) n"
            " WHERE hashtextextended(n, 0) & 3 <> hashtextextended('default', 0) & 3"
        )
        scene.emit("a4")
        scene.emit("a5")
        assert scene.take(take_two) == ["a1", "a2"]
        scene.emit("b")
    assert [scene.take(take_two) for _ in range(4)] == [["a3", "a4"], ["a5"], ["early", "b"], []]


def test_partition_may_go_when_every_lane_has_passed_it(scene: Scene) -> None:
    """Signals not yet taken keep a partition. A lane in which nothing happens does not, nor does a transaction that is open elsewhere: what
    that one leaves in it after all is found before it is dropped (pgsig_private.drop_detached)."""
    scene.emitter.execute("INSERT INTO pgsig_private.lane (lane) SELECT (lane + 1) & 3 FROM pgsig_private.lane")
    with scene.late.transaction():
        scene.late.execute("SELECT pg_current_xact_id()")
        scene.emit("a")
        part = one(
            scene.emitter, "SELECT relname FROM pg_class WHERE oid = (SELECT tableoid FROM pgsig_private.signal)"
        )
        passed = "SELECT pgsig_private.passed(%s)"
        assert not one(scene.emitter, passed, part)
        assert scene.take(REAL) == ["a"]
        assert one(scene.emitter, passed, part)


def test_open_writer_delays_nobody(scene: Scene) -> None:
    with scene.late.transaction(force_rollback=True):
        scene.emit("never", scene.late)
        for number in range(20):
            scene.emit(f"k{number}")
            assert scene.take(REAL) == [f"k{number}"]
    assert scene.take(REAL) == []


def test_rolled_back_take_takes_nothing(scene: Scene) -> None:
    scene.emit("a")
    with scene.taker.transaction(force_rollback=True):
        assert scene.take(REAL) == ["a"]
        assert scene.take(REAL, scene.other) == []  # the lane is locked
    assert scene.take(REAL, scene.other) == ["a"]


def test_under_concurrency(database: str) -> None:
    """Six emitters, four takers, four seconds of everything: none lost, none twice, each emitter's in its order."""
    with Traffic(database) as traffic:
        emitters = [Emitter(traffic, number) for number in range(6)]
        takers = [Taker(traffic, number) for number in range(4)]
        traffic.run(emitters, takers, seconds=4)
        seen = traffic.seen()
    committed = [marker for worker in (*emitters, *takers) for marker in worker.committed]
    assert len(committed) > 250
    assert sum(emitter.rolled_back for emitter in emitters) > 25
    assert sorted(committed) == sorted(marker for _, marker in seen)
    by_source: dict[str, list[int]] = {}
    for source, marker in seen:
        by_source.setdefault(source, []).append(marker)
    for worker in (*emitters, *takers):
        assert by_source.get(worker.name, []) == worker.committed, worker.name
