"""The other half of the machine: workers that step, crash and meet others between two statements; timers; runners."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import rule

from pgsig import failpoints
from pgsig.engine import Engine
from pgsig.model import MOVES, State
from pgsig.store.database import Connection, connect
from tests.flow.machine import Machine, emitters, keys, namespaces, refused, subjects, workers

POINTS = ("engine.taken", "engine.decided", "engine.recorded", "engine.committed")
REPORTS = ("running", "succeeded", "failed", "lost", "retrying", "stopped")


class Model(Machine):
    @classmethod
    def two_lanes(cls, floor: Connection) -> list[str]:
        rows = floor.execute(
            "SELECT DISTINCT ON (lane) n FROM (SELECT n, hashtextextended(n, 0) & 3 AS lane FROM unnest(%s::text[]) n) x ORDER BY lane",
            [["default", "other", "third", "fourth", "fifth"]],
        ).fetchall()
        return [row[0] for row in rows[:2]]

    # ── workers ──

    @rule(worker=workers, limit=st.sampled_from([1, 2, 3, 100]))
    def work(self, worker: int, limit: int) -> None:
        self.step(worker, limit)

    def step(self, worker: int, limit: int) -> int:
        """One transaction of a worker, and the judge's own opinion of it. Returns how many signals it took."""
        past = self.judge.before()
        engine = self.engines[worker]
        crashed = False
        try:
            taken = engine.step(limit, poison=self.poison).taken
        except failpoints.FailpointError as point:
            crashed = True
            taken = len(engine.at_work) if str(point) == "engine.committed" else 0
        finally:
            failpoints.arm("")
        if taken:
            self.judge.replay(past, engine.at_work, self.poison)
        if crashed:
            engine.connection.close()
            self.engines[worker] = Engine(connect(self.dsn, name="worker"))
        self.judge.look()
        return taken

    @rule(worker=workers, point=st.sampled_from(POINTS), limit=st.sampled_from([1, 3, 100]))
    def crash(self, worker: int, point: str, limit: int) -> None:
        failpoints.arm(f"{point}=raise")
        self.step(worker, limit)

    @rule(
        worker=workers,
        point=st.sampled_from(POINTS[:3]),
        who=emitters,
        where=namespaces,
        key=keys,
        subject=subjects,
        dies=st.booleans(),
    )
    def meet(self, worker: int, point: str, who: int, where: int, key: str, subject: str, dies: bool) -> None:
        """Between two statements of one worker another one works, somebody emits and somebody commits."""
        met: list[str] = []

        def others(name: str) -> None:
            if name == point and not met:
                met.append(name)
                self.emit(who, where, key, "1", subject, 0)
                self.end(1 - who, keep=True)
                with patch("pgsig.engine.reached", failpoints.reached):
                    self.step((worker + 1) % 3, 100)
                if dies:
                    raise failpoints.FailpointError(name)

        with patch("pgsig.engine.reached", others):
            self.step(worker, 2)

    # ── time ──

    @rule(seconds=st.sampled_from([0, 3, 6, 30, 90]))
    def pass_time(self, seconds: int) -> None:
        """Timers fall due by the machine's time. Sometimes one fires early: nothing may depend on when it comes."""
        self.now += timedelta(seconds=seconds)
        due = "UPDATE pgsig_private.timer SET due_at = clock_timestamp() WHERE due_at <= %s"
        with self.floor.transaction():
            self.floor.execute(due, [self.now])
            before = {row[0] for row in self.floor.execute("SELECT id FROM pgsig.signals WHERE kind = 'timer'")}
            self.floor.execute("SELECT pgsig_private.fire_timers()")
            self.floor.execute(
                "UPDATE pgsig_private.signal SET emitted_at = %s WHERE kind = 'timer' AND id <> ALL (%s)",
                [self.now, list(before)],
            )
        self.judge.look()

    # ── runners ──

    @rule(capacity=st.integers(1, 3))
    def claim(self, capacity: int) -> None:
        self.floor.execute("SELECT FROM pgsig_private.claim(%s, '{default}', %s)", [self.runner, capacity])
        self.judge.look()

    @rule(choice=st.integers(0, 9), state=st.sampled_from(REPORTS), stale=st.booleans())
    def report(self, choice: int, state: str, stale: bool) -> None:
        """What a runner says of a run that it holds; with an old epoch it changes nothing."""
        held = self.judge.rows(
            "SELECT id, epoch, state FROM pgsig_private.run WHERE state IN ('starting', 'running') ORDER BY id"
        )
        if not held:
            return
        number, epoch, before = held[choice % len(held)]
        if before == "running" and state == "running":
            state = "ready"
        text = "SELECT pgsig_private.ready(%s, %s)" if state == "ready" else "SELECT pgsig_private.report(%s, %s, %s)"
        given = (number, epoch - stale) if state == "ready" else (number, epoch - stale, state)
        assert self.ask(text, *given) == ("stale" if stale else "ok")
        self.judge.look()
        if stale:
            assert self.judge.runs[number] == before

    @rule(choice=st.integers(0, 99), state=st.sampled_from(list(State)))
    def forge(self, choice: int, state: State) -> None:
        """E15: whoever writes to the table, an illegal move is refused."""
        runs = self.judge.rows("SELECT id, state FROM pgsig_private.run ORDER BY id")
        number, before = runs[choice % len(runs)] if runs else (0, state.value)
        if state.value != before and state not in MOVES[State(before)]:
            with refused("PS310"):
                self.floor.execute("UPDATE pgsig_private.run SET state = %s WHERE id = %s", [state.value, number])
