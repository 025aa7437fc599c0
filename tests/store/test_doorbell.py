"""The doorbell: whoever commits while every worker sleeps wakes one, whatever the order of steps; while one is awake nobody notifies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import combinations_with_replacement, islice, product

import psycopg
import pytest

from pgsig import doorbell
from pgsig.doorbell import CHANNEL, Doorbell
from pgsig.doorbell import SOON as LOOK_WITHIN
from tests import support_jobs as jobs
from tests.support import wait_for
from tests.support_core import Connection, one

SOON, LONG = 5.0, 30.0


class Sleeper:
    """A worker with nothing to do: it looks, arms the bell, looks again, and sleeps, step by step."""

    def __init__(self, database: str, name: str, connect: Callable[[], Connection]) -> None:
        self.bell = Doorbell(database, name=name, listen_on=self.line)
        self._connect = connect
        self._connection = connect()
        self.seen = 0

    def line(self) -> Connection:
        """The connection that it works over and listens on; anew where it was lost."""
        if self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def steps(self) -> Iterator[None]:
        """One look or one try to arm at a time; ends when the worker would sleep. As `Worker.turn` has it."""
        while True:
            self.look()
            yield
            if not self.bell.arm():
                return
            yield

    def fall_asleep(self) -> None:
        for _ in self.steps():
            pass

    def look(self) -> None:
        self.seen = one(self.line(), "SELECT count(*) FROM pgsig.signals")


class House:
    def __init__(self, stack: ExitStack, database: str) -> None:
        self._stack, self._database = stack, database
        self.first, self.second, self.listener = self.connect(), self.connect(), self.connect()
        self.listener.execute(f"LISTEN {CHANNEL}".encode())

    def connect(self, name: str = "") -> Connection:
        return self._stack.enter_context(psycopg.connect(self._database, autocommit=True, application_name=name))

    def sleeper(self, name: str = "a") -> Sleeper:
        sleeper = Sleeper(self._database, name, lambda: self.connect(name))
        self._stack.callback(sleeper.bell.close)
        return sleeper

    def rings(self) -> int:
        """How often it rang since the last call. Notifications come in the order of commits, so one of our own ends the wait."""
        self.listener.execute(f"NOTIFY {CHANNEL}, 'end'".encode())
        for rung, heard in enumerate(self.listener.notifies(timeout=SOON)):
            if heard.payload == "end":
                return rung
        pytest.fail("the listener's own notification did not arrive")


@pytest.fixture
def house(database: str) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(stack, database)


def emit(connection: Connection) -> None:
    connection.execute("INSERT INTO pgsig.signals (key) VALUES ('k')")


STEPS = 7  # of falling asleep, at most: look, arm, look, arm (in line?), look, arm, and then asleep


def test_no_interleaving_loses_a_wake_up(house: House) -> None:
    """Two emitters begin and commit at every pair of moments of a worker's falling asleep: it sees both, or is woken."""
    sleeper, total = house.sleeper(), 0
    moments = list(combinations_with_replacement(range(STEPS), 2))  # (begin, commit) of one emitter
    for first, second in product(moments, moments):
        sleeper.bell.disarm()
        while sleeper.bell.wait(0):
            pass
        steps = sleeper.steps()
        for moment in range(STEPS):
            for connection, (begin, commit) in ((house.first, first), (house.second, second)):
                if moment == begin:
                    connection.execute("BEGIN")
                    emit(connection)
                if moment == commit:
                    connection.execute("COMMIT")
                    total += 1
            next(steps, None)
        while sleeper.seen < total:
            for _ in steps:
                pass
            if sleeper.seen < total:
                assert sleeper.bell.wait(SOON), f"never woken: {first} {second}"
            steps = sleeper.steps()
        assert sleeper.seen == total


def test_open_emitter_keeps_nobody_asleep(house: House) -> None:
    """An emitter that stays open shares the bell's lock. Others still ring, and its own commit wakes too."""
    sleeper, other = house.sleeper(), house.connect()
    with house.first.transaction():
        emit(house.first)
        sleeper.fall_asleep()
        assert not sleeper.bell.held
        for number in range(1, 4):
            emit(other)
            assert sleeper.bell.wait(SOON)
            sleeper.fall_asleep()
            assert sleeper.seen == number
    assert sleeper.bell.wait(SOON)
    sleeper.fall_asleep()
    assert sleeper.seen == 4
    assert sleeper.bell.held


def test_rings_only_while_everybody_sleeps(house: House) -> None:
    sleeper = house.sleeper()
    emit(house.first)
    assert house.rings() == 0
    sleeper.fall_asleep()
    emit(house.first)
    assert house.rings() == 1
    sleeper.bell.disarm()
    emit(house.first)
    assert house.rings() == 0


def test_one_awake_worker_is_enough(house: House) -> None:
    """An idle worker leaves the bell alone while another is at work, and takes it when that one dies."""
    busy, idle = house.sleeper("busy"), house.sleeper("idle")
    busy.bell.disarm()
    idle.fall_asleep()
    assert not idle.bell.held
    emit(house.first)
    assert house.rings() == 0
    busy.bell.close()
    busy.bell = Doorbell("", name="gone", listen_on=lambda: None)
    wait_for(lambda: idle.bell.arm() or idle.bell.held, about="the bell to be free")
    emit(house.first)
    assert house.rings() == 1


def test_holder_lets_go_when_another_comes_to_work(house: House) -> None:
    idle, busy = house.sleeper("idle"), house.sleeper("busy")
    idle.fall_asleep()
    busy.bell.disarm()
    rung = 0
    for _ in range(10):
        emit(house.first)
        if not house.rings():
            break
        rung += 1
        assert idle.bell.wait(SOON)
        idle.fall_asleep()
    assert rung == 3
    assert not idle.bell.held


def test_who_stands_in_line_lets_go_when_another_is_at_work(house: House) -> None:
    waiting, busy = house.sleeper("a"), house.sleeper("b")
    with house.first.transaction():
        emit(house.first)
        waiting.fall_asleep()  # in line behind the one who emits
        busy.bell.disarm()
    assert waiting.bell.wait(SOON)  # it gets the bell, sees that another is at work, and lets go
    waiting.fall_asleep()
    assert not waiting.bell.held
    emit(house.first)
    assert house.rings() == 0


def test_who_comes_to_work_disturbs_nobody(house: House) -> None:
    on_duty, idle = house.sleeper("a"), house.sleeper("b")
    on_duty.fall_asleep()
    idle.fall_asleep()
    on_duty.bell.disarm()
    emit(house.first)
    assert house.rings() == 0
    assert not idle.bell.wait(0)


def test_takeover_when_the_holder_dies(house: House) -> None:
    holder, heir = house.sleeper("holder"), house.sleeper("heir")
    holder.fall_asleep()
    heir.fall_asleep()
    assert (holder.bell.held, heir.bell.held) == (True, False)
    kill_sessions(house.first, "pgsig holder (bell)")
    assert heir.bell.wait(SOON)  # on duty now, at once and not at its next poll
    heir.fall_asleep()
    assert heir.bell.held
    assert holder.bell.wait(SOON)  # it notices, and stands in line now
    holder.fall_asleep()
    assert not holder.bell.held
    emit(house.first)
    assert heir.bell.wait(SOON)


def test_who_stands_in_line_loses_its_connection(house: House) -> None:
    """The server's last words end the wait for the lock like the lock itself; the connection that is no more must not end the worker."""
    holder, waiting = house.sleeper("holder"), house.sleeper("waiting")
    holder.fall_asleep()
    waiting.fall_asleep()
    kill_sessions(house.first, "pgsig waiting (bell)")
    for _ in range(3):
        waiting.bell.wait(0.05)
    waiting.fall_asleep()
    kill_sessions(house.first, "pgsig holder (bell)")
    assert waiting.bell.wait(SOON)  # it stood in line again
    waiting.fall_asleep()
    assert waiting.bell.held


def test_listening_connection_lost(house: House) -> None:
    """What was rung while nobody listened is not missed: after the reconnect it looks."""
    sleeper = house.sleeper()
    sleeper.fall_asleep()
    kill_sessions(house.first, "a")
    emit(house.first)
    assert sleeper.bell.wait(SOON)  # the end of the connection
    sleeper.fall_asleep()
    assert sleeper.seen == 1
    emit(house.first)
    assert sleeper.bell.wait(SOON)


def test_bell_can_be_turned_off(house: House) -> None:
    house.sleeper().fall_asleep()
    with house.first.transaction():
        house.first.execute("SET LOCAL pgsig.bell = 'off'")
        emit(house.first)
    assert house.rings() == 0


def kill_sessions(connection: Connection, name: str) -> None:
    killed = connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = current_database()",
        [name],
    )
    assert killed.rowcount == 1


def test_who_stands_in_line_keeps_no_dead_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a statement waits, its snapshot keeps vacuum from removing anything in the whole database. So it ends, and begins anew."""
    monkeypatch.setattr(doorbell, "IN_LINE_FOR", 0.05)
    holder, heir = house.sleeper("holder"), house.sleeper("heir")
    holder.fall_asleep()

    def in_line() -> int | None:
        heir.fall_asleep()
        return horizon(house.first, "pgsig heir (bell)")

    first = wait_for(in_line, SOON)
    one(house.first, "SELECT pg_current_xact_id()")
    assert heir.bell.wait(SOON)
    assert horizon(house.first, "pgsig heir (bell)") is None
    wait_for(lambda: (in_line() or 0) > (first or 0), SOON)
    kill_sessions(house.first, "pgsig holder (bell)")
    assert heir.bell.wait(SOON)
    heir.fall_asleep()
    assert heir.bell.held


def test_behind_one_who_emits_for_long_the_line_is_left_and_joined_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever commits between the two is seen by the look that follows; nobody is missed, and the bell is had in the end."""
    monkeypatch.setattr(doorbell, "IN_LINE_FOR", 0.05)
    sleeper, other = house.sleeper(), house.connect()
    with house.first.transaction():
        emit(house.first)
        sleeper.fall_asleep()
        assert sleeper.bell.wait(SOON)  # out of line
        emit(other)  # that one shares the lock, and rings nobody
        sleeper.fall_asleep()
        assert sleeper.seen == 1
        assert lets_go(sleeper)
    assert sleeper.bell.wait(SOON)
    sleeper.fall_asleep()
    assert not lets_go(sleeper)
    assert sleeper.seen == 2


def test_a_line_that_cannot_be_joined_is_no_reason_to_spin(house: House) -> None:
    """A statement that fails at once is an outage: looked at once more, and then the poll has to do."""
    holder, heir = house.sleeper("holder"), house.sleeper("heir")
    holder.fall_asleep()
    house.first.execute("ALTER FUNCTION pgsig_private.stand_in_line RENAME TO gone")
    looks = heir.steps()
    assert sum(1 for _ in islice(looks, 20)) < 20
    assert not heir.bell.duty


def horizon(connection: Connection, name: str) -> int | None:
    """The oldest transaction of which a session wants to see what it saw."""
    found = one(
        connection,
        "SELECT backend_xmin::text::bigint FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = current_database()",
        name,
    )
    assert found is None or isinstance(found, int)
    return found


def test_one_signal_wakes_one_of_many(house: House) -> None:
    """Twenty workers without work: one of them is on duty and listens, the others wait until it is gone."""
    sleepers = [house.sleeper(f"w{number}") for number in range(20)]
    for sleeper in sleepers:
        sleeper.fall_asleep()
    emit(house.first)
    woken: list[Sleeper] = []

    def anybody() -> bool:
        woken.extend(sleeper for sleeper in sleepers if sleeper.bell.wait(0))
        return bool(woken)

    wait_for(anybody, SOON)
    assert house.rings() == 1  # whoever was to hear it has heard it
    woken += [sleeper for sleeper in sleepers if sleeper.bell.wait(0)]
    assert {id(sleeper) for sleeper in woken} == {id(woken[0])}


def test_who_tires_wakes_the_one_on_duty(house: House) -> None:
    """A worker that was awake on behalf of all falls asleep: somebody has to hear the next ring, and it is not the one that tired."""
    on_duty, busy = house.sleeper("duty"), house.sleeper("busy")
    on_duty.fall_asleep()
    busy.fall_asleep()
    busy.bell.disarm()
    for _ in range(10):
        if lets_go(on_duty):
            break
        emit(house.first)
        assert on_duty.bell.wait(SOON)
        on_duty.fall_asleep()
    assert lets_go(on_duty)
    busy.fall_asleep()
    assert on_duty.bell.wait(SOON)
    on_duty.fall_asleep()
    assert not lets_go(on_duty)
    emit(house.first)
    assert on_duty.bell.wait(SOON)
    assert not busy.bell.wait(0)


def lets_go(sleeper: Sleeper) -> bool:
    """Whether it has not got the bell."""
    return not sleeper.bell.held


def test_a_ring_that_can_wait_is_looked_for_a_moment_later(house: House) -> None:
    sleeper = house.sleeper()
    sleeper.fall_asleep()
    sleeper.bell.can_wait = {"starting"}
    begun = time.monotonic()
    house.first.execute(f"NOTIFY {CHANNEL}, 'starting'".encode())
    assert sleeper.bell.wait(LONG)
    assert LOOK_WITHIN <= time.monotonic() - begun < LONG
    assert not sleeper.bell.wait(0)  # it was looked for


def test_a_ring_that_cannot_wait_ends_the_wait_of_one_that_can(house: House) -> None:
    sleeper = house.sleeper()
    sleeper.fall_asleep()
    sleeper.bell.can_wait = {"starting"}
    with house.first.transaction():
        house.first.execute(f"NOTIFY {CHANNEL}, 'starting'".encode())
        house.first.execute(f"NOTIFY {CHANNEL}".encode())
    assert sleeper.bell.wait(LONG)
    assert not sleeper.bell.wait(LOOK_WITHIN * 2)  # one look finds both


def test_a_run_that_starts_says_so_in_its_ring(house: House) -> None:
    run = jobs.start(house.first, jobs.operator(house.first, "o", command=["true"]))
    sleeper = house.sleeper()
    sleeper.fall_asleep()
    heard = house.connect()
    heard.execute(f"LISTEN {CHANNEL}".encode())
    join = "SELECT pgsig_private.join_processes('runner', 'here', 'host', 1, '0', '{default}', 1, '1 minute')"
    process = one(house.first, join)
    assert one(house.first, "SELECT id FROM pgsig_private.claim(%s, '{default}', 1)", process) == run
    assert [note.payload for note in heard.notifies(timeout=SOON, stop_after=1)] == ["starting"]
