"""`pgsig demo`: what to look at and to try, then what happens, as it is recorded, until Ctrl-C."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from time import monotonic

import psycopg

from pgsig.demo import ledger
from pgsig.demo.ledger import Event
from pgsig.demo.screen import Screen
from pgsig.demo.system import HOST, SERVICE, Interrupted, System, psql
from pgsig.errors import Unavailable

COLOURS = {
    "START": "green", "STOP": "red", "RESTART": "yellow", "RELOAD": "cyan", "ready": "green", "retrying": "yellow",
    "failed": "red", "lost": "red",
}  # fmt: skip
STATUS_EVERY = 1.0  # seconds
UNREMARKABLE = ("recorded", "queued")  # results that need no word


def introduce(system: System, shown: Path) -> None:
    """Addresses, and three things to try. shown: the folder as the person who reads it can type it."""
    screen, home = system.screen, shlex.quote(str(shown))
    page = f"http://{HOST}:{system.port}"
    screen.line()
    screen.named("page", screen.paint(page, "bold"))
    screen.named("service", f"http://{HOST}:{system.folder.port}/predict?digit=17")
    screen.named("report", f"{shown / 'report.html'}, each minute, or by hand: pgsig act digits.report start")
    screen.named("processes", str(shown / "processes.log"))
    screen.line()
    client = psql()
    if system.embedded is not None:
        screen.line("  Try these in another terminal, in this folder; first, so that psql and pgsig find the database:")
        screen.line(screen.paint(f'  export PGSERVICEFILE="$PWD"/{home}/pg_service.conf PGSERVICE={SERVICE}', "bold"))
    else:
        screen.line("  Try these in another terminal, in this folder, with the same DATABASE_URL or PG* variables:")
        client = f'{client} "$DATABASE_URL"' if system.url else client
    sql = "SELECT pgsig.emit('config.changed', '{\"min_confidence\": 0.6}')"
    emit = (
        f'{client} -c "{sql.replace(chr(34), chr(92) + chr(34))}"'
        if client
        else "pgsig emit config.changed '{\"min_confidence\": 0.6}'"
    )
    body = json.dumps({"key": "ops.freeze", "value": "on"})
    rows = (
        ("emit by SQL", emit, "the service restarts with it, and drops no request"),
        ("emit by curl", f"curl -s {page}/api/v1/signals -H 'Content-Type: application/json' -d '{body}'",
         'no model is loaded until it is "off"'),
        ("kill one", f"kill -9 $(cat {home}/pids/train)", "it goes on where it was; worker1, runner and serve can be killed too"),
    )  # fmt: skip
    for number, (name, command, effect) in enumerate(rows, 1):
        screen.line()
        screen.line(f"  {number} {name:<14}{screen.paint(effect, 'dim')}")
        screen.line(f"    {command}")
    screen.line()
    screen.line(
        f"  Everything that is decided from here on. {screen.paint('Ctrl-C', 'bold')} ends it; the next start goes on from here."
    )
    screen.line()


def follow(system: System) -> None:
    """Show what happens until somebody asks to stop."""
    span, due = system.span, 0.0
    while True:
        try:
            while system.news:
                system.screen.line(system.screen.paint(f"  {'':<12}  {system.news.pop(0)}", "yellow"))
            found, span = ledger.events(system.connection, span)
            for event in found:
                system.screen.line(line_of(system.screen, event))
            if monotonic() >= due:
                system.screen.status(status(system))
                due = monotonic() + STATUS_EVERY
            system.wait(STATUS_EVERY)
        except Interrupted:
            return
        except (Unavailable, psycopg.OperationalError):
            if system.stop.asked:
                return
            system.reconnect()


def line_of(screen: Screen, event: Event) -> str:
    """An event as one line: when, what, to whom, because of what, how long after it."""
    at = f"{event.at.astimezone():%H:%M:%S.%f}"[:-3]
    what = screen.paint(f"{event.what:<9}", COLOURS.get(event.what, "dim"))
    result = f"{event.result.replace('_', ' ')}: " if event.result and event.result not in UNREMARKABLE else ""
    took = screen.paint(f"{event.milliseconds:7.1f} ms", "dim") if event.milliseconds is not None else ""
    text = f"{result}{event.detail}"
    return f"  {screen.paint(at, 'dim')}  {what} {event.operator:<9} {text:<48} {took}".rstrip()


def status(system: System) -> str:
    """The line at the bottom."""
    found = ledger.figures(system.connection, system.up)
    parts = [
        f"{system.folder.served or 'no model'} in service{', frozen' if found.frozen else ''}",
        f"{found.passed} of {found.judged} passed",
        f"{found.actions} actions" + (f", {found.milliseconds:.0f} ms (median)" if found.milliseconds else ""),
        f"canary {found.canary}" if found.canary else "",
    ]
    return "  " + " · ".join(part for part in parts if part)
