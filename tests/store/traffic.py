"""Random traffic for the storage core: emitters of every kind and takers that emit too, each with a ledger of what it committed.

Whatever is written carries a marker of its writer, so that what was taken is compared with what the writers know, not with the table.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import psycopg

from tests.support_core import Connection

NAMESPACES = ("default", "alpha", "beta", "gamma")


class Traffic:
    """A database in which emitters and takers meet, and the table of what was taken."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.over = threading.Event()
        self._watcher: Connection = psycopg.connect(database, autocommit=True)
        self._watcher.execute("CREATE TABLE seen (n bigint GENERATED ALWAYS AS IDENTITY, source text, marker bigint)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._watcher.close()

    def run(self, emitters: Sequence[Party], takers: Sequence[Party], seconds: float) -> None:
        """Let all work for a while; then the emitters end, and the takers once nothing is left. Raises what any of them met."""
        for party in (*emitters, *takers):
            party.start()
        threading.Event().wait(seconds)
        self.over.set()
        for party in (*emitters, *takers):
            party.join()
        drain(self._watcher)

    def seen(self) -> list[tuple[str, int]]:
        """(source, marker) in the order in which they were taken."""
        rows = self._watcher.execute("SELECT source, marker FROM seen ORDER BY n").fetchall()
        return [(source, marker) for source, marker in rows]


def drain(connection: Connection) -> None:
    """Take what is left when everybody has gone."""
    while connection.execute(TAKE, [500]).rowcount:
        pass


TAKE = """
    INSERT INTO seen (source, marker)
    SELECT source, value::bigint FROM pgsig_private.take(%s)
"""


class Party:
    """A thread with a connection. committed: markers of what it committed, in order."""

    def __init__(self, traffic: Traffic, name: str) -> None:
        self.traffic, self.name = traffic, name
        self.random = random.Random(name)
        self.committed: list[int] = []
        self.namespace = self.random.choice(NAMESPACES)
        self._next = 1
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), f"{self.name} hangs"
        if self._error is not None:
            raise self._error

    def markers(self, most: int = 1) -> list[int]:
        """Fresh markers: 1000 times a number of its own, and growing."""
        fresh = [int(self.name[1:]) + 1000 * (self._next + i) for i in range(self.random.randint(1, most))]
        self._next += len(fresh)
        return fresh

    def pause(self, longest: float = 0.02) -> None:
        """Let others go on for a moment."""
        self.traffic.over.wait(self.random.random() * longest)

    def insert(self, connection: Connection, markers: Sequence[int]) -> None:
        connection.execute(
            "INSERT INTO pgsig.signals (namespace, key, value, source) SELECT %s, 'load', to_jsonb(m), %s FROM unnest(%s::bigint[]) m",
            [self.namespace, self.name, list(markers)],
        )

    def _work(self) -> None:
        try:
            with psycopg.connect(self.traffic.database, autocommit=True) as connection:
                while not self.traffic.over.is_set():
                    self.once(connection)
        except BaseException as error:  # noqa: BLE001 - raised by join
            self._error = error

    def once(self, connection: Connection) -> None:
        raise NotImplementedError


class Emitter(Party):
    """Emits by every door, with pauses before the commit, rollbacks, savepoints and caught errors."""

    def __init__(self, traffic: Traffic, number: int) -> None:
        super().__init__(traffic, f"e{number}")
        self.rolled_back = 0

    def once(self, connection: Connection) -> None:
        kept: list[int] = []
        undone = self.random.random() < 0.25
        with connection.transaction(force_rollback=undone):
            for _ in range(self.random.randint(1, 3)):
                way = self.random.choice(WAYS)
                kept += way(self, connection)
                self.pause()
        if undone:
            self.rolled_back += len(kept)
        else:
            self.committed += kept
        self.pause(0.005)


def by_emit(emitter: Emitter, connection: Connection) -> list[int]:
    [marker] = emitter.markers()
    connection.execute(
        "SELECT pgsig.emit('load', %s::jsonb, namespace => %s, source => %s)",
        [str(marker), emitter.namespace, emitter.name],
    )
    return [marker]


def by_insert(emitter: Emitter, connection: Connection) -> list[int]:
    markers = emitter.markers(8)
    emitter.insert(connection, markers)
    return markers


def by_emit_many(emitter: Emitter, connection: Connection) -> list[int]:
    markers = emitter.markers(5)
    document = [{"key": "load", "value": marker, "source": emitter.name} for marker in markers]
    connection.execute("SELECT pgsig.emit_many(%s::jsonb, %s)", [json.dumps(document), emitter.namespace])
    return markers


def by_copy(emitter: Emitter, connection: Connection) -> list[int]:
    markers = emitter.markers(20)
    with connection.cursor().copy("COPY pgsig.signals (namespace, key, value, source) FROM STDIN") as copy:
        for marker in markers:
            copy.write_row((emitter.namespace, "load", str(marker), emitter.name))
    return markers


def in_savepoint(emitter: Emitter, connection: Connection) -> list[int]:
    """Released or rolled back; a subtransaction has an id of its own, which must not matter."""
    markers, undone = emitter.markers(3), emitter.random.random() < 0.5
    with connection.transaction(force_rollback=undone):
        emitter.insert(connection, markers)
        emitter.pause(0.005)
    emitter.rolled_back += len(markers) if undone else 0
    return [] if undone else markers


def in_exception_block(emitter: Emitter, connection: Connection) -> list[int]:
    """One in a block that fails and is caught, then one that stays."""
    lost, kept = emitter.markers()[0], emitter.markers()[0]
    connection.execute(
        f"""DO $$ BEGIN
            BEGIN
                PERFORM pgsig.emit('load', '{lost}', namespace => '{emitter.namespace}', source => '{emitter.name}');
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN NULL; END;
            PERFORM pgsig.emit('load', '{kept}', namespace => '{emitter.namespace}', source => '{emitter.name}');
        END $$""".encode()
    )
    emitter.rolled_back += 1
    return [kept]


WAYS: tuple[Callable[[Emitter, Connection], list[int]], ...] = (
    *(by_emit, by_insert, by_emit_many, by_copy, in_savepoint, in_exception_block),
)


class Taker(Party):
    """Takes, emits in the same transaction, and now and then thinks better of both."""

    def __init__(self, traffic: Traffic, number: int) -> None:
        super().__init__(traffic, f"t{100 + number}")

    def once(self, connection: Connection) -> None:
        markers: list[int] = []
        undone = self.random.random() < 0.1
        with connection.transaction(force_rollback=undone):
            taken = connection.execute(TAKE, [self.random.choice((1, 3, 20, 100))]).rowcount
            if taken and self.random.random() < 0.3:
                markers = self.markers(2)
                self.insert(connection, markers)
            self.pause(0.003)
        if not undone:
            self.committed += markers
        if not taken:
            self.pause(0.005)
