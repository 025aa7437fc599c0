"""What a job says to its runner and asks of it: JSON over HTTP on the loopback interface, with a token for each run.

    POST /emit            {key, value, subject, …} or a list of them    → {"ids": […]}
    GET  /signals         ?pattern=config.**&after=CURSOR&wait=SECONDS  → {"signals": […], "cursor": "…"}; a cursor, here or oldest
    POST /ready                                                         → {"ok": true}
    POST /heartbeat       a sign of life; any other POST is one too
    POST /progress        {done, total, text}
    POST /result          any value: it becomes the value of the run's last state signal
    POST /checkpoint      any value: the next attempt gets it
    GET  /reload          ?wait=SECONDS                                 → {"id": …, "cause": […]} or {}
    POST /reload/ID       {"error": "why"}, or {} to acknowledge

Errors are {"error": {code, message, …}}: 401 no such token, 409 PS402 the attempt is over, 422 wrong input, 503 the database is away.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import replace
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pgsig.condition import pattern as patterns
from pgsig.errors import Conflict, InvalidInput, NotFound, Problem, Unavailable
from pgsig.failpoints import reached
from pgsig.runner.ears import Ears
from pgsig.runner.http import LONGEST_WAIT, Raw, Refused, Server
from pgsig.runner.session import Say, SayReady, SayReload, Session
from pgsig.settings import Settings
from pgsig.store import in_job
from pgsig.store.database import Database

LARGEST_NOTE = 256 * 1024  # bytes of a progress, result or checkpoint, like a signal's value
LAST_ANSWERS = 5.0  # seconds for requests under way when the runner ends
REQUESTS = "POST /emit, /ready, /heartbeat, /progress, /result, /checkpoint or /reload/ID; GET /signals or /reload"
CONNECTIONS = 4  # for what jobs emit and ask
TOLD_WITHIN = 30.0  # seconds for what goes through the runner's line to the database


class Door:
    """The endpoint. url: where jobs reach it. say: the runner's line to the database, set before any job is admitted."""

    say: Callable[[Say], None]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closing = False
        self._sessions: dict[str, Session] = {}
        self.ears = Ears()
        self._inside = 0  # requests that are being answered
        self._left = threading.Condition()
        self._database = Database(settings.database_url, name="runner door", size=CONNECTIONS)
        self._server = Server(self.answer)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._server.start()

    def admit(self, session: Session) -> None:
        self._sessions[session.token] = session

    def dismiss(self, session: Session) -> None:
        self._sessions.pop(session.token, None)

    def close(self) -> None:
        self.closing = True
        self.ears.ring()
        self._server.stop()
        with self._left:  # a connection that is given back after the pool was closed would stay open
            self._left.wait_for(lambda: self._inside == 0, LAST_ANSWERS)
        self._database.close()

    def answer(self, method: str, target: str, authorization: str, body: Any) -> Any:
        """Answer one request, and be counted while at it. See `_answer`."""
        with self._left:
            self._inside += 1
        try:
            return self._answer(method, target, authorization, body)
        finally:
            with self._left:
                self._inside -= 1
                self._left.notify_all()

    def _answer(self, method: str, target: str, authorization: str, body: Any) -> Any:
        """Answer one request: a JSON value, or Raw. Raises PgsigError for what is refused."""
        session = self.session(authorization)
        if method == "POST":
            # A GET waits for something: a thread that waits does not show that the work goes on.
            session.heard_at = monotonic()
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        found = re.fullmatch(r"/reload/(\d{1,18})", parts.path)
        if found and method == "POST":
            return self.settle_reload(session, {"id": found[1]}, body)
        handler = {
            ("POST", "/emit"): self.emit,
            ("GET", "/signals"): self.signals,
            ("POST", "/ready"): self.ready,
            ("POST", "/heartbeat"): self.heartbeat,
            ("POST", "/progress"): self.note("progress"),
            ("POST", "/result"): self.note("result"),
            ("POST", "/checkpoint"): self.note("checkpoint"),
            ("GET", "/reload"): self.next_reload,
        }.get((method, parts.path))
        if handler is None:
            raise NotFound(f"there is no {method} {parts.path}", code="PS404", fix=REQUESTS)
        return handler(session, query, body)

    # ── what is asked; each gets the session, the query and the body, and returns the answer ──

    def session(self, authorization: str) -> Session:
        found = self._sessions.get(authorization.removeprefix("Bearer "))
        if found is None:
            raise Refused(
                401,
                "PS403",
                "there is no run with this token, or it is over",
                "take url and token from PGSIG_RUN_FILE",
            )
        return found

    def emit(self, session: Session, _: dict[str, str], body: Any) -> Any:
        grant = session.grant
        if body == []:
            return {"ids": []}
        of_run = (*grant.key, grant.namespace, f"{grant.workflow}.{grant.operator}")
        reached("door.emitting")
        try:
            with self._database.statement() as connection:
                if isinstance(body, list):
                    ids = in_job.emit(connection, *of_run, body)
                else:
                    ids = [in_job.emit_one(connection, *of_run, body)]
                reached("door.emitted")
        except InvalidInput as error:  # of one signal, a pointer is into that
            if isinstance(body, list):
                raise
            raise InvalidInput([replace(p, where=p.where.removeprefix("/0")) for p in error.problems]) from error
        reached("door.answering")
        return {"ids": ids}

    def signals(self, session: Session, query: dict[str, str], _: Any) -> Any:
        grant, pattern = session.grant, query.get("pattern", "")
        wrong = patterns.problem(pattern)
        if wrong:
            raise InvalidInput([Problem("PS405", wrong, "/pattern")], subject="the request")
        cursor = query.get("after") or grant.since
        if cursor in ("here", "oldest"):
            with self._database.statement() as connection:
                cursor = in_job.begin(connection, grant.namespace, cursor)
        elif not re.fullmatch(r"\d+:\d+:[\d,]*(;\d+:\d+:[\d,]*;\d+)?(@\d{1,18})?", cursor):
            raise InvalidInput(
                [Problem("PS405", "not a cursor", "/after", "give back what was answered, or here, or oldest")],
                subject="the request",
            )
        deadline = monotonic() + _wait(query)
        while True:
            rung, before = self.ears.rung, cursor
            with self._database.transaction() as connection:
                found, cursor = in_job.signals_after(connection, grant.namespace, _expression(pattern), cursor)
            left = deadline - monotonic()
            inside = ";" in before + cursor  # of a window: there may be more in it, or behind its end
            if found or (left <= 0 and not inside) or self.closing or session.over:
                return Raw(_signals_text(found, cursor))
            if not inside:
                self.ears.wait(rung, min(left, self.settings.poll_seconds))

    def ready(self, session: Session, _: dict[str, str], __: Any) -> Any:
        session.said_ready = True
        return self._tell(SayReady(session))

    def heartbeat(self, _: Session, __: dict[str, str], ___: Any) -> Any:
        return {"ok": True}  # it has been heard

    def note(self, what: str) -> Callable[[Session, dict[str, str], Any], Any]:
        def keep(session: Session, _: dict[str, str], body: Any) -> Any:
            size = len(json.dumps(body))
            if size > LARGEST_NOTE:
                problem = Problem(
                    "PS406",
                    f"a {what} has at most 256 KiB, this one {size // 1024} KiB",
                    fix="store it elsewhere",
                )
                raise InvalidInput([problem], subject="the request")
            with self._database.transaction() as connection:
                in_job.note(connection, *session.grant.key, what, body)
                reached("door.noting")
            return {"ok": True}

        return keep

    def next_reload(self, session: Session, query: dict[str, str], _: Any) -> Any:
        reload = session.next_reload(_wait(query))
        if reload is None:
            return {}
        self.say(SayReload(session, reload.id, "delivered"))
        return Raw(f'{{"id": {reload.id}, "cause": {reload.cause}}}')

    def settle_reload(self, session: Session, query: dict[str, str], body: Any) -> Any:
        reload = int(query["id"])
        if not session.settled(reload):
            raise Conflict(f"reload {reload} is not open", code="PS407", fix="it was answered before, or came too late")
        error = body.get("error") if isinstance(body, dict) else None
        say = SayReload(session, reload, "failed", str(error)) if error else SayReload(session, reload, "acknowledged")
        return self._tell(say)

    def _tell(self, item: Say) -> Any:
        item.session.wait_begun(TOLD_WITHIN)  # nothing counts before the run does
        self.say(item)
        try:
            if not item.told.result(TOLD_WITHIN):
                raise in_job.gone(item.session.grant.id)
        except NotInTime:
            # It stays in the line: what was said is not lost.
            raise Unavailable("the database is away; it is told as soon as it is back", code="PS012") from None
        return {"ok": True}


def _wait(query: dict[str, str]) -> float:
    try:
        return min(max(float(query.get("wait", 0)), 0.0), LONGEST_WAIT)
    except ValueError:
        raise InvalidInput([Problem("PS405", "wait is a number of seconds", "/wait")], subject="the request") from None


def _expression(pattern: str) -> str:
    """A key pattern as a regular expression of Postgres. Keys hold nothing that means something in one, but for the dot."""
    head, rest = (pattern[:-3], r"(\..+)?") if pattern.endswith(".**") else (pattern, "")
    return "^" + head.replace(".", r"\.").replace("*", "[^.]+") + rest + "$"


def _signals_text(found: list[in_job.Heard], cursor: str) -> str:
    one = [
        "{" + ", ".join(
            [f'"{name}": {json.dumps(getattr(signal, name))}' for name in
             ("id", "key", "subject", "source", "emitted_at", "run_id", "cursor")] + [f'"value": {signal.value}']
        ) + "}"
        for signal in found
    ]  # fmt: skip
    return f'{{"signals": [{", ".join(one)}], "cursor": {json.dumps(cursor)}}}'
