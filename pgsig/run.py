"""What a job knows and says: `from pgsig import run`.

    run.id, run.attempt, run.generation, run.workflow, run.operator, run.subject, run.namespace, run.action
    run.params                the operator's parameters, with those of this run
    run.cause                 the signals that led to it: each has key, subject, value, id
    run.checkpoint_value      what an earlier attempt, or of a streaming operator the run before, left by run.checkpoint(), else None

    run.emit("model.trained", {"auc": 0.9})        run.signals("config.**")
    run.ready()  run.heartbeat()  run.progress(3, 10)  run.result({"rows": 7})  run.checkpoint({"at": 42})
    run.on_reload  run.reloads()  run.stopping  run.handle_stop()

Needs nothing but Python's own library. Outside a run every use raises PgsigError PS401. A call that the runner refuses
raises PgsigError with the code of the refusal: PS402 means that this attempt is over, and that the process should end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote

from pgsig.errors import PgsigError
from pgsig.runner.calling import LONG_POLL, about, call

log = logging.getLogger("pgsig.run")

# Attributes, answered by __getattr__ below: importing this module must work outside a run, too.
id: int
epoch: int
attempt: int
generation: int
namespace: str
workflow: str
operator: str
subject: str
kind: str
action: str | None
params: dict[str, Any]
cause: list[Signal]
checkpoint_value: Any

stopping = threading.Event()
"""Set when the run was asked to stop, once `handle_stop()` was called."""

_wakers: set[queue.SimpleQueue[Any]] = set()
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal as a job sees it. cursor: give it to `signals(after=…)` to go on behind it, also in a later attempt."""

    id: int
    key: str
    subject: str
    value: Any
    source: str = ""
    emitted_at: str = ""
    run_id: int | None = None
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Reload:
    """A reload that was ordered. cause: the signals that led to it."""

    id: int
    cause: list[Signal]


def __getattr__(name: str) -> Any:
    if name == "cause":
        return [_signal(item) for item in about()["cause"]]
    if name == "checkpoint_value":
        return about()["checkpoint"]
    if name in __annotations__:
        return about()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ── saying ──


def emit(key: str, value: Any = None, subject: str = "", *, event_id: str | None = None, connection: Any = None) -> int:
    """Emit a signal of this run; returns its position.

    event_id: the fact's own name; the same one twice is one signal. connection: a psycopg (or other DB-API, or SQLAlchemy)
    connection to pgsig's database: the signal is then part of that transaction, and exists if and only if it commits.
    """
    if connection is not None:
        return _emit_in(connection, key, value, subject, event_id)
    body = {"key": key, "value": value, "subject": subject} | ({"event_id": event_id} if event_id else {})
    return int(_call("POST", "/emit", body)["ids"][0])


def emit_many(signals: list[dict[str, Any]]) -> list[int]:
    """Emit several signals, {key, value, subject, event_id}: all or none. Returns their positions in order."""
    return list(_call("POST", "/emit", signals)["ids"])


def ready() -> None:
    """Say that this run serves: with `ready: api` the one that it takes over from is stopped only now."""
    _call("POST", "/ready", {})


def heartbeat() -> None:
    """Say that the work goes on, where the operator has `live: {heartbeat: …}`; elsewhere it does nothing.

    Call it as often as you like, from where the work is done: it speaks only when a quarter of the time is over. All else that a job says
    is a sign of life too, and so is each turn of a loop over `signals` or `reloads`, also while nothing comes.
    """
    every = about().get("heartbeat")
    now = monotonic()
    if every and now - _beat["at"] >= every / 4:
        _beat["at"] = now
        _call("POST", "/heartbeat", {})


_beat = {"at": -1e9}  # when it last was said


def _patience() -> float:
    """Seconds to wait for something to happen before the next sign of life."""
    return min(LONG_POLL, (about().get("heartbeat") or LONG_POLL * 4) / 4)


def progress(done: float, total: float | None = None, text: str = "") -> None:
    """Show how far the work is."""
    _call("POST", "/progress", {"done": done, "total": total, "text": text})


def result(value: Any) -> None:
    """Keep a JSON value as what this run came to: it becomes the value of the signal of its end."""
    _call("POST", "/result", value)


def checkpoint(value: Any) -> None:
    """Keep a JSON value for the next attempt, and for the next run of a streaming operator: they find it in `checkpoint_value`."""
    _call("POST", "/checkpoint", value)


# ── hearing ──


def signals(pattern: str, *, after: str = "") -> Iterator[Signal]:
    """Signals of the namespace as they are committed, in the order of the log, for ever; ends when the run is asked to stop.

    pattern: a key, `*` for one segment, a trailing `**` for any rest. after: `Signal.cursor` of the last one seen, kept
    for instance by `checkpoint`; `here` for all from now on, `oldest` for what is left of the log; by default all that was
    committed since this attempt was granted. Raises PgsigError PS409 where some of it was dropped, being past retention.
    """
    handle_stop()
    cursor = after
    while not stopping.is_set():
        heartbeat()
        path = f"/signals?pattern={quote(pattern)}&after={quote(cursor)}&wait={_patience():g}"
        page = _until_stop(lambda path=path: _call("GET", path))  # type: ignore[misc]
        if page is None:
            return
        for item in page["signals"]:
            if stopping.is_set():
                return
            yield _signal(item)
        cursor = page["cursor"]


def reloads() -> Iterator[Reload]:
    """Reloads that are ordered, for ever; each counts as done when the next one is asked for, or the loop ends.

    An exception in the loop's body cannot be seen from here: there the reload times out, and a restart follows.
    """
    handle_stop()
    while not stopping.is_set():
        heartbeat()
        found = _until_stop(_next_reload)
        if found is not None:
            yield found
            _settle(found, None)


def on_reload(handler: F) -> F:
    """Call `handler` for each reload, from a thread of its own: with the reload, or with nothing if it takes no parameter.

    It counts as done when the handler returns; an exception makes it fail with its text, and a restart follows.
    """
    import inspect

    wants = len(inspect.signature(handler).parameters)
    about()

    def serve() -> None:
        while not stopping.is_set():
            try:
                found = _next_reload()
            except PgsigError as error:
                if error.code in ("PS402", "PS403"):
                    return
                log.warning("waiting for a reload: %s", error)
                stopping.wait(1.0)
                continue
            if found is None:
                continue
            problem = None
            try:
                handler(*[found][:wants])
            except Exception as error:
                log.exception("a reload failed")
                problem = f"{type(error).__name__}: {error}"
            with contextlib.suppress(PgsigError):
                _settle(found, problem)

    threading.Thread(target=serve, name="pgsig-reload", daemon=True).start()
    return handler


def handle_stop() -> None:
    """Turn SIGTERM into `stopping`, so that the job can end in its own way within its grace. Does nothing outside the main thread,
    or where the job has a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        threading.Thread(target=_await_stop, name="pgsig stop", daemon=True).start()
        signal.signal(signal.SIGTERM, _asked_to_stop)


_asked: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put is safe in a signal handler


def _asked_to_stop(*_: object) -> None:
    _asked.put(None)


def _await_stop() -> None:
    """Tell whoever waits, from a thread: the handler may have interrupted the main thread inside `stopping.wait`, with its lock held."""
    _asked.get()
    stopping.set()
    for waker in list(_wakers):
        waker.put(None)


# ── the runner ──


def _call(method: str, path: str, body: Any = None) -> Any:
    return call(method, path, body, stopping=stopping)


def _until_stop(ask: Callable[[], Any]) -> Any:
    """What `ask` answers, or None as soon as the run is asked to stop: a signal handler cannot interrupt a read from a socket."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()  # its put is safe in a signal handler

    def work() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            answers.put((None, error))

    _wakers.add(answers)
    try:
        if stopping.is_set():
            return None
        threading.Thread(target=work, name="pgsig-wait", daemon=True).start()
        found = answers.get()
    finally:
        _wakers.discard(answers)
    if found is None:
        return None
    if found[1] is not None:
        raise found[1]
    return found[0]


def _next_reload() -> Reload | None:
    answer = _call("GET", f"/reload?wait={_patience():g}")
    return Reload(answer["id"], [_signal(item) for item in answer["cause"]]) if answer else None


def _settle(reload: Reload, problem: str | None) -> None:
    _call("POST", f"/reload/{reload.id}", {"error": problem} if problem else {})


def _signal(item: dict[str, Any]) -> Signal:
    return Signal(**{name: item[name] for name in Signal.__slots__ if name in item})


def _emit_in(connection: Any, key: str, value: Any, subject: str, event_id: str | None) -> int:
    this = about()
    driver = getattr(getattr(connection, "connection", None), "driver_connection", None) or connection  # SQLAlchemy's
    cursor = driver.cursor()
    try:
        cursor.execute(
            "SELECT pgsig.emit(%s, %s::jsonb, %s, %s, %s, %s, %s)",
            (
                key,
                json.dumps(value),
                subject,
                this["namespace"],
                f"{this['workflow']}.{this['operator']}",
                event_id,
                this["id"],
            ),
        )
        return int(cursor.fetchone()[0])
    finally:
        cursor.close()
