"""What every route of the API stands on: the blueprint, and the application's settings, database and watch."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response, current_app, request

from pgsig.api.auth import require_token
from pgsig.live import Live
from pgsig.settings import Settings
from pgsig.store.database import Database

MOST_BYTES = 1024 * 1024  # of a body

api = Blueprint("api", __name__, url_prefix="/api/v1")
api.before_request(require_token)


def settings() -> Settings:
    return cast(Settings, current_app.extensions["pgsig.settings"])


def database() -> Database:
    return cast(Database, current_app.extensions["pgsig.database"])


def live() -> Live:
    return cast(Live, current_app.extensions["pgsig.live"])


@api.after_request
def private(response: Response) -> Response:
    """Nothing of this is for caches."""
    response.headers.setdefault("Cache-Control", "no-store")
    if request.method == "POST":
        response.headers.setdefault("Vary", "Authorization")
    return response
