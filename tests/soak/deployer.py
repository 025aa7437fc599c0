"""A process that applies the workflow of each namespace once more, as another version, and ends."""

from __future__ import annotations

import os
from pathlib import Path

from pgsig.store.database import connect
from pgsig.store.definitions import apply
from tests.soak.definition import document


class Deployer:
    def stop(self) -> None:
        os._exit(0)

    def run(self) -> None:
        env = os.environ
        for namespace in env["SOAK_NAMESPACES"].split(","):
            with connect(env["DATABASE_URL"], name="deployer") as connection:
                apply(connection, document(namespace, Path(env["SOAK"]), int(env["SOAK_DEPLOY"])))
