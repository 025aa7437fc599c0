"""Asks jobs whether they are ready or alive, by HTTP or by a command: one thread for all of them. When, `pgsig.decide.health` decides.

Good is a status from 200 to 299, and exit code 0. No redirect is followed. Each answer has its deadline, whatever trickles in meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pgsig.condition.duration import text
from pgsig.decide.health import Probe

log = logging.getLogger(__name__)
MOST_AT_ONCE = 32
LONGEST_LINE = 1024  # bytes of an answer that are looked at
LAST_WORDS = 200  # bytes of a command's output that are told


class Prober:
    """tell: called from the thread with (key, what was wrong), "" for nothing, once for each `ask`. Its thread begins with the first."""

    def __init__(self, tell: Callable[[tuple[int, int], str], None]) -> None:
        self._tell = tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._places: asyncio.Semaphore | None = None
        self._asked: set[asyncio.Task[None]] = set()

    def ask(self, key: tuple[int, int], probe: Probe, *, env: Mapping[str, str], cwd: str | None) -> None:
        """Ask a job, and return at once. key: of its grant. env, cwd: what a command gets; `{port}` in a URL is PGSIG_PORT of it."""
        if self._loop is None:
            self._loop, begun = asyncio.new_event_loop(), threading.Event()
            self._loop.call_soon(begun.set)
            self._thread = threading.Thread(target=self._work, args=(self._loop,), name="pgsig-probes", daemon=True)
            self._thread.start()
            begun.wait()
        self._loop.call_soon_threadsafe(self._begin, key, probe, env, cwd)

    def close(self) -> None:
        """Ask no more. What is being asked is broken off, and not told."""
        if self._loop and self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    # ── the thread ──

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        try:
            loop.run_forever()
            for task in self._asked:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*self._asked, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_default_executor())  # it looks names up
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _begin(self, key: tuple[int, int], probe: Probe, env: Mapping[str, str], cwd: str | None) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(key, probe, env, cwd))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _ask(self, key: tuple[int, int], probe: Probe, env: Mapping[str, str], cwd: str | None) -> None:
        assert self._places is not None
        async with self._places:
            try:
                async with asyncio.timeout(probe.timeout):
                    if probe.http:
                        problem = await _http(probe.http.replace("{port}", env.get("PGSIG_PORT", "")))
                    else:
                        problem = await _command(probe.command, env, cwd)
            except TimeoutError:
                problem = f"no answer within {text(probe.timeout)}"
            except (OSError, ValueError) as error:
                number = error.errno if isinstance(error, OSError) else None
                problem = os.strerror(number).lower() if number else str(error)
            except Exception as error:  # a probe that cannot be made is a probe that failed
                log.exception("a probe of run %s", key[0])
                problem = f"{type(error).__name__}: {error}"
        self._tell(key, problem)


async def _http(url: str) -> str:
    parts = urlsplit(url)
    host, path = parts.hostname or "127.0.0.1", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    reader, writer = await asyncio.open_connection(host, parts.port or 80, limit=LONGEST_LINE)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: pgsig-probe\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        line = (await reader.readline()).decode("latin-1").split()
    except ValueError:
        line = []
    finally:
        writer.close()
    if len(line) < 2 or not line[0].startswith("HTTP/") or not line[1].isdecimal():
        return "the answer is not HTTP"
    return "" if 200 <= int(line[1]) < 300 else f"status {line[1][:3]}"


async def _command(line: tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> str:
    # Into a file: a pipe could fill, and whoever inherited it could keep it open.
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *line, env=env, cwd=cwd, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code == 0:
            return ""
        output.seek(max(0, output.seek(0, os.SEEK_END) - LAST_WORDS))
        words = output.read().decode("utf-8", "replace").strip().splitlines()
    return f"exit code {code}" + (f": {words[-1].strip()}" if words else "")
