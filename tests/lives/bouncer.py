"""A PgBouncer in transaction mode before the tests' server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsig.embedded import find_binaries
from pgsig.embedded.identity import choose_identity, environment, through_helper
from tests.lives.clusters import folder
from tests.support import needs, wait_for

CONFIG = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 300
server_lifetime = 60
logfile = {folder}/log
pidfile = {folder}/pid
"""


@contextmanager
def bouncer(dsn: str) -> Iterator[str]:
    """The address of the same database through it. Few server connections: clients share them at once."""
    program = needs("pgbouncer")
    parts = conninfo_to_dict(dsn)
    with folder() as path, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = int(probe.getsockname()[1])
        probe.close()
        config = path / "pgbouncer.ini"
        config.write_text(
            CONFIG.format(listen=listen, folder=path, **{k: parts[k] for k in ("host", "port", "user", "password")})
        )
        identity = choose_identity(find_binaries())
        if identity.argument.partition(":")[0].isdecimal():
            for each in (path, config):
                os.chown(each, identity.user, identity.group)
        process = subprocess.Popen(
            through_helper(identity, [program, str(config)], parent=os.getpid()),
            env=environment(),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        address = make_conninfo(host="127.0.0.1", port=listen, user=str(parts["user"]), dbname=str(parts["dbname"]))

        def answers() -> bool:
            assert process.poll() is None, (path / "log").read_text()
            try:
                psycopg.connect(address, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        try:
            wait_for(answers, 20, about="pgbouncer to answer")
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
