"""What a database was in the middle of when it was copied, and what has to come of it wherever it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from pgsig.engine import Engine
from pgsig.store.database import connect
from pgsig.store.jobs import renew
from pgsig.store.revision import check
from tests.support_core import Connection, one, operator

Fate = tuple[int, str, str]  # signal, rule, outcome


@dataclass
class Middle:
    """The ids of what was under way. last: the newest position."""

    run: int
    process: int
    last: int


def leave_in_the_middle(dsn: str) -> Middle:
    """Signals of every kind: evaluated, in the middle of a window, committed late, not evaluated, older than a rule, waited with."""
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        psycopg.connect(dsn) as late,
        connect(dsn, name="engine") as mine,
    ):
        operator(connection, "first", ("START", {"signal": "a"}))
        operator(connection, "both", ("START", {"all": [{"signal": "b"}, {"signal": "c"}]}), by="none")
        operator(connection, "level", ("START", {"all": [{"signal": "d"}, {"signal": "e", "sticky": True}]}), by="none")
        engine = Engine(mine)
        emit(connection, *"abe")
        drain(engine)
        late.execute("SELECT pgsig.emit('a', '\"late\"')")  # open while the others are evaluated
        emit(connection, *"aaab")
        drain(engine)
        process = one(
            connection,
            "INSERT INTO pgsig_private.process (role, name, host, pid, version, lease_until)"
            " VALUES ('runner', 'r', 'h', 1, '0', clock_timestamp() + interval '1 hour') RETURNING id",
        )
        run = one(connection, "SELECT id FROM pgsig_private.claim(%s, '{default}', 1)", process)
        drain(engine)
        emit(connection, *"aaaaaaaa")
        engine.step(3)  # in the middle of a window
        late.commit()
        emit(connection, *"aca")
        operator(connection, "new", ("START", {"signal": "a"}))  # what is above is older than its rule
        emit(connection, "a", "d")
        assert one(connection, "SELECT count(*) FROM pgsig_private.cursor WHERE s2 IS NOT NULL") > 0
        return Middle(run, process, one(connection, "SELECT max(id) FROM pgsig.signals"))


def go_on(dsn: str) -> None:
    """As a worker would: check, and evaluate what there is."""
    with connect(dsn, name="engine") as mine:
        check(mine)
        drain(Engine(mine))


def fates(dsn: str, last: int, *, above: int = 0) -> list[Fate]:
    """Every outcome of some signals."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT o.signal_id, p.name || '.' || r.name, o.outcome FROM pgsig_private.fate o"
            " JOIN pgsig_private.rule r ON r.id = o.rule_id JOIN pgsig_private.operator p ON p.id = r.operator_id"
            " WHERE o.signal_id > %s AND o.signal_id <= %s ORDER BY 1, 2, 3",
            [above, last],
        ).fetchall()


def actions(dsn: str, last: int) -> list[tuple[Any, ...]]:
    """Every action that some signals led to, with its evidence."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT operator_id, rule_id, action, result, cause_id, evidence FROM pgsig_private.action"
            " WHERE cause_id <= %s ORDER BY cause_id, rule_id",
            [last],
        ).fetchall()


def the_old_runner_is_nobody(dsn: str, middle: Middle) -> None:
    """Who was granted a run in the old cluster may neither renew nor report; the run is given to somebody else under a later epoch."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert not renew(connection, middle.process, lease=10.0)
        epoch = one(connection, "SELECT epoch FROM pgsig_private.run WHERE id = %s", middle.run)
        assert epoch > 1_000_000
        said = one(connection, "SELECT pgsig_private.report(%s, 1, 'succeeded')", middle.run)
        assert said == "stale"
        lost = connection.execute("SELECT run_id FROM pgsig_private.reap('1 hour')").fetchall()
        assert (middle.run,) in lost


def emit(connection: Connection, *keys: str) -> None:
    for key in keys:
        connection.execute("SELECT pgsig.emit(%s)", [key])


def drain(engine: Engine) -> None:
    while engine.step().taken:
        pass
