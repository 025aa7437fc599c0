"""An error as a page."""

from __future__ import annotations

from flask import Response, make_response, render_template

from pgsig.api.problems import document, status_of
from pgsig.errors import PgsigError


def error_page(error: PgsigError) -> Response:
    """The page for an error: what is wrong and the way out, without anything from inside."""
    answer = make_response(render_template("error.html", problem=document(error)), status_of(error))
    answer.headers["Cache-Control"] = "no-store"
    return answer
