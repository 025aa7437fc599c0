"""PgQueuer, as its own benchmark runs it: asyncpg, two consumers that fetch 100 jobs at a time."""

from __future__ import annotations

import asyncio
import time

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from tests.bench.peer import main, now, pause, say

CONSUMERS, BATCH = 2, 100


async def _queries(address: str) -> Queries:
    return Queries(AsyncpgDriver(await asyncpg.connect(address)))


async def _install(address: str) -> None:
    queries = await _queries(address)
    await queries.install()
    await queries.driver.execute("ANALYZE")


async def _fill(address: str, number: int) -> None:
    queries = await _queries(address)
    for first in range(0, number, 1000):
        many = min(1000, number - first)
        await queries.enqueue(["noop"] * many, [b"0"] * many, [0] * many)


async def _drain(address: str, number: int) -> float:
    done = 0
    consumers = []
    for _ in range(CONSUMERS):
        consumer = PgQueuer(AsyncpgDriver(await asyncpg.connect(address)))

        @consumer.entrypoint("noop")
        async def noop(_: Job) -> None:
            nonlocal done
            done += 1

        consumers.append(consumer)
    begin = time.perf_counter()
    await asyncio.gather(*(c.run(batch_size=BATCH, mode=QueueExecutionMode.drain) for c in consumers))
    assert done == number, (done, number)
    return time.perf_counter() - begin


async def _work(address: str, number: int) -> list[float]:
    found: list[float] = []
    consumer = PgQueuer(AsyncpgDriver(await asyncpg.connect(address)))

    @consumer.entrypoint("noop")
    async def noop(job: Job) -> None:
        assert job.payload is not None
        found.append(now() - float(job.payload))
        if len(found) == number:
            consumer.shutdown.set()

    say("ready")
    await consumer.run(batch_size=10, mode=QueueExecutionMode.continuous)
    return found


async def _send(address: str, number: int) -> None:
    queries = await _queries(address)
    for _ in range(number):
        await asyncio.sleep(pause())
        await queries.enqueue("noop", str(now()).encode(), 0)


if __name__ == "__main__":
    main({
        "install": lambda address, _: asyncio.run(_install(address)),
        "fill": lambda address, number: asyncio.run(_fill(address, number)),
        "drain": lambda address, number: asyncio.run(_drain(address, number)),
        "work": lambda address, number: asyncio.run(_work(address, number)),
        "send": lambda address, number: asyncio.run(_send(address, number)),
    })  # fmt: skip
