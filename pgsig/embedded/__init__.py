"""A Postgres server of one's own: for `pgsig dev`, the demonstration and the tests. Not for production.

The programs come from a wheel, from the machine, or from where `PGSIG_PG_BIN` points. Everything that belongs
to the server lies in one directory:

    cluster/       Postgres' own data directory
    password       of the user `pgsig`, mode 0600
    port           the last one used; taken again if it is free
    postgres.log   what the server wrote, of this start and of earlier ones
    lock           held by every process of the server for as long as it lives

The lock is what makes restarts safe: as long as any process of an earlier server lives, however it was
orphaned, nobody else gets it. So `postmaster.pid`, which may name a process that is long gone, never needs to
be believed.
"""

from pgsig.embedded.binaries import Binaries, EmbeddedPostgresError, find_binaries
from pgsig.embedded.server import EmbeddedPostgres

__all__ = ["Binaries", "EmbeddedPostgres", "EmbeddedPostgresError", "find_binaries"]
