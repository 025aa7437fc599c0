"""Signing in with the token, and the signed token in every form that keeps other sites from sending it for somebody."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from flask import Response, current_app, make_response, redirect, render_template, request, session
from werkzeug.wrappers import Response as AnyResponse

from pgsig.api.auth import same
from pgsig.api.base import settings
from pgsig.api.problems import Refusal
from pgsig.pages.base import pages


def csrf_token() -> str:
    """The value for a form's hidden field: proof that the form came from a page that only this browser could read."""
    if "nonce" not in session:
        session["nonce"] = secrets.token_hex(16)
    return _signed(session["nonce"])


def is_signed_in() -> bool:
    """Whether this browser has shown the token that is valid now; without a token configured nobody needs to."""
    token = settings().api_token
    return not token or same(str(session.get("token", "")), _mark(token))


@pages.before_request
def guard() -> AnyResponse | None:
    """Send who is not signed in to the form, and refuse a form without its token. Raises Refusal."""
    if request.endpoint != "pages.login" and not is_signed_in():
        if request.args.get("part") or request.endpoint == "pages.stream" or request.method != "GET":
            raise Refusal(401, "sign in first", fix="open /login")
        return redirect(f"/login?next={_quoted(request.full_path.rstrip('?'))}", 303)
    if request.method == "POST":
        shown, nonce = request.form.get("csrf", ""), session.get("nonce")
        if nonce is None or not same(shown, _signed(nonce)):
            raise Refusal(400, "this form is not valid any more", where="csrf", fix="reload the page and send it again")
    return None


@pages.route("/login", methods=["GET", "POST"])
def login() -> AnyResponse:
    """The form, and its check. Signing in gives a new session, so that one planted before is worth nothing."""
    target = local(request.values.get("next", "/"))
    if request.method == "GET":
        return redirect(target, 303) if is_signed_in() else _form(target)
    if not same(request.form.get("token", ""), settings().api_token) or not settings().api_token:
        return _form(target, "That is not the token.", 401)
    session.clear()
    session["token"] = _mark(settings().api_token)
    return redirect(target, 303)


@pages.post("/logout")
def logout() -> AnyResponse:
    session.clear()
    return redirect("/login", 303)


def local(target: str) -> str:
    """An address of this server, whatever was asked for."""
    parts = urlsplit(target.replace("\\", "/"))
    plain = target.isprintable() and not any(c.isspace() for c in target)
    if (
        parts.scheme
        or parts.netloc
        or not target.startswith("/")
        or target.replace("\\", "/").startswith("//")
        or not plain
    ):
        return "/"
    return target


def _form(target: str, wrong: str = "", status: int = 200) -> Response:
    return make_response(render_template("login.html", target=target, wrong=wrong), status)


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="/")


def _signed(nonce: str) -> str:
    return hmac.new(_key(), f"csrf {nonce}".encode(), hashlib.sha256).hexdigest()


def _mark(token: str) -> str:
    """What a session holds instead of the token: a cookie is signed, not secret, and another token ends every session."""
    return hmac.new(_key(), f"token {token}".encode(), hashlib.sha256).hexdigest()


def _key() -> bytes:
    return str(current_app.config["SECRET_KEY"]).encode()
