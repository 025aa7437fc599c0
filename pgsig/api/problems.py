"""Refusals as RFC 9457 documents. A code of the door itself is the HTTP status + 200 (PS604: not found, PS703: not now)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flask import Response

from pgsig.errors import Conflict, InvalidInput, NotFound, PgsigError, Problem, Unavailable

TITLES = {
    400: "Bad request", 401: "Who are you?", 403: "Not from there", 404: "Not found", 405: "Wrong method", 409: "Conflict",
    413: "Too large", 415: "Wrong content type", 422: "Invalid input", 429: "Too many", 500: "Our mistake", 503: "Not now",
}  # fmt: skip
KINDS: tuple[tuple[type[PgsigError], int], ...] = (
    (InvalidInput, 422),
    (NotFound, 404),
    (Conflict, 409),
    (Unavailable, 503),
)


class Refusal(PgsigError):
    """A request that the door itself turns down. status: of the HTTP response. problems: all of them, if there are several."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        where: str = "",
        fix: str = "",
        problems: Sequence[Problem] = (),
        code: str = "",
    ) -> None:
        super().__init__(message, code=code or f"PS{status + 200}", where=where, fix=fix)
        self.status = status
        self.problems = tuple(problems) or (Problem(self.code, message, where, fix),)


def status_of(error: PgsigError) -> int:
    """The HTTP status that an error is answered with; 500 for one that is not the caller's to mend."""
    if isinstance(error, Refusal):
        return error.status
    # PS1xx and PS2xx are what the database says of a caller's signal or order, whatever the class.
    other = 422 if error.code.startswith(("PS1", "PS2")) else 500
    return next((status for kind, status in KINDS if isinstance(error, kind)), other)


def problems_of(error: PgsigError) -> tuple[Problem, ...]:
    """Everything that an error has to say, fit to be shown: what a server says about itself is left out."""
    if isinstance(error, Unavailable) and not error.code.startswith("PS02"):
        shown = "the database cannot be reached" if error.code == "PS010" else "the database cannot do it now"
        return (Problem(error.code, shown, "", "try again"),)
    if isinstance(error, Refusal | InvalidInput):
        return error.problems
    if (
        status_of(error) == 500
    ):  # also what pgsig says to whoever runs it, such as a wrong schema in the middle of a request
        return (Problem(error.code, "something went wrong here; the server's log says what"),)
    return (Problem(error.code, error.message, error.where, error.fix),)


def document(error: PgsigError) -> dict[str, Any]:
    """The error as problem+json, before it is encoded."""
    status, problems = status_of(error), problems_of(error)
    detail = problems[0].message if len(problems) == 1 else f"{len(problems)} problems; nothing was changed"
    return {
        "type": "about:blank", "title": TITLES.get(status, "Refused"), "status": status, "detail": detail,
        "code": problems[0].code, "errors": [problem.as_dict() for problem in problems],
    }  # fmt: skip


def response(error: PgsigError) -> Response:
    """The answer to a request that failed with `error`."""
    body = document(error)
    answer = Response(json.dumps(body, ensure_ascii=False), body["status"], content_type="application/problem+json")
    if body["status"] == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="pgsig"'
    if body["status"] in (429, 503):
        answer.headers["Retry-After"] = "2"
    return answer
