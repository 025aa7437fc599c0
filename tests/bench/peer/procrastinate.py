"""procrastinate with ten jobs at a time, finished jobs deleted: the fastest of its settings here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from procrastinate import App, PsycopgConnector
from procrastinate.types import JSONValue

from tests.bench.peer import main, now, pause, say


def _app(address: str) -> App:
    return App(connector=PsycopgConnector(conninfo=address, max_size=12))


async def _install(address: str) -> None:
    app = _app(address)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def _fill(address: str, number: int) -> None:
    app = _app(address)
    task = app.task(queue="q", name="noop")(_noop)
    async with app.open_async():
        nothing: list[dict[str, JSONValue]] = [{"t": 0}] * 100
        for done in range(0, number, 100):
            await task.batch_defer_async(*nothing[: number - done])


async def _noop(t: float) -> None:
    pass


async def _run(app: App, *, wait: bool) -> None:
    await app.run_worker_async(
        queues=["q"], wait=wait, concurrency=10, delete_jobs="always", install_signal_handlers=False
    )


async def _drain(address: str, number: int) -> float:
    app, done = _app(address), 0

    async def noop(t: float) -> None:
        nonlocal done
        done += 1

    app.task(queue="q", name="noop")(noop)
    async with app.open_async():
        begin = time.perf_counter()
        await _run(app, wait=False)
        assert done == number, (done, number)
        return time.perf_counter() - begin


async def _work(address: str, number: int) -> list[float]:
    app, found, ended = _app(address), list[float](), asyncio.Event()

    async def noop(t: float) -> None:
        found.append(now() - t)
        if len(found) == number:
            ended.set()

    app.task(queue="q", name="noop")(noop)
    async with app.open_async():
        working = asyncio.create_task(_run(app, wait=True))
        say("ready")
        await ended.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    return found


async def _send(address: str, number: int) -> None:
    app = _app(address)
    task = app.task(queue="q", name="noop")(_noop)
    async with app.open_async():
        for _ in range(number):
            await asyncio.sleep(pause())
            await task.defer_async(t=now())


def _word(call: Callable[[str, int], Awaitable[object]]) -> Callable[[str, int], object]:
    async def run(address: str, number: int) -> object:
        return await call(address, number)

    return lambda address, number: asyncio.run(run(address, number))


if __name__ == "__main__":
    main({
        "install": lambda address, _: asyncio.run(_install(address)),
        "fill": _word(_fill), "drain": _word(_drain), "work": _word(_work), "send": _word(_send),
    })  # fmt: skip
