"""/livez: the process answers. /readyz: it could do something useful, that is, the database answers and has this version's schema."""

from __future__ import annotations

from flask import Blueprint, Response

from pgsig.api.base import database
from pgsig.api.reply import reply
from pgsig.errors import SchemaMismatch, Unavailable
from pgsig.store.reading import reading
from pgsig.store.revision import check

health = Blueprint("health", __name__)


@health.get("/livez")
def livez() -> Response:
    return reply({"status": "alive"})


@health.get("/readyz")
def readyz() -> Response:
    try:
        with reading(database()) as connection:
            check(connection)
    except SchemaMismatch as error:
        raise Unavailable(error.message, code=error.code, fix=error.fix) from error
    return reply({"status": "ready"})
