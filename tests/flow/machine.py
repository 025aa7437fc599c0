"""A Hypothesis machine on a real Postgres: workers, emitters, applies, pauses, runners and crashes in any order that it can think of.

Everything happens in one thread, so that an example can be repeated: between two statements of a worker the machine lets another
connection act, by a hook at the engine's failpoints. Time is the machine's own: it writes `emitted_at`, also of timers.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pgsig import failpoints
from pgsig.engine import Engine
from pgsig.store.database import Connection, connect
from pgsig.store.definitions import apply
from tests.flow.judge import LIMIT, Judge

A, B, C = {"signal": "a"}, {"signal": "b"}, {"signal": "c.x"}
LEVEL = {"signal": "b", "sticky": True, "eq": 1}
CONDITIONS: list[dict[str, Any]] = [
    A, {"signal": "a", "eq": 1}, {"signal": "b", "where": "$ > 1"}, {"signal": "a", "changed": True}, LEVEL,
    {"signal": "c.**"}, {"signal": "b", "count": 2}, {"signal": "b", "count": 3, "by": "none"},
    {"all": [A, B]}, {"all": [A, B], "by": "none"}, {"all": [A, B], "by": "$.k"}, {"any": [A, B]}, {"seq": [A, B]},
    {"seq": [{"any": [A, C]}, B]}, {"at_least": 2, "of": [A, B, C]}, {"all": [A, {"not": LEVEL}]},
    {"all": [{"signal": "a", "latest": True}, B]}, {"all": [{"signal": "a", "latest": True, "eq": 1}, {"signal": "a", "count": 2}]},
    {"all": [{"signal": "b"}, LEVEL]}, {"all": [A, B], "within": "10s"}, {"signal": "a", "debounce": "5s", "max_wait": "9s"},
    {"all": [A, B], "debounce": "5s"}, {"signal": "a", "count": 2, "window": "1m", "lateness": "5s"},
    {"absent": "a", "for": "5s", "after": "b"}, {"absent": "a", "for": "5s"}, {"all": [{"absent": "a", "for": "5s", "after": "b"}, C]},
    {"all": [A, {"signal": "a", "sticky": True}]},
    {"signal": "run.w.x.succeeded", "max": "1000/1h"}, {"signal": "run.w.*.*", "max": "1000/1h"},
    {"signal": "a", "max": "1/1h"}, {"signal": "a", "max": "1/1h", "then": "STOP"}, {"signal": "c.*", "shadow": True},
]  # fmt: skip
JOBS: list[dict[str, Any]] = [
    {"batch": {"command": ["true"]}}, {"batch": {"command": ["true"], "on_busy": "merge"}},
    {"batch": {"command": ["true"], "on_busy": "replace"}}, {"batch": {"command": ["true"], "on_busy": "parallel(2)"}},
    {"batch": {"command": ["true"], "on_busy": "skip"}}, {"streaming": {"command": ["true"]}},
    {"streaming": {"command": ["true"], "handover": "start_first"}},
]  # fmt: skip
several = st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=2, unique_by=str)
jobs = st.builds(
    lambda job, rules: {
        **job,
        **{action: [c for c in found if c.get("then") != action.upper()] or A for action, found in rules.items()},
    },
    st.sampled_from(JOBS),
    st.dictionaries(st.sampled_from(["start", "stop", "restart", "reload"]), several, min_size=1, max_size=3),
)
workflows = st.fixed_dictionaries({"x": jobs}, optional={"y": jobs})
namespaces = st.sampled_from([0, 0, 0, 1])
keys = st.sampled_from(["a", "a", "b", "b", "c", "c.x"])
values = st.sampled_from(["1", "1", "2", "0", "true", '{"k": "s"}', '"bad"', "1e5000"])
subjects = st.sampled_from(["", "s", "s", "t"])
workers, emitters = st.integers(0, 2), st.integers(0, 1)
TABLES = (
    "pgsig_private.signal, pgsig_private.action, pgsig_private.event, pgsig_private.instance, pgsig_private.log, pgsig_private.outcome,"
    " pgsig_private.operator, pgsig_private.operator_version, pgsig_private.process, pgsig_private.reload, pgsig_private.rule,"
    " pgsig_private.run, pgsig_private.state, pgsig_private.tick, pgsig_private.timer, pgsig_private.trigger,"
    " pgsig_private.workflow, pgsig_private.workflow_version"
)


def refused(code: str) -> Any:
    """What is in the block has to be refused by the database, with this code."""
    return pytest.raises(psycopg.Error, check=lambda error: isinstance(error, psycopg.Error) and error.sqlstate == code)


class Emitter:
    """A connection that emits, with what it has open: positions and event ids, a list for each savepoint that is held."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.frames: list[list[int]] = []
        self.event_ids: set[str] = set()


class Machine(RuleBasedStateMachine):
    dsn: ClassVar[str]
    names: ClassVar[list[str]]  # two namespaces, evaluated in different lanes
    floor: ClassVar[Connection]

    def __init__(self) -> None:
        super().__init__()
        failpoints.arm("")
        self.floor.execute(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE".encode())
        self.floor.execute("UPDATE pgsig_private.setting SET value = %s WHERE name = 'depth_limit'", [str(LIMIT)])
        self.judge = Judge(self.floor)
        self.now = datetime.now(UTC) + timedelta(hours=1)
        self.emitters = [Emitter(connect(self.dsn, name="emitter")) for _ in range(2)]
        self.engines = [Engine(connect(self.dsn, name="worker")) for _ in range(3)]
        self.committed: set[int] = set()
        self.poison: dict[int, str] = {}
        self.runner = self.ask(
            "SELECT pgsig_private.join_processes('runner', 'r', 'h', 1, '0', '{default}', 9, '1 day')"
        )

    def ask(self, text: str, *given: Any) -> Any:
        row = self.floor.execute(text.encode(), given or None).fetchone()
        return None if row is None else row[0]

    def step(self, worker: int, limit: int) -> int:
        raise NotImplementedError

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            failpoints.arm("")
            for connection in (*(e.connection for e in self.emitters), *(e.connection for e in self.engines)):
                connection.close()

    def finish(self) -> None:
        for who in range(2):
            self.end(who, keep=who == 0)
        for _ in range(40):
            if not self.step(0, 100):
                break
        self.judge.check()
        visible = {row[0] for row in self.judge.rows("SELECT id FROM pgsig.signals WHERE kind = 'user'")}
        assert visible == self.committed

    # ── definitions and orders ──

    @initialize(first=workflows, other=workflows)
    def begin(self, first: Any, other: Any) -> None:
        self.change(0, first)
        self.change(1, other)

    @rule(where=namespaces, operators=workflows)
    def change(self, where: int, operators: Any) -> None:
        document = {"workflow": "w", "namespace": self.names[where], "operators": operators}
        before = apply(self.floor, document)
        again = apply(self.floor, document)
        assert (again.version, again.changes.any) == (before.version, False)
        self.judge.look()

    @rule(
        where=namespaces,
        name=st.sampled_from(["w", "w.x", "w.y"]),
        mode=st.sampled_from(["hold", "collapse", "drop", None, None]),
    )
    def pause(self, where: int, name: str, mode: str | None) -> None:
        with suppress(psycopg.Error):  # there is no such operator now
            if mode is None:
                self.ask("SELECT pgsig.resume(%s, namespace => %s)", name, self.names[where])
            else:
                self.ask("SELECT pgsig.pause(%s, %s, namespace => %s)", name, mode, self.names[where])
        self.judge.look()

    @rule(
        where=namespaces,
        name=st.sampled_from(["w.x", "w.y"]),
        action=st.sampled_from(["START", "STOP", "RESTART", "RELOAD"]),
        subject=subjects,
    )
    def order(self, where: int, name: str, action: str, subject: str) -> None:
        with suppress(psycopg.Error):
            self.ask("SELECT pgsig.act(%s, %s, %s, namespace => %s)", name, action, subject, self.names[where])
        self.judge.look()

    # ── emitters ──

    @rule(
        who=emitters,
        where=namespaces,
        key=keys,
        value=values,
        subject=subjects,
        past=st.sampled_from([0, 0, 0, 7, 100]),
    )
    def emit(
        self, who: int, where: int, key: str, value: str, subject: str, past: int, event_id: str | None = None
    ) -> None:
        self.now += timedelta(seconds=1)
        given = [self.names[where], key, subject, value, "me", event_id, self.now - timedelta(seconds=past)]
        emitter = self.emitters[who]
        row = emitter.connection.execute(
            "INSERT INTO pgsig.signals (namespace, key, subject, value, source, event_id, emitted_at)"
            " VALUES (%s, %s, %s, %s::jsonb, %s, %s, %s) RETURNING id",
            given,
        ).fetchone()
        if event_id is not None:
            known = self.ask("SELECT signal_id FROM pgsig_private.event WHERE event_id = %s", event_id)
            assert (row is None) == (event_id in emitter.event_ids or (known is not None and known in self.committed))
            emitter.event_ids.add(event_id)
        if row is not None:
            if "bad" in value:
                self.poison[row[0]] = "boom"
            if emitter.frames:
                emitter.frames[-1].append(row[0])
            else:
                self.committed.add(row[0])
        self.judge.look()

    @rule(who=emitters, event_id=st.sampled_from(["e", "f"]), key=keys, subject=subjects)
    def emit_with_id(self, who: int, event_id: str, key: str, subject: str) -> None:
        """One with an event id that another open transaction has used would wait for it."""
        if event_id in self.emitters[1 - who].event_ids and self.emitters[1 - who].frames:
            return
        known = self.judge.rows(
            "SELECT s.key, s.subject FROM pgsig_private.event e JOIN pgsig.signals s ON s.id = e.signal_id WHERE e.event_id = %s",
            event_id,
        )
        if known and known[0] != (key, subject):
            with refused("PS109"), self.emitters[who].connection.transaction():
                self.emit(who, 0, key, "1", subject, 0, event_id)
            return
        if self.emitters[who].frames and event_id in self.emitters[who].event_ids:
            return
        self.emit(who, 0, key, "1", subject, 0, event_id)

    @rule(who=emitters)
    def open(self, who: int) -> None:
        """A transaction, or a savepoint in it."""
        emitter = self.emitters[who]
        emitter.connection.execute(f"SAVEPOINT s{len(emitter.frames)}".encode() if emitter.frames else b"BEGIN")
        emitter.frames.append([])

    @precondition(lambda self: any(emitter.frames for emitter in self.emitters))
    @rule(who=emitters, keep=st.booleans())
    def end(self, who: int, keep: bool) -> None:
        emitter = self.emitters[who]
        if emitter.frames:
            emitter.connection.execute("COMMIT" if keep else "ROLLBACK")
            self.committed |= {number for frame in emitter.frames for number in frame if keep}
            emitter.frames, emitter.event_ids = [], set()
            self.judge.look()

    @precondition(lambda self: any(len(emitter.frames) > 1 for emitter in self.emitters))
    @rule(who=emitters)
    def undo(self, who: int) -> None:
        emitter = self.emitters[who]
        if len(emitter.frames) > 1:
            emitter.connection.execute(f"ROLLBACK TO SAVEPOINT s{len(emitter.frames) - 1}".encode())
            emitter.frames.pop()
