"""A shop whose runner is the test itself: it claims runs, says what becomes of them, and lets the engine evaluate that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgsig.condition.missed import Settled
from pgsig.definition import Definition
from pgsig.engine import Engine
from pgsig.model import Json
from pgsig.store import triggers
from pgsig.store.database import Connection
from pgsig.store.definitions import apply
from tests.flow.workshop import Workshop


class Hands(Workshop):
    """began: every execution that was granted, as workflow.operator, in order. live: the grants that have not ended, by operator."""

    def __init__(self, connection: Connection, other: Connection) -> None:
        super().__init__(connection, other)
        self.runner = self.call(
            "SELECT pgsig_private.join_processes('runner', 'test', 'here', 1, '0', '{default}', 1000, '1 hour')"
        )
        self.began: list[str] = []
        self.live: dict[str, list[dict[str, Any]]] = {}

    def define(self, definition: Definition | Json) -> None:
        """Apply a whole definition, and let what it starts begin."""
        apply(self.connection, definition)
        self.work()

    def restart_worker(self) -> None:
        """What a worker keeps in memory is gone."""
        self.engine = Engine(self.engine.connection)

    def send(self, key: str, value: Json = None, sender: str | None = None, namespace: str = "default") -> int:
        """Emit a signal, as an operator's run where a sender (w.operator) is named, and let follow what follows."""
        emit = "SELECT pgsig.emit(%s, %s::jsonb, '', %s, %s)"
        position = self.call(emit, key, json.dumps(value), namespace, sender)
        self.work()
        return int(position)

    def work(self) -> None:
        """Evaluate and claim until nothing is left to do. What is claimed runs, what is asked to stop has stopped."""
        while True:
            self.evaluate()
            claimed = self._claim()
            stopped = self._obey()
            if not claimed and not stopped:
                self.evaluate()
                return

    def end(self, operator: str, state: str = "succeeded") -> None:
        """The oldest run of an operator ends, and what follows from it follows."""
        run = self.live[operator].pop(0)
        self._report(run, state)
        self.work()

    def reloads(self) -> list[tuple[str, list[Json]]]:
        """(operator, values of the signals) of every reload that waits to be handed over; they are acknowledged."""
        found = []
        for run_id, epoch, stop, reload_id, cause in self._orders():
            if not stop:
                name = next(name for name, runs in self.live.items() for run in runs if run["id"] == run_id)
                found.append((name, [signal["value"] for signal in cause]))
                self.call("SELECT pgsig_private.report_reload(%s, %s, 'acknowledged')", reload_id, epoch)
        return found

    def tick(self, *moments: datetime) -> None:
        """The clock fires every trigger in force at these times."""
        for moment in moments:
            asked = [(trigger, Settled((moment,), None, moment)) for trigger in triggers.live(self.connection)]
            triggers.settle(self.connection, asked, ahead=True)
            self.work()

    def states(self, operator: str) -> list[str]:
        """The states of all runs of an operator, oldest first."""
        workflow, _, name = operator.partition(".")
        statement = "SELECT state FROM pgsig.runs WHERE workflow = %s AND operator = %s ORDER BY id"
        return [row[0] for row in self.connection.execute(statement, [workflow, name])]

    def _claim(self) -> bool:
        rows = self.connection.execute(
            "SELECT id, epoch, workflow, operator FROM pgsig_private.claim(%s, '{default}', 1000)", [self.runner]
        ).fetchall()
        for run_id, epoch, workflow, operator in rows:
            run = {"id": run_id, "epoch": epoch}
            self.live.setdefault(f"{workflow}.{operator}", []).append(run)
            self.began.append(f"{workflow}.{operator}")
            self._report(run, "running")
        return bool(rows)

    def _obey(self) -> bool:
        orders = [order for order in self._orders() if order[2]]
        for run_id, epoch, *_ in orders:
            for runs in self.live.values():
                runs[:] = [run for run in runs if run["id"] != run_id]
            self._report({"id": run_id, "epoch": epoch}, "stopped")
        return bool(orders)

    def _orders(self) -> Sequence[tuple[Any, ...]]:
        return self.connection.execute(
            "SELECT run_id, epoch, stop, reload_id, cause FROM pgsig_private.orders(%s)", [self.runner]
        ).fetchall()

    def _report(self, run: dict[str, Any], state: str) -> None:
        assert self.call("SELECT pgsig_private.report(%s, %s, %s)", run["id"], run["epoch"], state) == "ok"
