"""What changed, for everybody who watches: one thread for each web process asks, however many streams wait.

The thread lives while somebody watches. It listens on `pgsig_changes` and looks by itself each second; NOTIFY only
makes it look sooner. Changes are found by snapshots, so a transaction that commits late is seen all the same.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

import psycopg

from pgsig.errors import PgsigError, Unavailable
from pgsig.store.database import Connection, Database, connect
from pgsig.store.reading import Heads, heads, keys_between, reading

logger = logging.getLogger(__name__)

CHANNEL = "pgsig_changes"
GAP = 0.25  # seconds between two looks, however often somebody notifies
LINGER = 5.0  # seconds that the thread stays after the last watcher has gone: a reload of a page comes back at once


@dataclass(frozen=True)
class Change:
    """The state of everything at one look. serial: grows by one with each look that found something new."""

    serial: int = 0
    heads: Heads | None = None
    keys: tuple[str, ...] = ()


class TooMany(PgsigError):
    """Every place for a stream is taken."""


class Live:
    """The watch of one process. most: streams at the same time. Closing it ends them all."""

    def __init__(self, database: Database, direct_url: str, *, poll: float = 1.0, most: int = 24) -> None:
        self._database, self._url, self._poll, self._most = database, direct_url, min(poll, 1.0), most
        self._news = threading.Condition()
        self._change = Change()
        self._watchers = 0
        self._left = 0.0
        self._runs: Counter[int] = Counter()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.ending: Callable[[], bool] = lambda: False

    @property
    def closed(self) -> bool:
        return self._stop.is_set() or self.ending()

    @contextlib.contextmanager
    def watching(self, run: int | None = None) -> Iterator[None]:
        """Be told of changes inside this block; of a run's log too if one is named. Raises TooMany."""
        with self._news:
            if self._watchers >= self._most:
                raise TooMany("every live stream of this process is in use", code="PS629", fix="try again, or poll")
            self._watchers += 1
            if run is not None:
                self._runs[run] += 1
            if self._thread is None and not self.closed:
                self._change = Change(self._change.serial)
                self._thread = threading.Thread(target=self._watch, name="pgsig live", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._news:
                self._watchers -= 1
                self._left = monotonic()
                if run is not None:
                    self._runs[run] -= 1

    def wait(self, serial: int, timeout: float) -> Change | None:
        """The newest change as soon as it is newer than `serial`; None after `timeout` seconds, or when all is over."""
        until = monotonic() + timeout
        with self._news:
            while self._change.serial <= serial and not self.closed:
                # In slices: a process that is told to end cannot wake this condition from its signal handler.
                if not self._news.wait(min(0.5, max(0.0, until - monotonic()))) and monotonic() >= until:
                    return None
            return None if self.closed else self._change

    def close(self) -> None:
        """End the thread and every stream."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(5)

    def _wanted(self) -> bool:
        with self._news:
            if not self.closed and (self._watchers > 0 or monotonic() - self._left < LINGER):
                return True
            self._thread = None  # in the same breath as the decision: who comes now starts another
            return False

    def _watch(self) -> None:
        bell: Connection | None = None
        try:
            while self._wanted():
                if bell is None:
                    bell = self._listen()
                try:
                    self._look()
                except (PgsigError, psycopg.Error):
                    logger.warning("the database cannot be asked for changes; trying again")
                self._stop.wait(GAP)
                try:
                    self._sleep(bell)
                except psycopg.Error:
                    bell = None
        finally:
            if bell is not None:
                bell.close()

    def _listen(self) -> Connection | None:
        """None where nobody can be listened to, on a standby for instance: looking by itself is enough."""
        try:
            bell = connect(self._url, name="web live")
        except (Unavailable, psycopg.Error):
            return None
        try:
            bell.execute(f"LISTEN {CHANNEL}".encode())
        except psycopg.Error:
            bell.close()
            return None
        return bell

    def _sleep(self, bell: Connection | None) -> None:
        if bell is None:
            self._stop.wait(self._poll)
            return
        for _ in bell.notifies(timeout=self._poll, stop_after=1):
            pass

    def _look(self) -> None:
        before = self._change
        with self._news:
            runs = [run for run, watchers in self._runs.items() if watchers > 0]
        with reading(self._database) as connection:
            now = heads(connection, runs)
            if before.heads is not None and _same(before.heads, now):
                return
            keys = keys_between(connection, before.heads.snapshot, now.snapshot) if before.heads else []
        if before.heads is not None and not keys and _stripped(before.heads) == _stripped(now):
            # Other work on the same server moved the snapshot. Keep it, so that the next look has less to look at.
            with self._news:
                self._change = Change(before.serial, now, before.keys)
            return
        with self._news:
            self._change = Change(before.serial + 1, now, tuple(keys))
            self._news.notify_all()


def _stripped(heads: Heads) -> tuple[object, ...]:
    return heads.signals, heads.actions, heads.runs, heads.definitions, heads.logs


def _same(old: Heads, new: Heads) -> bool:
    return old.snapshot == new.snapshot and _stripped(old) == _stripped(new)
