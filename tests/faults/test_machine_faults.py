"""What a machine does to a database: a host that vanishes, a backend that freezes, a disk and a queue that are full."""

from __future__ import annotations

from time import monotonic

import psycopg
import pytest

from tests.faults.afar import THERE, afar
from tests.lives.clusters import cluster
from tests.support import wait_for
from tests.support_core import one

pytestmark = pytest.mark.faults

# One session holds a lock and is silent, one is to be answered, one listens.
CLIENT = """
import sys, time, psycopg
from pgsig.store.database import connect
silent, asking, ears = (connect(sys.argv[1], name=name) for name in ("silent", "asking", "ears"))
silent.execute("SELECT pg_advisory_lock(1)")
asking.execute("SELECT pg_advisory_lock(2)")
ears.execute("LISTEN anything")
print("ready", flush=True)
sys.stdin.readline()
asking.pgconn.send_query(b"SELECT pg_sleep(0.5), repeat('x', 100000)")
asking.pgconn.flush()
print("asked", flush=True)
try:
    for _ in ears.notifies(timeout=60):
        pass
except psycopg.OperationalError:
    print("deaf", flush=True)
"""


def test_a_host_that_vanishes_holds_no_lock_and_hears_of_it() -> None:
    """Rows 5 and 6. Packets are dropped both ways: without an end to silence, a server believes in its client for two hours."""
    with cluster() as server, afar() as machine, psycopg.connect(server.dsn(), autocommit=True) as connection:
        hba = server.data_dir / "cluster" / "pg_hba.conf"
        hba.write_text(hba.read_text() + f"host all all {THERE}/32 scram-sha-256\n")
        connection.execute("SELECT pg_reload_conf()")
        with machine.start(CLIENT, server.dsn()) as client:
            try:
                assert client.stdout is not None
                assert client.stdin is not None
                assert client.stdout.readline() == "ready\n"
                client.stdin.write("\n")
                client.stdin.flush()
                assert client.stdout.readline() == "asked\n"
                machine.cut()
                began = monotonic()
                wait_for(lambda: one(connection, "SELECT pg_try_advisory_lock(1)"), 25, about="the silent one's lock")
                wait_for(lambda: one(connection, "SELECT pg_try_advisory_lock(2)"), 25, about="the asking one's lock")
                assert client.stdout.readline() == "deaf\n"
                assert monotonic() - began < 30
            finally:
                client.kill()
