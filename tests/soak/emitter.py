"""A process that emits, and keeps a ledger of its own of what it committed, forced to the disk line by line.

    {"try": N, "signals": [[namespace, key, subject, tag], …]}     before the transaction
    {"done": N}  {"undone": N}  {"unknown": N}                     after it; a process that is killed leaves N without an end

A tag is the signal's source in the database: every one is used once. A signal with an event id is emitted again until that is certain.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import clock_gettime
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from pgsig.errors import PgsigError

BOOTTIME = 7
PARTS = {"load.item": 70, "load.each": 3, "load.a": 4, "load.b": 4, "load.picky": 3, "load.stubborn": 1}
KEYS = [key for key, part in PARTS.items() for _ in range(part)]
COMMANDS = (
    ("svc.start",) * 3 + ("svc.stop",) + ("svc.restart",) * 2 + ("svc.reload",) * 4 + ("front.start", "front.restart")
)
SUBJECTS = ("s0", "s1")
OWN = "soak"  # the source of what the soak itself orders
MOST = 40  # signals in one transaction
POISON = ("1e4999", "[" * 1500 + "]" * 1500)


@dataclass(frozen=True)
class Item:
    """One signal to emit. value: JSON text."""

    namespace: str
    key: str
    subject: str
    value: str
    tag: str
    event_id: str | None = None


class Way(Protocol):
    """One of the doors into the log. emit: all in one transaction. undo: emit and roll back; False where the door has no such thing."""

    def emit(self, items: list[Item]) -> None: ...
    def undo(self, items: list[Item]) -> bool: ...
    def close(self) -> None: ...


class Sql:
    """`pgsig.emit` on a connection of one's own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection: psycopg.Connection[Any] | None = None

    def emit(self, items: list[Item], *, undo: bool = False) -> None:
        if self.connection is None or self.connection.closed:
            self.connection = psycopg.connect(self.url, autocommit=True, application_name="soak emitter")
        with self.connection.transaction(force_rollback=undo):
            for item in items:
                self.connection.execute(
                    "SELECT pgsig.emit(%s, %s::jsonb, %s, %s, %s, %s)",
                    [item.key, item.value, item.subject, item.namespace, item.tag, item.event_id],
                )

    def undo(self, items: list[Item]) -> bool:
        self.emit(items, undo=True)
        return True

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class ByClient:
    """`pgsig.client`."""

    def __init__(self, url: str) -> None:
        from pgsig.client import Client

        self.client = Client(url, size=1)

    def emit(self, items: list[Item]) -> None:
        listed = [_document(item) for item in items]
        if len(items) == 1:
            one = listed[0]
            self.client.emit(one.pop("key"), one.pop("value"), **one)
        else:
            self.client.emit_many(listed)

    def undo(self, items: list[Item]) -> bool:
        return False

    def close(self) -> None:
        self.client.close()


class ByHttp:
    """The web process's own code, called in this process: what it does with the database is what matters here."""

    def __init__(self, url: str) -> None:
        from pgsig.settings import Settings
        from pgsig.store.database import Database
        from pgsig.web import create_app

        self.app = create_app(Settings(database_url=url), Database(url, name="web", size=1))

    def emit(self, items: list[Item]) -> None:
        answer = self.app.test_client().post("/api/v1/signals", json=[_document(item) for item in items])
        if answer.status_code not in (200, 201):
            raise RuntimeError(f"status {answer.status_code}: {answer.text[:300]}")

    def undo(self, items: list[Item]) -> bool:
        return False

    def close(self) -> None:
        pass


def _document(item: Item) -> dict[str, Any]:
    found = {
        "key": item.key,
        "value": json.loads(item.value),
        "subject": item.subject,
        "namespace": item.namespace,
        "source": item.tag,
    }
    return {**found, "event_id": item.event_id} if item.event_id else found


class Emitter:
    """Follows a straight line from nothing to `SOAK_SIGNALS` over `SOAK_SECONDS`, and catches up after whatever held it up."""

    def __init__(self) -> None:
        env = os.environ
        self.name, self.folder = env["SOAK_SLOT"], Path(env["SOAK"])
        self.namespaces = env["SOAK_NAMESPACES"].split(",")
        self.wanted, self.seconds = int(env["SOAK_SIGNALS"]), float(env["SOAK_SECONDS"])
        self.begin = float(env["SOAK_BEGIN"])
        self.commands = float(env["SOAK_COMMANDS"])  # the part of signals that order services about
        self.over = threading.Event()
        path = self.folder / f"ledger-{self.name}.jsonl"
        self.incarnation, self.count = self._known(path)
        self.book = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.dice = random.Random(f"{env['SOAK_SEED']} {self.name} {self.incarnation}")
        self.number = 0
        self.way: Way | None = None

    @staticmethod
    def _known(path: Path) -> tuple[int, int]:
        """How often this emitter was started before, and how many signals it surely committed."""
        sizes: dict[str, int] = {}
        starts = done = 0
        for line in path.read_text().splitlines() if path.exists() else ():
            with suppress(ValueError):  # the last words of one that was killed
                entry = json.loads(line)
                if "try" in entry:
                    sizes[entry["try"]] = len(entry["signals"])
                starts += "begin" in entry
                done += sizes.get(entry.get("done"), 0)
        return starts, done

    def stop(self) -> None:
        self.over.set()

    def run(self) -> None:
        # A line that a kill cut short must not spoil the next one.
        os.write(self.book, b"\n")
        self.note(begin=self.incarnation)
        while not self.over.is_set():
            due = self.wanted * min(1.0, max(0.0, clock_gettime(BOOTTIME) - self.begin) / self.seconds)
            behind = int(due - self.count)
            if behind < 1:
                self.over.wait(0.1)
                continue
            self.transaction([self.item() for _ in range(self.dice.randint(1, min(behind, MOST)))])
        if self.way is not None:
            self.way.close()

    def item(self) -> Item:
        self.number += 1
        tag = f"{self.name}-{self.incarnation}-{self.number}"
        namespace, value = self.dice.choice(self.namespaces), json.dumps(self.dice.randint(0, 3))
        if self.dice.random() < self.commands:
            key = self.dice.choice(COMMANDS)
        else:
            key = self.dice.choice(KEYS)
            if key == "load.picky" and self.name == "e0" and self.dice.random() < 0.1:
                value = self.dice.choice(POISON)
        event_id = tag if self.dice.random() < 0.1 else None
        return Item(namespace, key, self.dice.choice(SUBJECTS), value, tag, event_id)

    def transaction(self, items: list[Item]) -> None:
        number = f"{self.incarnation}.{self.number}"
        undo = self.name == "e0" and self.dice.random() < 0.15
        self.note(**{"try": number, "signals": [[i.namespace, i.key, i.subject, i.tag] for i in items]})
        certain = all(item.event_id for item in items)
        while True:
            try:
                way = self.way = self.way or self.door()
                if undo and way.undo(items):
                    self.note(undone=number)
                    return
                way.emit(items)
            except (psycopg.Error, PgsigError, OSError, RuntimeError) as error:
                self.note(error=f"{type(error).__name__}: {str(error)[:200]}", of=number)
                if self.way is not None and self.name == "e0":
                    self.way.close()
                if undo:
                    self.note(undone=number)  # whatever went wrong: nobody has asked for a commit
                    return
                self.over.wait(0.2)
                if not certain or self.over.is_set():
                    self.note(unknown=number)
                    return
            else:
                self.note(done=number)
                self.count += len(items)
                return

    def door(self) -> Way:
        url = os.environ["DATABASE_URL"]
        doors: dict[str, Callable[[str], Way]] = {"e0": Sql, "e1": ByClient, "e2": ByHttp}
        return doors[self.name](make_conninfo(url, connect_timeout=5))

    def note(self, **line: Any) -> None:
        os.write(self.book, json.dumps(line).encode() + b"\n")
        os.fsync(self.book)
