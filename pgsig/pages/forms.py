"""What people type into forms."""

from __future__ import annotations

from pgsig.api.body import loads
from pgsig.api.problems import Refusal
from pgsig.model import Json


def json_of(text: str, where: str) -> Json:
    """JSON from a form's field. Raises Refusal 422 that says what people mostly mean."""
    try:
        return loads(text)
    except Refusal as error:
        message = error.message.replace("the body is not JSON", "not JSON")
        raise Refusal(
            422, message, where=where, fix='a text goes in quotes: "passed"; an object in braces: {"auc": 0.9}'
        ) from error
