"""deploy/move-namespace.sh: a namespace goes from one cluster to another while its jobs run, and nothing happens twice or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgsig.embedded import find_binaries
from pgsig.store.migrate import migrate
from tests.lives.clusters import cluster, without_password
from tests.support import wait_for
from tests.support_core import ROOT, Connection, one

WORKFLOW = """
workflow: w
namespace: shop
operators:
  serve: {streaming: {command: [sh, -c, "trap 'exit 0' TERM; sleep 600 & wait"], autostart: true}}
  follow: {streaming: {command: [sh, -c, "trap 'exit 0' TERM; sleep 600 & wait"]}, start: {signal: go}}
  order: {batch: {command: ["true"]}, start: {signal: order}}
  slow: {batch: {command: [sleep, "2"]}, start: {signal: slow}}
  after: {batch: {command: ["true"]}, start: {signal: run.w.slow.succeeded}}
  pair: {batch: {command: ["true"]}, start: {all: [{signal: left}, {signal: right}]}}
  first: {batch: {command: ["true"]}, start: {signal: used}}
  second: {batch: {command: ["true"]}, start: {all: [{signal: used}, {signal: other}]}}
  tick: {batch: {command: ["true"]}, start: {every: 1s}}
"""
ALIVE = "SELECT count(*) FROM pgsig.runs WHERE namespace = 'shop' AND state IN ('queued', 'starting', 'running', 'retrying')"
STARTED = "SELECT count(*) FROM pgsig.runs WHERE namespace = 'shop' AND operator = %s AND subject = %s"
DUE = """
    SELECT (s.value->>'due')::timestamptz FROM pgsig.runs r JOIN pgsig.signals s ON s.id = ANY (r.evidence) WHERE r.operator = 'tick'
"""
# Stand before the programs of their names, where evaluation is late: each look is noted, and between the look that found everything
# evaluated and the apply a tick comes that the worker does not see.
LOOK = """#!/bin/sh
echo >>{looks}
PATH={rest} exec psql "$@"
"""
APPLY = """#!/bin/sh
PATH={rest}
case $* in apply*stub.yaml) ;; *) exec pgsig "$@" ;; esac
touch {applied}
kill -STOP {worker}
trap 'kill -CONT {worker}' EXIT
waiting="SELECT EXISTS(SELECT FROM pgsig_private.signal s WHERE namespace = 'shop' AND kind = 'tick' AND NOT pgsig_private.is_evaluated(s))"
until [ "$(psql "$OLD" -qAtXc "$waiting")" = t ]; do :; done
pgsig "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["", "while evaluation is late"])
def test_a_namespace_moves(database: str, tmp_path: Path, late: bool) -> None:
    """With worker, runner and clock in both. Every signal is acted upon once, in one of them."""
    with cluster() as other, ExitStack() as stack:
        migrate(other.dsn())
        old = stack.enter_context(psycopg.connect(database, autocommit=True))
        new = stack.enter_context(psycopg.connect(other.dsn(), autocommit=True))
        passwords = tmp_path / "pgpass"
        places = [conninfo_to_dict(address) for address in (database, other.dsn())]
        passwords.write_text("".join(f"*:{place['port']}:*:{place['user']}:{place['password']}\n" for place in places))
        passwords.chmod(0o600)
        file = tmp_path / "w.yaml"
        file.write_text(WORKFLOW)
        worker, *_ = (
            stack.enter_context(process(role, address, tmp_path / name))
            for name, address in (("old", database), ("new", other.dsn()))
            for role in ("worker", "runner", "clock")
        )
        pgsig("apply", str(file), address=database)
        say(old, "go", "left", "used")
        say(old, "order", subject="before", event_id="e1")
        say(old, "slow")
        state = "SELECT state FROM pgsig.runs WHERE operator = %s"
        wait_for(
            lambda: one(old, state, "slow") == one(old, state, "serve") == one(old, state, "follow") == "running", 20
        )
        wait_for(lambda: len(old.execute(DUE).fetchall()) > 0)

        looks, applied, env = tmp_path / "looks", tmp_path / "applied", environment()
        if late:
            shims = tmp_path / "shims"
            shims.mkdir()
            for name, text in ("psql", LOOK), ("pgsig", APPLY):
                shim = shims / name
                shim.write_text(text.format(looks=looks, applied=applied, worker=worker.pid, rest=env["PATH"]))
                shim.chmod(0o700)
            env["PATH"] = f"{shims}{os.pathsep}{env['PATH']}"
        move = stack.enter_context(subprocess.Popen(
            ["sh", str(ROOT / "deploy/move-namespace.sh"), str(file)], stdout=subprocess.PIPE, text=True,
            env={**env, "OLD": without_password(database), "NEW": without_password(other.dsn()), "NS": "shop",
                 "LOOK_EVERY": "0.1", "PGPASSFILE": str(passwords)},
        ))  # fmt: skip
        stack.callback(move.kill)
        wait_for(
            lambda: one(old, "SELECT bool_and(paused IS NOT NULL) FROM pgsig.operators WHERE namespace = 'shop'"), 20
        )
        say(old, "order", subject="meanwhile")  # by an emitter that somebody forgot
        if late:
            worker.send_signal(signal.SIGSTOP)
            wait_for(lambda: one(old, state, "slow") == "succeeded", 20)
            enough = looks.stat().st_size + 3
            wait_for(lambda: applied.exists() or looks.stat().st_size >= enough, 20)
            assert not applied.exists(), "what follows the end of `slow` would have met no rule"
            worker.send_signal(signal.SIGCONT)
        said, _ = move.communicate(timeout=60)
        assert move.returncode == 0, said
        assert [line.split("|")[1] for line in said.splitlines()[1:]] == ["used"]

        say(new, "order", subject="before", event_id="e1")  # an emitter does not know whether it was heard
        say(new, "right")
        say(new, "order", subject="after")
        wait_for(lambda: one(new, STARTED, "order", "after"), 20)
        wait_for(lambda: one(new, state, "serve") == one(new, state, "follow") == "running", 20)
        wait_for(lambda: one(new, STARTED, "pair", ""), 20)
        assert one(old, ALIVE) == 0
        for operator, subject, there, here in (
            ("order", "before", 1, 0), ("order", "meanwhile", 0, 1), ("order", "after", 0, 1), ("slow", "", 1, 0), ("after", "", 0, 1),
            ("pair", "", 0, 1), ("first", "", 1, 0), ("second", "", 0, 0), ("serve", "", 1, 1), ("follow", "", 1, 1),
        ):  # fmt: skip
            assert (one(old, STARTED, operator, subject), one(new, STARTED, operator, subject)) == (there, here), (
                operator
            )
        ended = one(
            old, "SELECT max(ended_at) FROM pgsig.runs WHERE namespace = 'shop' AND operator IN ('serve', 'follow')"
        )
        assert ended < one(
            new, "SELECT min(started_at) FROM pgsig.runs WHERE namespace = 'shop' AND operator IN ('serve', 'follow')"
        )

        # Each due time once, also those of the moments in which neither had the trigger: these come by a backfill.
        def dues() -> list[Any]:
            return sorted(due for connection in (old, new) for (due,) in connection.execute(DUE))

        wait_for(lambda: one(new, "SELECT count(*) FROM pgsig.backfills WHERE state = 'running'") == 0, 20)
        until = max(dues()) + timedelta(seconds=2)
        wait_for(lambda: dues()[-1] >= until, 20)
        found = dues()
        assert found == [found[0] + timedelta(seconds=n) for n in range(len(found))]


def environment() -> dict[str, str]:
    binaries = os.pathsep.join([str(Path(sys.executable).parent), str(find_binaries().directory)])
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABASE_URL"))}
    return {**plain, "PATH": binaries + os.pathsep + os.environ["PATH"]}


def pgsig(*words: str, address: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pgsig", *words],
        env={**environment(), "DATABASE_URL": address},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def process(role: str, address: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(exist_ok=True)
    env = {**environment(), "DATABASE_URL": address, "PGSIG_SPOOL": str(folder / role), "PGSIG_LOG": "ERROR"}
    started = subprocess.Popen([sys.executable, "-m", "pgsig", role], env=env, cwd=folder)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGCONT)
        started.terminate()
        started.wait(30)


def say(connection: Connection, *keys: str, subject: str = "", event_id: str | None = None) -> None:
    for key in keys:
        connection.execute(
            "SELECT pgsig.emit(%s, subject => %s, namespace => 'shop', source => 'shop', event_id => %s)",
            [key, subject, event_id],
        )
