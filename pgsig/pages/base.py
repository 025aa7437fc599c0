"""What every page stands on: the blueprint, and rendering whole or in part."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, make_response, render_template, request

pages = Blueprint("pages", __name__)

ROWS = 50  # of a list
VALUE = 160  # characters of a value in a list


def render(name: str, parts: tuple[str, ...], /, status: int = 200, **context: Any) -> Response:
    """A page, or the one part of it that the script asks for with `?part=`."""
    part = request.args.get("part")
    template = f"parts/{part}.html" if part in parts else f"{name}.html"
    return make_response(render_template(template, **context), status)


@pages.after_request
def private(response: Response) -> Response:
    """A page shows what its reader may see: no cache may keep it."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response
