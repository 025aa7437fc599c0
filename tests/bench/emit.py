"""EMIT: signals a second, one row a commit, beside INSERT into copies of the log.

The goal speaks of "plain INSERT into the same table without trigger". The log, `pgsig_private.signal`, has no trigger any more: the guard
is that of `pgsig.signals`, the view of it into which INSERT goes. So `unguarded` is the table itself: its columns, defaults, indexes and
partitions, and what it lacks to be inserted into by anybody, a default of the lane: a plain signal's. Two others are no goal's: `silent`,
the same without the bell, which is in the log's default of emitted_at; and `checked`, the log as it was when the goal was set, with rules
that were CHECKs and a lane that the table generated, which is most of what the guard of today does. Not counted: the first commits of
each session, in which it compiles and plans what it keeps.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.bench.report import Report, paired
from tests.bench.server import Server, connect, program
from tests.support_core import operator, workers

COPY = """
CREATE SCHEMA {name};
CREATE TABLE {name}.columns (LIKE pgsig_private.signal INCLUDING ALL);
{change}
CREATE TABLE {name}.signals (LIKE {name}.columns INCLUDING ALL) PARTITION BY RANGE (emitted_at);
DROP TABLE {name}.columns;
DO $$ DECLARE part record; BEGIN
    FOR part IN SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'pgsig_private.signal'::regclass
    LOOP EXECUTE format('CREATE TABLE {name}.%I PARTITION OF {name}.signals %s', part.relname, part.bound); END LOOP;
END $$;
"""
LANE = "ALTER TABLE {name}.columns ALTER lane SET DEFAULT (hashtextextended('default', 0) & 3)::smallint;"
SILENT = LANE + "ALTER TABLE {name}.columns ALTER emitted_at SET DEFAULT clock_timestamp();"
RULES = r"""
ALTER TABLE checked.columns
    ALTER emitted_at SET DEFAULT clock_timestamp(),
    DROP COLUMN lane,
    ADD COLUMN lane smallint NOT NULL GENERATED ALWAYS AS ((hashtextextended(namespace, 0) & 3)::smallint) STORED,
    ADD CHECK (octet_length(key) <= 200 AND key ~ '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$'),
    ADD CHECK (kind <> 'user' OR key !~ '^(run|tick|manual|timer)(\.|$)'),
    ADD CHECK (pg_column_size(value) <= 262144),
    ADD CHECK (namespace ~ '^[a-z][a-z0-9_-]{0,62}$'),
    ADD CHECK (octet_length(subject) <= 200),
    ADD CHECK (octet_length(source) <= 200),
    ADD CHECK (octet_length(event_id) BETWEEN 1 AND 200),
    ADD CHECK (kind IN ('user', 'state', 'tick', 'manual', 'timer'));
CREATE INDEX ON checked.columns (lane, xid, id);
"""

PUT = "INSERT INTO {}.signals (key, value, subject) VALUES ('model.trained', '{{\"auc\": 0.9}}', 'm1');"
SCRIPTS = {
    "unguarded INSERT": PUT.format("unguarded"),
    "INSERT": PUT.format("pgsig"),
    "emit": "SELECT pgsig.emit('model.trained', '{\"auc\": 0.9}', 'm1');",
    "silent INSERT": PUT.format("silent"),
    "checked INSERT": PUT.format("checked"),
}
MEASURED = ["unguarded INSERT", "emit"]  # with each number of clients
ENVIRONMENT = {"host": "host", "port": "port", "user": "user", "password": "password", "database": "dbname"}
FIRST = 10  # of each session, not counted: it compiles its functions once, and plans the first five anew


def measure(
    server: Server, report: Report, *, rounds: int, seconds: int, clients: tuple[int, ...] = (1, 16, 64), others: bool = True
) -> None:  # fmt: skip
    """others: with one number of clients also what is no goal's, the silent and the checked log."""
    with server.database() as address, ExitStack() as stack:
        with connect(address) as connection:
            for name, change in ("checked", RULES), ("silent", SILENT), ("unguarded", LANE):
                connection.execute(COPY.replace("{change}", change).replace("{name}", name).encode())
            operator(connection, "evaluate", ("STOP", {"signal": "model.trained"}))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in SCRIPTS.items():
            (folder / name.replace(" ", "_")).write_text(text, encoding="utf-8")
        rates = defaultdict[tuple[str, str, int], list[float]](list)
        usual = clients[len(clients) // 2]
        names = list(SCRIPTS) if others else [*MEASURED, "INSERT"]

        def turn(number: int, many: int, names: list[str], worker: str = "") -> None:
            first = number % len(names)  # each has each place in a round
            for name in names[first:] + names[:first]:
                rates[name, worker, many].append(run(address, folder / name.replace(" ", "_"), many, seconds))

        # emit is INSERT and a function call: what holds for it holds for INSERT, so that is measured with one number of clients only.
        for number in range(rounds):
            for many in clients:
                turn(number, many, names if many == usual else MEASURED)
        # Beside a worker that wants the same cores, the ratio says less.
        stack.enter_context(workers(address))
        for number in range(rounds):
            turn(number, usual, MEASURED, ", worker draining")
    for (name, worker, many), found in rates.items():
        report.figure(f"{name}, {many} clients{worker}", found, "commits a second")
    for name in "INSERT", "emit":
        for beside in "unguarded INSERT", "silent INSERT", "checked INSERT":
            for (of, worker, many), found in rates.items():
                if of == name and (other := rates.get((beside, worker, many))):
                    goal = "≥ 0.80" if beside == "unguarded INSERT" and not worker else ""
                    report.ratio(f"{name} / {beside}, {many} clients{worker}", paired(found, other), goal)
    more = (
        " silent: the same, without the bell in the default of emitted_at. checked: the log as it was when the goal was set, its rules "
        "CHECKs and its lane generated by the table; it does not ring either."
    )
    report.note(
        "unguarded, which the goal means: the table of today with its defaults, which has no trigger and takes anything."
        + (more if others else "")
    )


def run(address: str, script: Path, clients: int, seconds: int) -> float:
    """Commits a second by pgbench, from the moment when all are under way to the last commit of the one that stops first."""
    where = conninfo_to_dict(address)
    with tempfile.TemporaryDirectory() as logs:
        done = subprocess.run(
            [program("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds), "-f", str(script),
             "-l", "--log-prefix", f"{logs}/log"],
            env={**os.environ, **{f"PG{name.upper()}": str(where.get(of, "")) for name, of in ENVIRONMENT.items()}},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"pgbench failed: {done.stdout[-300:]} {done.stderr[-500:]}")
        ends: dict[str, list[float]] = defaultdict(list)  # of each client's commits
        for path in Path(logs).iterdir():
            for line in path.read_text(encoding="utf-8").splitlines():
                client, _, _, _, whole, micro = line.split()[:6]
                ends[client].append(int(whole) + int(micro) / 1e6)
    if len(ends) < clients or min(map(len, ends.values())) <= FIRST:  # on a machine so busy that some have hardly begun
        return run(address, script, clients, seconds * 2)
    begin = max(times[FIRST - 1] for times in ends.values())
    end = min(times[-1] for times in ends.values())
    if end <= begin:
        return run(address, script, clients, seconds * 2)
    return sum(begin < at <= end for times in ends.values() for at in times) / (end - begin)
