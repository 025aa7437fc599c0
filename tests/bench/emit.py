"""EMIT: signals a second, one row a commit, beside INSERT into copies of the log that have no triggers and do not ring.

"plain" has the log's rules as CHECK constraints, as the log had them when the goal was set; "unguarded" takes anything."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.bench.report import Report, paired
from tests.bench.server import Server, connect, program
from tests.support_core import operator, workers

COPY = """
CREATE SCHEMA {name};
CREATE TABLE {name}.signals (LIKE pgsig.signals INCLUDING ALL) PARTITION BY RANGE (emitted_at);
ALTER TABLE {name}.signals ALTER emitted_at SET DEFAULT clock_timestamp();
DO $$ DECLARE part record; BEGIN
    FOR part IN SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'pgsig.signals'::regclass
    LOOP EXECUTE format('CREATE TABLE {name}.%I PARTITION OF {name}.signals %s', part.relname, part.bound); END LOOP;
END $$;
"""
RULES = r"""
ALTER TABLE plain.signals
    ADD CHECK (octet_length(key) <= 200 AND key ~ '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$'),
    ADD CHECK (kind <> 'user' OR key !~ '^(run|tick|manual|timer)(\.|$)'),
    ADD CHECK (pg_column_size(value) <= 262144),
    ADD CHECK (namespace ~ '^[a-z][a-z0-9_-]{0,62}$'),
    ADD CHECK (octet_length(subject) <= 200),
    ADD CHECK (octet_length(source) <= 200),
    ADD CHECK (octet_length(event_id) BETWEEN 1 AND 200),
    ADD CHECK (kind IN ('user', 'state', 'tick', 'manual', 'timer'))
"""

SCRIPTS = {
    "plain INSERT": "INSERT INTO plain.signals (key, value, subject) VALUES ('model.trained', '{\"auc\": 0.9}', 'm1');",
    "unguarded INSERT": "INSERT INTO unguarded.signals (key, value, subject) VALUES ('model.trained', '{\"auc\": 0.9}', 'm1');",
    "INSERT": "INSERT INTO pgsig.signals (key, value, subject) VALUES ('model.trained', '{\"auc\": 0.9}', 'm1');",
    "emit": "SELECT pgsig.emit('model.trained', '{\"auc\": 0.9}', 'm1');",
}


def measure(
    server: Server, report: Report, *, rounds: int, seconds: float, clients: tuple[int, ...] = (1, 16, 64)
) -> None:
    with server.database() as address, ExitStack() as stack:
        with connect(address) as connection:
            for name in ("plain", "unguarded"):
                connection.execute(COPY.replace("{name}", name).encode())
            connection.execute(RULES.encode())
            operator(connection, "evaluate", ("STOP", {"signal": "model.trained"}))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in SCRIPTS.items():
            (folder / name.replace(" ", "_")).write_text(text, encoding="utf-8")
        rates: dict[tuple[str, str, int], list[float]] = {}
        for worker in ("", ", worker draining"):
            if worker:
                stack.enter_context(workers(address))
            # Beside a worker that wants the same cores, the ratio says less: it has no goal, and a quick run asks for one number only.
            for _ in range(rounds):
                for number in clients[1:2] if worker and seconds < 2 else clients:
                    for name in SCRIPTS:
                        # What a session compiles once is most of a second of 64 that begin together.
                        rate = run(
                            address, folder / name.replace(" ", "_"), number, seconds * (2 if number >= 64 else 1)
                        )
                        rates.setdefault((name, worker, number), []).append(rate)
    for (name, worker, number), found in rates.items():
        report.figure(f"{name}, {number} clients{worker}", found, "commits a second")
    for (name, worker, number), found in rates.items():
        if name not in ("INSERT", "emit"):
            continue
        for beside, goal in ("plain INSERT", "≥ 0.80"), ("unguarded INSERT", ""):
            report.ratio(
                f"{name} / {beside}, {number} clients{worker}",
                paired(found, rates[beside, worker, number]),
                goal if not worker else "",
            )


def run(address: str, script: Path, clients: int, seconds: float) -> float:
    """Transactions a second, by pgbench."""
    where = conninfo_to_dict(address)
    done = subprocess.run(
        [program("pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", f"{max(1, round(seconds))}", "-f", str(script)],
        env={
            **os.environ, "PGHOST": str(where.get("host", "")), "PGPORT": str(where.get("port", "")), "PGUSER": str(where.get("user", "")),
            "PGPASSWORD": str(where.get("password", "")), "PGDATABASE": str(where.get("dbname", "")),
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    if rate is None and seconds < 60 and "actually processed: 0" in done.stdout:
        return run(
            address, script, clients, seconds * 2
        )  # on a busy machine the time was over before all were connected
    if rate is None:
        raise SystemExit(f"pgbench failed: {done.stdout[-300:]} {done.stderr[-500:]}")
    return float(rate[1])
