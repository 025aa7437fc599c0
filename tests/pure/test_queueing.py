"""The simulation behind docs/scaling.md, against what is known of queues by other ways."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, factorial, inf
from random import Random
from statistics import fmean

import pytest

from tests.bench.queueing import Cores, Event, Lock, Log, Process, World

JOBS = 60_000


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_the_wait_for_one_core_is_that_of_pollaczek_and_khinchine(load: float) -> None:
    """Arrivals at random, the same work each."""
    assert waits(load, 1, lambda _: 100.0) == pytest.approx(load * 100.0 / (2 * (1 - load)), rel=0.07)


@pytest.mark.parametrize(("load", "cores"), [(0.5, 2), (0.7, 2), (0.7, 4)])
def test_the_wait_for_several_cores_is_that_of_erlang(load: float, cores: int) -> None:
    """Arrivals and work at random."""
    offered = load * cores
    full = offered**cores / factorial(cores) / (1 - load)
    waiting = full / (sum(offered**n / factorial(n) for n in range(cores)) + full)
    assert waits(load, cores, lambda random: random.expovariate(0.01)) == pytest.approx(
        waiting * 100.0 / (cores * (1 - load)), rel=0.1
    )


def waits(load: float, cores: int, work: Callable[[Random], float]) -> float:
    """The mean of what jobs of 100 µs on average waited for a core."""
    world, random, found = World(), Random(1), []
    some = Cores(world, cores, turn=inf)

    def job(micros: float) -> Process:
        begin = world.now
        yield some.work(micros)
        found.append(world.now - begin - micros)

    def arrivals() -> Process:
        for _ in range(JOBS):
            yield world.sleep(random.expovariate(load * cores / 100.0))
            world.start(job(work(random)))

    world.start(arrivals())
    world.run()
    assert len(found) == JOBS
    return fmean(found)


@pytest.mark.parametrize(
    ("clients", "cores", "rate"), [(1, 2, 1 / 150), (2, 2, 2 / 150), (7, 2, 2 / 100), (7, 16, 7 / 150)]
)
def test_clients_are_as_fast_as_they_can_be_or_as_there_are_cores(clients: int, cores: int, rate: float) -> None:
    """100 µs of work and 50 of rest."""
    world, done = World(), 0
    some = Cores(world, cores)

    def client() -> Process:
        nonlocal done
        while True:
            yield some.work(100.0)
            done += 1
            yield world.sleep(50.0)

    for _ in range(clients):
        world.start(client())
    world.run(1e6)
    assert done / 1e6 == pytest.approx(rate, rel=0.01)


def test_nobody_keeps_a_core_from_others_for_longer_than_a_turn() -> None:
    world, ends = World(), {}
    one = Cores(world, 1, turn=1000.0)

    def job(name: str, micros: float) -> Process:
        yield one.work(micros)
        ends[name] = world.now

    world.start(job("long", 50_000.0))
    world.start(job("short", 100.0))
    world.run()
    assert ends == {"short": 1100.0, "long": 50_100.0}


@pytest.mark.parametrize("clients", [1, 2, 3, 16, 64])
def test_commits_share_flushes(clients: int) -> None:
    """Whoever commits waits for a flush that began after its write, and at most for the rest of the one before it. So where there is
    nothing else to do a flush takes half of the clients at least."""
    world, latencies = World(), []
    log = Log(world, Cores(world, 1000), device=200.0, work=0.0)

    def client() -> Process:
        while True:
            begin, started = world.now, log.flushes
            log.write(100.0)
            yield from log.flush()
            latencies.append(world.now - begin)
            # Of the flushes that have ended meanwhile, the last one began after the write.
            assert log.flushes - started >= 1
            assert latencies[-1] >= 200.0

    for _ in range(clients):
        world.start(client())
    world.run(2e5)
    assert max(latencies) <= 400.0
    assert log.flushes == pytest.approx(2e5 / 200.0, rel=0.01)  # the device never rests
    shared = len(latencies) / log.flushes
    assert ceil(clients / 2) * 0.99 <= shared <= max(1, clients)


def test_a_flush_of_much_takes_as_long_as_the_device_needs_for_it() -> None:
    world = World()
    log = Log(world, Cores(world, 1), device=200.0, work=50.0, rate=10.0)

    def once() -> Process:
        log.write(30_000.0)
        yield from log.flush()

    world.start(once())
    world.run()
    assert world.now == 200.0 + 50.0 + 30_000.0 / 10.0


def test_a_lock_is_had_by_one_at_a_time_in_order() -> None:
    world, lock, order, within = World(), Lock(), [], 0

    def holder(name: int) -> Process:
        nonlocal within
        yield lock.acquire
        within += 1
        assert within == 1
        yield world.sleep(10.0)
        order.append((name, world.now))
        within -= 1
        lock.release()

    for name in range(3):
        world.start(holder(name))
    world.run()
    assert order == [(0, 10.0), (1, 20.0), (2, 30.0)]


def test_an_event_wakes_all_that_wait_and_nobody_later() -> None:
    world, event, woken = World(), Event(), []

    def waiter(name: int) -> Process:
        yield event.wait
        woken.append(name)

    for name in range(2):
        world.start(waiter(name))
    event.fire()
    world.start(waiter(2))
    assert woken == [0, 1]
