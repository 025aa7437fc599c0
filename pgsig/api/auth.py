"""Who may use the API: whoever shows the token; without one configured, whoever is on this machine. Cookies count for nothing here."""

from __future__ import annotations

import hmac

from flask import current_app, request

from pgsig.api.problems import Refusal


def require_token() -> None:
    """Refuse a request without the configured token. Raises Refusal 401."""
    token = current_app.extensions["pgsig.settings"].api_token
    if not token:
        return
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not same(shown.strip(), token):
        raise Refusal(
            401, "a valid token is needed", where="Authorization", fix="send Authorization: Bearer, then the token"
        )


def same(shown: str, token: str) -> bool:
    """Compare two secrets in a time that tells nothing about where they differ."""
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), token.encode())
