"""GET /metrics for Prometheus, GET /api/v1/metrics as JSON: what `pgsig doctor` sees, with its findings."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response

from pgsig import __version__
from pgsig.api.auth import require_token
from pgsig.api.base import api, database
from pgsig.api.prometheus import exposition
from pgsig.api.reply import reply
from pgsig.store.advice import advice
from pgsig.store.metrics import Metrics, collect
from pgsig.store.reading import reading

metrics = Blueprint("metrics", __name__)
metrics.before_request(require_token)


def look() -> Metrics:
    with reading(database()) as connection:
        return collect(connection)


@metrics.get("/metrics")
def prometheus() -> Response:
    """The text form 0.0.4. Shares the API's token: `authorization: {credentials: …}` in the scrape configuration."""
    answer = Response(exposition(look(), __version__), content_type="text/plain; version=0.0.4; charset=utf-8")
    answer.headers["Cache-Control"] = "no-store"
    return answer


@api.get("/metrics")
def as_json() -> Response:
    """Sizes, ages, lag and what holds things up, with advice."""
    seen = look()
    return reply({**asdict(seen), "findings": [finding.as_dict() for finding in advice(seen)]})
