"""The web process: the JSON API and the pages in one Flask application, served by gunicorn.

`create_app` makes the application around a database; `serve` runs it. What holds for every request is here: which hosts and
origins are answered, how large a body may be, which headers an answer carries, and how errors look.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, request
from gunicorn.app.base import BaseApplication
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from pgsig.api import api
from pgsig.api.base import MOST_BYTES
from pgsig.api.base import settings as current_settings
from pgsig.api.health import health
from pgsig.api.metrics import metrics
from pgsig.api.problems import TITLES, Refusal, response, status_of
from pgsig.definition import schema
from pgsig.errors import InvalidInput, PgsigError, Problem
from pgsig.live import Live
from pgsig.pages import pages
from pgsig.pages.error import error_page
from pgsig.pages.show import install
from pgsig.paths import room
from pgsig.presence import Presence
from pgsig.settings import Settings
from pgsig.store.database import Database

logger = logging.getLogger(__name__)

PROCESSES = 2
THREADS = 40  # of each process; a live stream holds one
STREAMS = 24  # of each process: the rest of the threads stays free for requests
CONNECTIONS = 8  # of each process
GRACE = 3  # seconds in which requests under way may end

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PositionConverter(BaseConverter):
    """A position in the log or the id of a row. What does not fit a bigint is not found, instead of an error of the database."""

    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:
        return int(value)


def create_app(settings: Settings, database: Database) -> Flask:
    """The application. It opens no connection before the first request, and its thread only while somebody watches.

    `app.extensions["pgsig.live"].close()` ends what it started.
    """
    app = Flask("pgsig.web", template_folder=str(room("web") / "templates"), static_folder=str(room("web") / "static"))
    app.config.update(
        SECRET_KEY=settings.secret_key or secrets.token_hex(32),
        MAX_CONTENT_LENGTH=MOST_BYTES,
        MAX_FORM_MEMORY_SIZE=MOST_BYTES,
        SESSION_COOKIE_NAME="pgsig",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SEND_FILE_MAX_AGE_DEFAULT=3600,
        PGSIG_TOKEN=bool(settings.api_token),
    )
    app.extensions["pgsig.settings"] = settings
    app.extensions["pgsig.database"] = database
    app.extensions["pgsig.live"] = Live(database, settings.direct_url, poll=settings.poll_seconds, most=STREAMS)
    app.url_map.converters["position"] = PositionConverter
    app.before_request(check_host)
    app.before_request(check_origin)
    app.after_request(add_headers)
    app.register_error_handler(Exception, answer_error)
    install(app)
    for blueprint in (health, metrics, api, pages):
        app.register_blueprint(blueprint)
    app.add_url_rule(
        "/schema/workflow.json", "schema", lambda: Response(schema.text(), mimetype="application/schema+json")
    )
    return app


def check_host() -> None:
    """Refuse a Host header that is not ours: a page of another site that rebinds its name to this address gets nothing.

    Health checks are exempt, they come to addresses. Raises Refusal 400.
    """
    if request.endpoint in ("health.livez", "health.readyz"):
        return
    allowed = current_settings().allowed_hosts
    host = request.headers.get("Host", "")
    if "*" not in allowed and name_of(host) not in {name.lower() for name in allowed}:
        raise Refusal(400, "this host name is not served here", where="Host", fix="add it to PGSIG_ALLOWED_HOSTS")


def check_origin() -> None:
    """Refuse a write that another site's page sends. Raises Refusal 403."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
        raise Refusal(
            403, "writes from another site's page are refused", where="Origin", fix="send it from a page of this server"
        )


def name_of(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and not name.endswith(":") else host).lower()


def add_headers(answer: Response) -> Response:
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


def answer_error(error: Exception) -> Response:
    """Any error as a document or a page. What we did not foresee is logged whole and shown as nothing but that."""
    if isinstance(error, HTTPException) and error.code is not None and error.code < 400:
        return Response(error.get_response().response, error.code, dict(error.get_response().headers))
    if isinstance(error, HTTPException):
        shown: PgsigError = Refusal(
            error.code or 500, TITLES.get(error.code or 500, error.name), fix=_FIXES.get(error.code or 0, "")
        )
    elif isinstance(error, PgsigError):
        shown = error
    else:
        shown = Refusal(500, "something went wrong here; the server's log says what")
    if status_of(shown) == 500:
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
    machine = request.path.startswith("/api/") or request.blueprint in ("api", "health", "metrics")
    answer = response(shown) if machine else error_page(shown)
    if isinstance(error, HTTPException) and error.code == 405 and (allow := error.get_response().headers.get("Allow")):
        answer.headers["Allow"] = allow
    return answer


_FIXES = {
    404: "look at the path", 405: "the Allow header names the methods", 413: f"send at most {MOST_BYTES // 1024} KiB",
}  # fmt: skip


class Server(BaseApplication):
    """gunicorn with threads. Each process makes its own application, and with it its pool, after the fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        host = self.settings.host
        chosen: dict[str, Any] = {
            "bind": f"[{host}]:{self.settings.port}" if ":" in host and not host.startswith("[") else f"{host}:{self.settings.port}",
            "workers": PROCESSES, "worker_class": "gthread", "threads": THREADS, "graceful_timeout": GRACE,
            "timeout": 60, "keepalive": 5, "proc_name": "pgsig web", "loglevel": "warning", "accesslog": None,
            "limit_request_line": 8190, "control_socket_disable": True,
            "post_worker_init": _begin, "worker_exit": _close,
        }  # fmt: skip
        for name, value in chosen.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        database = Database(self.settings.database_url, name="web", size=CONNECTIONS)
        return create_app(self.settings, database)


def _begin(worker: Any) -> None:
    """Announce the process. A stream holds its thread: without `ending` it would hold a restart up until the grace is over."""
    worker.wsgi.extensions["pgsig.live"].ending = lambda: not worker.alive
    worker.wsgi.extensions["pgsig.presence"] = presence = Presence(
        worker.wsgi.extensions["pgsig.settings"].database_url
    )
    presence.start()


def _close(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature
    if (app := getattr(worker, "wsgi", None)) is not None:
        if (presence := app.extensions.get("pgsig.presence")) is not None:
            presence.stop()
        app.extensions["pgsig.live"].close()
        app.extensions["pgsig.database"].close()


def serve(settings: Settings) -> None:
    """Serve the API and the pages until SIGTERM or SIGINT. Raises InvalidInput for an address that would let everybody in."""
    if not settings.api_token and not _is_loopback(settings.host):
        raise InvalidInput([
            Problem(
                "PS003", f"without a token only this machine may use the web process, and {settings.host} is open to others",
                "PGSIG_API_TOKEN", "set PGSIG_API_TOKEN or PGSIG_API_TOKEN_FILE, or PGSIG_HOST=127.0.0.1",
            )
        ], subject="the settings")  # fmt: skip
    # Made here and not by each process: a cookie that one process signed is for the others too.
    Server(replace(settings, secret_key=settings.secret_key or secrets.token_hex(32))).run()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
