"""EMIT: signals a second, one row a commit, beside INSERT into copies of the log that have no triggers and do not ring.

The goal speaks of "plain INSERT into the same table without trigger". That is `plain`: the log as it was when the goal was set, when what a
row may be was the table's own business: its rules were CHECKs and its lane a generated column. The guard of today does that work, so a
table that does none of it is no equal. `unguarded` is that one: the table of today, which takes anything and asks nothing, with a constant
for a lane. Both ratios have the goal. Not counted: the first commits of each session, in which it compiles and plans what it keeps.
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
CREATE TABLE {name}.columns (LIKE pgsig.signals INCLUDING ALL);
{change}
CREATE TABLE {name}.signals (LIKE {name}.columns INCLUDING ALL) PARTITION BY RANGE (emitted_at);
ALTER TABLE {name}.signals ALTER emitted_at SET DEFAULT clock_timestamp();
DROP TABLE {name}.columns;
DO $$ DECLARE part record; BEGIN
    FOR part IN SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'pgsig.signals'::regclass
    LOOP EXECUTE format('CREATE TABLE {name}.%I PARTITION OF {name}.signals %s', part.relname, part.bound); END LOOP;
END $$;
"""
RULES = r"""
ALTER TABLE plain.columns
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
CREATE INDEX ON plain.columns (lane, xid, id);
"""

SCRIPTS = {
    "plain INSERT": "INSERT INTO plain.signals (key, value, subject) VALUES ('model.trained', '{\"auc\": 0.9}', 'm1');",
    "unguarded INSERT": "INSERT INTO unguarded.signals (key, value, subject) VALUES ('model.trained', '{\"auc\": 0.9}', 'm1');",
    "INSERT": "INSERT INTO pgsig.signals (key, value, subject) VALUES ('model.trained', '{\"auc\": 0.9}', 'm1');",
    "emit": "SELECT pgsig.emit('model.trained', '{\"auc\": 0.9}', 'm1');",
}
EACH = {1: 3000, 16: 600, 64: 200}  # commits of one client in about a second of a small machine
ENVIRONMENT = {"host": "host", "port": "port", "user": "user", "password": "password", "database": "dbname"}
FIRST = 10  # of each session, not counted: it compiles its functions once, and plans the first five anew


def measure(
    server: Server, report: Report, *, rounds: int, seconds: float, clients: tuple[int, ...] = (1, 16, 64)
) -> None:
    with server.database() as address, ExitStack() as stack:
        with connect(address) as connection:
            for name, change in ("plain", RULES), ("unguarded", ""):
                connection.execute(COPY.replace("{name}", name).replace("{change}", change).encode())
            operator(connection, "evaluate", ("STOP", {"signal": "model.trained"}))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in SCRIPTS.items():
            (folder / name.replace(" ", "_")).write_text(text, encoding="utf-8")
        rates: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        names = list(SCRIPTS)

        def turn(number: int, many: int, worker: str = "") -> None:
            first = number % len(names)  # each has each place in a round
            for name in names[first:] + names[:first]:
                rate = run(address, folder / name.replace(" ", "_"), many, round(EACH[many] * seconds))
                rates[name, worker, many].append(rate)

        for number in range(rounds):
            for many in clients:
                turn(number, many)
        # Beside a worker that wants the same cores, the ratio says less: it has no goal, and one number of clients is enough.
        stack.enter_context(workers(address))
        for number in range(min(rounds, 3) if seconds < 2 else rounds):
            turn(number, clients[len(clients) // 2], ", worker draining")
    for worker in "", ", worker draining":
        for name in names:
            for many in clients:
                if found := rates.get((name, worker, many)):
                    report.figure(f"{name}, {many} clients{worker}", found, "commits a second")
    for (name, worker, many), found in sorted(rates.items(), key=lambda item: (item[0][1:], item[0][0] == "emit")):
        if name not in ("INSERT", "emit"):
            continue
        for beside in "plain INSERT", "unguarded INSERT":
            report.ratio(
                f"{name} / {beside}, {many} clients{worker}",
                paired(found, rates[beside, worker, many]),
                "" if worker else "≥ 0.80",
            )
    report.note(
        "plain: the log as it was when the goal was set, its rules CHECKs and its lane generated by the table; it is what the goal means. "
        "unguarded: the table as it is now without its trigger, which takes anything. Neither rings."
    )


def run(address: str, script: Path, clients: int, commits: int) -> float:
    """Commits a second by pgbench, between the moment when all are under way and the one when the first is done. commits: of a client."""
    where = conninfo_to_dict(address)
    with tempfile.TemporaryDirectory() as logs:
        done = subprocess.run(
            [program("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-t", str(FIRST + commits), "-f", str(script),
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
    begin = max(times[FIRST - 1] for times in ends.values())
    end = min(times[-1] for times in ends.values())
    if end <= begin:  # on a machine so busy that one was done before another had begun
        return run(address, script, clients, commits * 2)
    return sum(begin < at <= end for times in ends.values() for at in times) / (end - begin)
