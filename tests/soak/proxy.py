"""The network between processes and Postgres: a TCP proxy with one port for each process, and faults for each port."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
HOST = "127.0.0.1"


class _Wire:
    """One port. mode: flow; stall: nothing passes and nothing ends; refuse: who comes is sent away; mute: answers are lost."""

    def __init__(self) -> None:
        self.mode = "flow"
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.open: set[asyncio.StreamWriter] = set()


class Proxy:
    """Runs in a thread of its own. server: the address that everything goes to, asked for each connection."""

    def __init__(self, server: Callable[[], int | None]) -> None:
        self._server = server
        self._wires: dict[str, _Wire] = {}
        self._listening: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="soak-proxy", daemon=True)
        self._thread.start()

    def open(self, name: str) -> int:
        """A new port."""
        return self._do(self._open(name))

    def set(self, name: str, mode: str) -> None:
        """Change what happens on a port. From mute to anything else, and to refuse and cut, its connections end: bytes are missing."""
        self._do(self._set(name, mode))

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _open(self, name: str) -> int:
        wire = self._wires[name] = _Wire()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(wire, reader, writer)

        server = await asyncio.start_server(serve, HOST, 0)
        self._listening.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _set(self, name: str, mode: str) -> None:
        wire = self._wires[name]
        if mode in ("cut", "refuse") or wire.mode == "mute":
            for writer in list(wire.open):
                writer.transport.abort()
        wire.mode = "flow" if mode == "cut" else mode
        if wire.mode == "stall":
            wire.flowing.clear()
        else:
            wire.flowing.set()

    async def _close(self) -> None:
        for server in self._listening:
            server.close()
        for wire in self._wires.values():
            wire.flowing.set()
            for writer in list(wire.open):
                writer.transport.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if wire.mode == "refuse":
            writer.transport.abort()
            return
        wire.open.add(writer)
        beyond: asyncio.StreamWriter | None = None
        try:
            await wire.flowing.wait()
            answers, beyond = await asyncio.open_connection(HOST, self._server() or 1)
            wire.open.add(beyond)
            pumps = {
                asyncio.create_task(_pump(wire, reader, beyond, "there")),
                asyncio.create_task(_pump(wire, answers, writer, "back")),
            }
            _, left = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for one in filter(None, (writer, beyond)):
                wire.open.discard(one)
                with contextlib.suppress(Exception):
                    one.close()


async def _pump(wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            await wire.flowing.wait()
            if way == "back" and wire.mode == "mute":
                continue
            writer.write(data)
            await writer.drain()
