"""`pgsig demo --once`: the same system, led to a stated end. Each line is something that must have happened.

Signals come from the jobs, and from here by SQL. Nothing is asked of the processes but by the database and by HTTP.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from pgsig.demo import ledger
from pgsig.demo.ledger import WORKFLOW
from pgsig.demo.system import System
from pgsig.errors import PgsigError
from pgsig.store.database import connect

MODELS = 3
WITHIN = 45.0  # seconds for one thing to happen, on a machine that is busy
CONFIDENCE = 0.25


class Check:
    """One run to the end. Raises PgsigError with the first thing that did not happen."""

    def __init__(self, system: System) -> None:
        self.system = system

    def run(self) -> None:
        """Everything, in its order."""
        self.begin()
        self.models()
        self.worker_killed()
        self.reload()
        self.rolled_back()
        self.restart()
        self.by_hand()
        self.stopped()
        self.watchdog()
        self.books()

    def begin(self) -> None:
        """A database that is given may have a past: what an earlier run has stopped does not start by itself."""
        for operator in ("serve", "train"):
            if ledger.state(self.system.connection, operator) in ("stopped", "failed"):
                self.act(operator, "START")
        if ledger.frozen(self.system.connection):
            self.emit("ops.freeze", '"off"')

    # ── what must happen ──

    def models(self) -> None:
        with self.system.screen.step("evaluated", f"waiting for {MODELS} models") as step:
            self.until(lambda: self.judged() >= 1, "the evaluation of a model")
            step.text = f"{self.judged()} model so far, the first one {self.verdicts()[0]}"

    def worker_killed(self) -> None:
        """With work under way: the other worker goes on, and the dead one is replaced."""
        with self.system.screen.step("kill -9", "killing a worker") as step:
            before = self.system.pids()["worker1"]
            os.kill(before, signal.SIGKILL)
            self.until(lambda: self.judged() >= MODELS, f"the evaluation of {MODELS} models with one worker killed")
            self.until(
                lambda: self.system.pids().get("worker1", before) != before, "a new worker in place of the dead one"
            )
            step.text = f"worker1 {before}, while {self.judged()} models were evaluated: {', '.join(self.verdicts())}"

    def reload(self) -> None:
        """Acknowledged, and to be seen by HTTP in the same process."""
        with self.system.screen.step("reloaded", "waiting for a model in service") as step:
            self.until(lambda: self.service()["reloads"] >= 1, "a reload by the serving process")
            self.claim(self.actions("serve", "RELOAD") >= 1, "the service reloaded without an action")
            found = self.service()
            generation = self.generation("serve")
            self.claim(
                found["generation"] == generation,
                f"the service says generation {found['generation']}, the database {generation}",
            )
            self.claim(bool(found["model"]), "the service has no model after its reload")
            answer = json.loads(self.system.get(self.system.folder.port, "/predict?digit=17")[1])
            step.text = (
                f"{found['reloads']} times on the fly, now {found['model']}, still generation {generation}; "
                f"digit 17 is a {answer['truth']}, it says {answer['prediction']}"
            )

    def rolled_back(self) -> None:
        """A signal whose transaction rolls back. That nothing came of it shows in the restarts counted later."""
        with (
            self.system.screen.step("rolled back", "emitting") as step,
            connect(self.system.url, name="demo") as connection,
        ):
            with connection.transaction(force_rollback=True):
                connection.execute(
                    "INSERT INTO pgsig.signals (key, value) VALUES ('config.changed', '{\"min_confidence\": 0.9}')"
                )
            step.text = "INSERT INTO pgsig.signals (config.changed), then ROLLBACK"

    def restart(self) -> None:
        with self.system.screen.step("restarted", "emitting config.changed") as step:
            before = self.service()
            value = json.dumps({"min_confidence": CONFIDENCE})
            emitted = ledger.one(self.system.connection, "SELECT pgsig.emit('config.changed', %s::jsonb)", value)
            self.until(lambda: self.service().get("generation", 0) > before["generation"], "a restart of the service")
            # Two processes share the port while the new one takes over; the old one is gone when its run has ended.
            self.until(lambda: self.runs("serve", "state = 'stopped'") >= 1, "the end of the old process")
            found = self.service()
            self.claim(
                found["generation"] == before["generation"] + 1,
                f"generation {found['generation']} after {before['generation']}",
            )
            self.claim(
                found["config"]["min_confidence"] == CONFIDENCE, f"the service's configuration is {found['config']}"
            )
            restarts = self.actions("serve", "RESTART")
            self.claim(restarts == 1, f"{restarts} restarts were recorded for one signal that was committed")
            self.claim(self.cause("serve", "RESTART") == emitted, "the restart names another cause")
            generations = f"generation {before['generation']} → {found['generation']}"
            step.text = f"{generations}, new configuration by HTTP; 1 action for 1 commit, 1 rollback"

    def by_hand(self) -> None:
        with self.system.screen.step("by hand", "ordering a report") as step:
            self.act("report", "START")
            self.until(lambda: self.runs("report", "state = 'succeeded'") >= 1, "a report")
            self.claim(self.system.folder.report.exists(), "the report wrote no page")
            step.text = (
                f"pgsig.act('digits.report', 'START'): {self.system.folder.report.stat().st_size:,} bytes of report"
            )

    def stopped(self) -> None:
        """A rule that stops, and what the canary has counted over the reloads and the restart."""
        with self.system.screen.step("stopped", "emitting ops.stop") as step:
            self.emit("ops.stop")
            self.until(
                lambda: self.runs("canary", "state = 'stopped' AND result IS NOT NULL") >= 1, "the stop of the canary"
            )
            count = ledger.one(
                self.system.connection,
                "SELECT result FROM pgsig.runs WHERE workflow = %s AND operator = 'canary' AND id > 0 ORDER BY id DESC LIMIT 1",
                WORKFLOW,
            )
            self.claim(count["dropped"] == 0, f"the service dropped {count['dropped']} of {count['asked']} requests")
            self.claim(count["right"] > 0, f"none of {count['asked']} predictions was right")
            lost = f"{count['asked']} requests, {count['refused']} refused, {count['dropped']} dropped"
            step.text = f"canary, by its rule; over reloads and restart {lost}"

    def watchdog(self) -> None:
        """Nobody serves: the canary notices, and its alarm stops the training."""
        with self.system.screen.step("watchdog", "stopping the service, waiting for the alarm") as step:
            self.emit("ops.resume")
            self.until(lambda: self.runs("canary", "state = 'running'") >= 1, "the return of the canary")
            self.act("serve", "STOP")
            self.until(lambda: self.runs("serve", "state NOT IN ('stopped', 'failed')") == 0, "the stop of the service")
            self.until(lambda: self.runs("train", "state = 'stopped'") >= 1, "the stop of the training by canary.alarm")
            key = ledger.one(
                self.system.connection, "SELECT key FROM pgsig.signals WHERE id = %s", self.cause("train", "STOP")
            )
            self.claim(key == "canary.alarm", f"the training was stopped by {key}")
            self.emit("ops.stop")
            self.until(lambda: self.runs("canary", "state NOT IN ('stopped', 'failed')") == 0, "the stop of the canary")
            step.text = "service stopped by hand → canary.alarm → training stopped by its rule"

    def books(self) -> None:
        """The ledger: exactly one outcome for each signal and rule, no action twice, no model twice."""
        with self.system.screen.step("ledger", "adding up") as step:
            connection, span = self.system.connection, self.system.span
            self.until(
                lambda: ledger.count(connection, "SELECT sum(waiting) FROM pgsig.lag") == 0, "the end of all deciding"
            )
            found = ledger.balance(connection, self.system.definition, span)
            self.claim(not found.open, f"not one outcome each: {'; '.join(found.open[:5])}")
            self.claim(found.twice == 0, f"{found.twice} actions were recorded twice")
            twice = ledger.count(
                connection,
                "SELECT count(*) - count(DISTINCT subject) FROM pgsig.signals WHERE id > %s AND key = 'model.validated'",
                span.signal,
            )
            self.claim(twice == 0, f"{twice} models were judged twice")
            trained = ledger.count(
                connection, "SELECT count(*) FROM pgsig.signals WHERE id > %s AND key = 'model.trained'", span.signal
            )
            starts = self.actions("evaluate", "START")
            self.claim(trained == starts, f"{trained} models were trained and {starts} evaluations ordered")
            step.text = (
                f"{found.pairs} times a signal for a rule, each with one outcome; {found.actions} actions, none twice"
            )
        with self.system.screen.step("emit→action", "") as step:
            count, median, longest = ledger.latency(connection, self.system.up)
            step.text = (
                f"{median or 0:.1f} ms in the median of {count}, {longest or 0:.0f} ms at most (with a worker killed)"
            )

    # ── asking ──

    def until(self, ready: Callable[[], Any], what: str) -> Any:
        return self.system.until(ready, what, WITHIN)

    @staticmethod
    def claim(holds: bool, otherwise: str) -> None:
        """Raise PgsigError with `otherwise`, unless it holds."""
        if not holds:
            raise PgsigError(otherwise, code="PS825")

    def emit(self, key: str, value: str = "null") -> None:
        ledger.one(self.system.connection, "SELECT pgsig.emit(%s, %s::jsonb)", key, value)

    def act(self, operator: str, action: str) -> None:
        ledger.one(self.system.connection, "SELECT pgsig.act(%s, %s)", f"{WORKFLOW}.{operator}", action)

    def service(self) -> dict[str, Any]:
        """What the service says of itself; nothing where it does not answer."""
        status, body = self.system.get(self.system.folder.port, "/")
        found: dict[str, Any] = json.loads(body) if status == 200 else {"reloads": 0, "generation": 0}
        return found

    def generation(self, operator: str) -> int:
        return ledger.count(
            self.system.connection,
            "SELECT generation FROM pgsig.operators WHERE workflow = %s AND operator = %s",
            WORKFLOW,
            operator,
        )

    def judged(self) -> int:
        """Evaluations that have ended well."""
        return self.runs("evaluate", "state = 'succeeded'")

    def verdicts(self) -> list[str]:
        return [one.verdict for one in self.system.folder.verdicts()]

    def runs(self, operator: str, condition: str) -> int:
        """Runs since this start. condition: of ours, not of a caller's."""
        query = (
            f"SELECT count(*) FROM pgsig.runs WHERE workflow = %s AND operator = %s AND action_id > %s AND {condition}"  # noqa: S608
        )
        return ledger.count(self.system.connection, query, WORKFLOW, operator, self.system.span.action)

    def actions(self, operator: str, action: str) -> int:
        query = "SELECT count(*) FROM pgsig.actions WHERE workflow = %s AND operator = %s AND action = %s AND id > %s"
        return ledger.count(self.system.connection, query, WORKFLOW, operator, action, self.system.span.action)

    def cause(self, operator: str, action: str) -> int:
        """The signal behind the last action of a kind."""
        query = """SELECT cause_id FROM pgsig.actions WHERE workflow = %s AND operator = %s AND action = %s AND id > %s
                    ORDER BY id DESC LIMIT 1"""
        return ledger.count(self.system.connection, query, WORKFLOW, operator, action, self.system.span.action)
