"""How values look on the pages: Jinja filters and globals."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Flask, request, url_for
from markupsafe import Markup

from pgsig import __version__
from pgsig.api.base import settings
from pgsig.condition.words import words
from pgsig.pages import ansi, state, tree
from pgsig.pages.visible import plain
from pgsig.store.advice import size
from pgsig.store.reading import Row

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def install(app: Flask) -> None:
    """Make filters and globals known to the templates. Every value goes through `visible`: nothing hides in a name."""
    from pgsig.pages.session import csrf_token, is_signed_in

    app.jinja_env.finalize = nothing_hidden
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        ago=ago,
        span=span,
        pretty=pretty,
        size=size,
        plain=plain,
        terminal=ansi.to_html,
        commands=commands,
        moment=moment,
    )
    app.jinja_env.globals.update(
        face=state.one, faces=state.face, condition=tree.of_condition, explanation=tree.of_explanation, sentence=tree.sentence,
        clock_words=words, csrf_token=csrf_token, signed_in=is_signed_in, version=__version__, here=here, static=static,
    )  # fmt: skip


def nothing_hidden(value: Any) -> Any:
    """What Jinja puts into a page: texts with their invisible characters named. The escaping comes after this."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def moment(text: str) -> datetime:
    """A point in time out of a JSON document that Postgres made."""
    return datetime.fromisoformat(text)


def ago(moment: datetime | None, now: datetime | None = None) -> Markup:
    """A time element: relative to read, absolute with its zone in the title. The script keeps it up to date."""
    if moment is None:
        return Markup('<span class="none">–</span>')
    at = moment.astimezone(UTC)
    absolute = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(), absolute, words_for((now or datetime.now(UTC)) - at)
    )


def words_for(gone: timedelta) -> str:
    """A distance in time in a few words; what lies ahead as `in 5 min`."""
    seconds = int(abs(gone.total_seconds()))
    if seconds < 1:
        return "now"
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    text = f"{seconds // size} {unit}"
    return f"{text} ago" if gone.total_seconds() > 0 else f"in {text}"


def span(begin: datetime | None, end: datetime | None) -> str:
    """How long something took; `–` if it is not over."""
    if begin is None or end is None:
        return "–"
    seconds = max(0.0, (end - begin).total_seconds())
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def pretty(value: Any) -> str:
    """A decoded JSON value over several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def commands(signal: Row) -> dict[str, str]:
    """The lines that emit the same signal again: in SQL, by curl, in Python."""
    key, value, subject = signal["key"], signal["value"], signal["subject"]
    sql_subject = f", subject => {_sql(subject)}" if subject else ""
    body = (
        f'{{"key": {json.dumps(key)}, "value": {value}'
        + (f', "subject": {json.dumps(subject)}' if subject else "")
        + "}"
    )
    token = ' -H "Authorization: Bearer $PGSIG_API_TOKEN"' if settings().api_token else ""
    python_subject = f", subject={subject!r}" if subject else ""
    return {
        "SQL": f"SELECT pgsig.emit({_sql(key)}, {_sql(value)}{sql_subject});",
        "curl": f"curl{token} -H 'Content-Type: application/json' -d {shlex.quote(body)} {request.host_url}api/v1/signals",
        "Python": f"pgsig.Client().emit({key!r}, {json.loads(value)!r}{python_subject})",
        "CLI": f"pgsig emit {shlex.quote(key)} {shlex.quote(value)}"
        + (f" --subject {shlex.quote(subject)}" if subject else ""),
    }


def here(**changed: Any) -> str:
    """This page's address with some parameters changed; None takes one away."""
    kept = {name: value for name, value in request.args.items() if name != "part"}
    query = {name: value for name, value in {**kept, **changed}.items() if value not in (None, "")}
    return f"{request.path}?{urlencode(query)}" if query else request.path


def static(name: str) -> str:
    """Address of a static file; the version in it lets browsers keep the file."""
    return url_for("static", filename=name, v=__version__)


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
