"""Real worker processes while things break: every committed signal leads to exactly one action, one that was rolled back to none."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import psycopg
import pytest

from pgsig.doorbell import CHANNEL
from pgsig.embedded import EmbeddedPostgres
from pgsig.store.migrate import migrate
from tests.support import wait_for
from tests.support_core import Connection, WorkerProcess, one, operator, workers

pytestmark = pytest.mark.faults

FAILPOINTS = ("engine.taken", "engine.decided", "engine.locked", "engine.recorded", "engine.committed")
ONLY_BY_BELL = 60  # seconds of poll interval: longer than any test waits
SOON = 10.0


def emit(connection: Connection, key: str = "load", value: str = "1", subject: str = "") -> int:
    return int(one(connection, "SELECT pgsig.emit(%s, %s::jsonb, %s)", key, value, subject))


def causes(connection: Connection) -> list[int]:
    """The signal behind each action, one entry for each action."""
    return sorted(row[0] for row in connection.execute("SELECT cause_id FROM pgsig_private.action"))


def wait_for_causes(connection: Connection, wanted: list[int], timeout: float = SOON) -> None:
    wait_for(lambda: len(causes(connection)) >= len(wanted), timeout, about=f"{len(wanted)} actions")
    assert causes(connection) == sorted(wanted)


def more_than(listed: list[int], wanted: int) -> bool:
    return len(listed) > wanted


class Emitters:
    """Threads that emit, and know what they committed. doubtful: positions whose commit was under way when the server went."""

    def __init__(self, database: str, count: int = 3) -> None:
        self._database = database
        self._over = threading.Event()
        self.committed: list[int] = []
        self.doubtful: list[int] = []
        self.rolled_back: list[int] = []
        self._threads = [threading.Thread(target=self._work, args=[seed], daemon=True) for seed in range(count)]

    def __enter__(self) -> Emitters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _work(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._over.is_set():
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self._database, autocommit=True) as connection,
            ):
                while not self._over.is_set():
                    self._once(connection, dice)
            self._over.wait(0.05)  # the server is away

    def _once(self, connection: Connection, dice: random.Random) -> None:
        ids: list[int] = []
        undo = dice.random() < 0.25
        try:
            with connection.transaction(force_rollback=undo):
                for _ in range(dice.randint(1, 4)):
                    ids.append(emit(connection, subject=f"s{dice.randrange(20)}"))
                    self._over.wait(dice.random() * 0.02)
        except psycopg.OperationalError:
            self.doubtful += [] if undo else ids
            raise
        (self.rolled_back if undo else self.committed).extend(ids)
        self._over.wait(dice.random() * 0.03)


@pytest.fixture
def loaded(connection: Connection) -> Connection:
    """A connection to a database whose one operator starts at each signal."""
    operator(connection, "o", ("START", {"signal": "load"}))
    return connection


def test_workers_killed_at_random(database: str, loaded: Connection) -> None:
    """Three workers; for some seconds one after the other is killed, at random or at a failpoint, and replaced."""
    dice, points = random.Random(1), cycle(FAILPOINTS)
    alive = [WorkerProcess(database) for _ in range(3)]
    kills = 0
    try:
        alive[0].wait_until_ready(loaded)
        with Emitters(database) as emitters:
            end = monotonic() + 5
            while monotonic() < end or kills < 6:  # a busy machine starts a worker slowly
                number = dice.randrange(3)
                threading.Event().wait(dice.random() * 0.3)
                alive[number].kill()
                # Half of the new ones kill themselves in the middle of their work.
                fail = f"{next(points)}=kill9:{dice.randint(1, 20)}" if dice.random() < 0.5 else ""
                alive[number] = WorkerProcess(database, failpoints=fail)
                alive[number].wait_until_ready(loaded)
                kills += 1
        alive.append(WorkerProcess(database))
        wait_for_causes(loaded, emitters.committed, 20)
    finally:
        for worker in alive:
            worker.kill()
    assert len(emitters.committed) > 100
    assert len(emitters.rolled_back) > 20


@pytest.mark.parametrize("point", FAILPOINTS)
def test_worker_killed_at(database: str, loaded: Connection, point: str) -> None:
    doomed = WorkerProcess(database, failpoints=f"{point}=kill9")
    doomed.wait_until_ready(loaded)
    signal = emit(loaded)
    assert doomed.process.wait(SOON) == -9
    assert causes(loaded) == ([signal] if point == "engine.committed" else [])
    with workers(database):
        wait_for_causes(loaded, [signal])
        wait_for_causes(loaded, [signal, emit(loaded)])


def test_every_notify_dropped(database: str, loaded: Connection) -> None:
    poll = 0.5
    with workers(database, poll_seconds=poll):
        ids: list[int] = []
        took: list[float] = []
        loaded.execute("SET pgsig.bell = 'off'")
        for _ in range(5):
            begin = monotonic()
            ids.append(emit(loaded))
            wait_for_causes(loaded, ids)
            took.append(monotonic() - begin)
        assert median(took) < poll + 0.5  # one may meet a machine that is busy with something else


@pytest.mark.parametrize("what", [" (bell)", ""])
def test_a_session_is_terminated(database: str, loaded: Connection, what: str) -> None:
    """Holding the bell, or listening and taking: whichever connection is lost comes back, and the bell works again."""
    with workers(database, poll_seconds=ONLY_BY_BELL):
        ids = [emit(loaded)]
        wait_for_causes(loaded, ids)
        pattern = f"pgsig worker [^ ]+{'' if not what else what.replace('(', '[(]').replace(')', '[)]')}"
        terminate = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name ~ ('^' || %s || '$')"
        )
        for _ in range(2):
            # The second time it may still be on its way back.
            wait_for(lambda: loaded.execute(terminate, [pattern]).rowcount == 1, about=f"the session{what}")
            for _ in range(2):
                ids.append(emit(loaded))
                wait_for_causes(loaded, ids)


def test_burst_needs_no_further_event(database: str, loaded: Connection) -> None:
    with workers(database, poll_seconds=ONLY_BY_BELL, batch=7):
        with loaded.transaction():
            ids = [emit(loaded, subject=f"s{number}") for number in range(50)]
        wait_for_causes(loaded, ids)


@pytest.mark.timed
def test_nobody_rings_under_load(database: str, loaded: Connection) -> None:
    """Commits that come close upon each other find the worker awake: a NOTIFY each would make them wait for each other's fsync."""
    with workers(database, poll_seconds=ONLY_BY_BELL), psycopg.connect(database, autocommit=True) as listener:
        ids = [emit(loaded)]
        wait_for_causes(loaded, ids)  # the definitions are loaded from here on
        listener.execute(f"LISTEN {CHANNEL}".encode())
        # On a machine with nothing else to do a hundred of 1,500. A worker that never lets the bell go has each of them ring, as one does
        # that is held up while it has the bell: of several loads one is told by fewer.
        rings: list[int] = []
        while len(rings) < 5 and (not rings or rings[-1] >= 1200):
            ids += [emit(loaded, subject=f"s{len(rings)}.{number}") for number in range(1500)]
            wait_for_causes(loaded, ids)
            loaded.execute(f"NOTIFY {CHANNEL}, 'end'".encode())
            rings.append(0)
            for heard in listener.notifies(timeout=SOON):
                if heard.payload == "end":
                    break
                rings[-1] += 1
        assert 0 < rings[-1] < 1200, rings
        ids.append(emit(loaded))  # it sleeps again, or will
        wait_for_causes(loaded, ids)


def test_open_write_transaction_delays_nobody(database: str, loaded: Connection) -> None:
    """Another emitter, open since before, has signalled already. Everybody else's signals are acted on at once; in the end its own too."""
    with workers(database, 2, poll_seconds=ONLY_BY_BELL), psycopg.connect(database, autocommit=True) as other:
        ids: list[int] = []
        with other.transaction():
            late = emit(other)
            for _ in range(5):
                begin = monotonic()
                ids.append(emit(loaded))
                wait_for_causes(loaded, ids)
                assert monotonic() - begin < 2
        wait_for_causes(loaded, [*ids, late])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, durable."""
    tmp_path.chmod(0o711)
    server = EmbeddedPostgres(tmp_path / "postgres", fsync=True)
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")


def test_postgres_crashes(server: EmbeddedPostgres) -> None:
    """Immediate stop and restart under load: what was committed before is there, and nothing is done twice."""
    database = server.dsn()
    migrate(database)
    with psycopg.connect(database, autocommit=True) as connection:
        operator(connection, "o", ("START", {"signal": "load"}))
    alive = [WorkerProcess(database, poll_seconds=0.5) for _ in range(2)]
    try:
        with Emitters(database) as emitters:
            for round_ in range(3):
                wait_for(partial(more_than, emitters.committed, 40 * (round_ + 1)), 20, about="signals")
                server.stop("immediate")
                server.start()
        with psycopg.connect(database, autocommit=True) as connection:
            stored = [row[0] for row in connection.execute("SELECT id FROM pgsig.signals ORDER BY id")]
            wait_for_causes(connection, stored, 20)
    finally:
        for worker in alive:
            worker.kill()
    assert set(emitters.committed) <= set(stored)
    assert set(stored) <= set(emitters.committed) | set(emitters.doubtful)


POISON: dict[str, Any] = {"nested too deeply": "[" * 1500 + "]" * 1500, "a number too long": "1e4999"}


@pytest.mark.parametrize("value", POISON.values(), ids=POISON)
def test_poison_value(database: str, connection: Connection, value: str) -> None:
    """A value that Postgres keeps and Python cannot read is put aside with a reason; the rest of its batch goes on."""
    operator(connection, "o", ("START", {"signal": "load", "eq": 1}))
    with connection.transaction():
        good = [emit(connection)]
        bad = emit(connection, value=value)
        good.append(emit(connection))
    with workers(database):
        wait_for_causes(connection, good)
    found = connection.execute("SELECT outcome, detail FROM pgsig.outcomes WHERE signal_id = %s", [bad]).fetchall()
    assert [outcome for outcome, _ in found] == ["quarantined"]
    assert "Error" in found[0][1]


def test_poison_that_breaks_the_connection(database: str, connection: Connection) -> None:
    """A function whose backend does not survive it: the same signals again and again are no outage. They are put aside, and only they."""
    connection.execute("CREATE SCHEMA ops")
    connection.execute(
        "CREATE FUNCTION ops.deadly(signal jsonb, state jsonb, OUT state_after jsonb, OUT met boolean) LANGUAGE plpgsql AS $$ BEGIN"
        " met := true; IF signal->>'subject' = 'bad' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; END $$"
    )
    operator(connection, "o", ("START", {"signal": "load", "met_by": "ops.deadly"}))
    with connection.transaction():
        good = [emit(connection, subject="a")]
        bad = emit(connection, subject="bad")
        good.append(emit(connection, subject="b"))
    with workers(database, poll_seconds=0.05):
        wait_for_causes(connection, good)
    found = connection.execute("SELECT outcome, detail FROM pgsig.outcomes WHERE signal_id = %s", [bad]).fetchall()
    assert [outcome for outcome, _ in found] == ["quarantined"]
    assert "AdminShutdown" in found[0][1]


def test_poison_state(database: str, connection: Connection) -> None:
    """What no code foresaw: a rule whose evaluation fails. It puts its signal aside after the third try, and it alone does."""
    operator(connection, "bad", ("START", {"all": [{"signal": "load"}, {"signal": "other"}]}))
    operator(connection, "good", ("START", {"signal": "load"}))
    rule = one(connection, "SELECT min(id) FROM pgsig_private.rule")
    connection.execute(
        "INSERT INTO pgsig_private.rule_state (rule_id, subject, body) VALUES (%s, 'broken', '{\"pending\": {\"x\": 1}}')",
        [rule],
    )
    with connection.transaction():
        before = emit(connection, subject="a")
        broken = emit(connection, subject="broken")
        after = emit(connection, subject="b")
    with workers(database, poll_seconds=0.05):
        wait_for_causes(connection, [before, broken, after])
    outcomes = connection.execute("SELECT operator, outcome, detail FROM pgsig.outcomes WHERE signal_id = %s", [broken])
    assert {(rule, outcome, (detail or "")[:10]) for rule, outcome, detail in outcomes} == {
        ("bad", "quarantined", "ValueError"),
        ("good", "consumed", ""),
    }
