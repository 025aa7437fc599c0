"""A runner's exchange with the database: who goes first, and what happens when it breaks off."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from pgsig.model import State
from pgsig.runner import link, reaping
from pgsig.runner.ears import Ears
from pgsig.runner.http import MOST_IDLE, Server
from pgsig.runner.link import HEAD_START, Link
from pgsig.runner.session import SayState, Session
from pgsig.settings import Settings
from pgsig.store import jobs
from pgsig.store.jobs import Claimed, Grant, Report
from tests import support_jobs as do
from tests.support import wait_for
from tests.support_jobs import Connection


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Link]:
    """One that has no thread."""
    settings = Settings(database_url="", spool=tmp_path, capacity=2)
    found = Link(settings, "here", Any, tell=print, alive=lambda: True, ears=Ears())  # type: ignore[arg-type]
    yield found
    found._waker.close()


def said(by: float = 0.0, run: int = 1) -> SayState:
    grant = Grant(run, 2, 1, 1, "default", "w", "o", "", "batch", {})
    return SayState(Session(grant), Report(run, 2, State.RUNNING), by=by)


def test_jobs_that_are_about_to_begin_go_first_but_for_a_moment_only(idle: Link) -> None:
    assert idle._tell_in() == float("inf")
    idle.say(said())
    assert idle._tell_in() == 0
    idle._begun_by = monotonic() + HEAD_START
    assert 0 < idle._tell_in() <= HEAD_START
    idle._begun_by = monotonic() + 60  # others, and others again
    assert idle._tell_in() <= HEAD_START


def test_what_has_time_is_not_told_sooner_for_it(idle: Link) -> None:
    idle.say(said(by=monotonic() + 60))
    idle._begun_by = monotonic() + HEAD_START
    assert idle._tell_in() > 50


def grants(*runs: int) -> list[Grant]:
    return [Grant(run, 2, 1, 1, "default", "w", "o", "", "batch", {}) for run in runs]


def end(idle: Link, grant: Grant) -> bool:
    """Whether it looks for more when this one has ended."""
    idle._look = False
    idle.say(SayState(Session(grant), Report(*grant.key, State.SUCCEEDED)))
    return idle._look


NOBODY: Connection = None  # type: ignore[assignment]  # nothing is asked of it


class Queue:
    """What claims find, in place of a database. during: what happens while the first of them is asked."""

    def __init__(self, idle: Link, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Claimed] = []
        self.during: Callable[[], object] = lambda: None
        idle._lease.process = 7
        monkeypatch.setattr(jobs, "claim", self.claim)
        monkeypatch.setattr(link, "end_leftovers", lambda *_: True)

    def claim(self, _work: object, _process: int, _pools: object, free: int, *_: object) -> Claimed:
        during, self.during = self.during, lambda: None
        during()
        answer = self.answers.pop(0)
        assert len(answer.grants) <= free
        return answer


def test_an_end_makes_it_look_where_there_may_be_more(idle: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(idle, monkeypatch)
    first, second, third = grants(1, 2, 3)
    queue.answers = [Claimed([first, second], [], False)]
    idle._claim(NOBODY)
    assert end(idle, first) is True  # as many came as there was room for
    queue.answers = [Claimed([], [], False)]
    idle._claim(NOBODY)
    assert end(idle, second) is False  # there were no more
    queue.answers = [Claimed([third], [], False)]
    idle._claim(NOBODY)
    assert end(idle, third) is False


def test_an_end_during_a_claim_is_not_lost(idle: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that became free while it asked for others: what is in line for it would wait for the next poll."""
    queue = Queue(idle, monkeypatch)
    first, second = grants(1, 2)
    queue.answers = [Claimed([first], [], False)]
    idle._claim(NOBODY)  # a place is left, and nobody in line
    queue.answers = [Claimed([second], [], False)]
    queue.during = lambda: end(idle, first)
    idle._look = False
    idle._claim(NOBODY)
    assert idle._look is True


def test_what_was_not_looked_for_because_it_was_full_is_looked_for_later(
    idle: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    Queue(idle, monkeypatch)
    idle._grants = {grant.key: True for grant in grants(1, 2)}
    idle._more = False
    idle._claim(NOBODY)
    assert end(idle, grants(1)[0]) is True


@pytest.mark.parametrize("found", [[], [1]])
def test_who_meets_another_claim_looks_again(idle: Link, monkeypatch: pytest.MonkeyPatch, found: list[int]) -> None:
    queue = Queue(idle, monkeypatch)
    queue.answers = [Claimed(grants(*found), [], True)]
    idle._claim(NOBODY)
    assert [alarm > monotonic() - 1 for alarm in idle._alarms] == [True]


def test_a_claim_tells_that_somebody_else_was_there(connection: Connection, database: str) -> None:
    runner = jobs.join(
        connection, name="r", host="h", pid=1, version="0", pools=["default"], labels=[], capacity=9, lease=60
    )  # fmt: skip
    act = do.operator(connection, "o", command=["true"])
    do.start(connection, act)
    do.start(connection, do.operator(connection, "another", command=["true"]))
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM pgsig_private.instance WHERE operator_id = %s FOR UPDATE", [act])
        found = jobs.claim(connection, runner, ["default"], 9, [])
        assert (len(found.grants), found.contended) == (1, True)
        assert jobs.claim(connection, runner, ["default"], 9, []) == Claimed([], [], True)
    found = jobs.claim(connection, runner, ["default"], 9, [])
    assert (len(found.grants), found.contended) == (1, False)


def test_a_grant_is_given_back_where_it_breaks_off_before_it_reached_anybody(
    connection: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed. The runner holds it as far as the database knows, so nobody else would ever get it."""
    broken = threading.Event()
    end: Callable[..., bool] = reaping.end_leftovers

    def breaks_once(*given: Any) -> bool:
        if not broken.is_set():
            broken.set()
            raise psycopg.OperationalError("the connection is lost")
        return end(*given)

    monkeypatch.setattr(link, "end_leftovers", breaks_once)
    act = do.operator(connection, "o", command=["true"])
    with do.running(do.settings(database, tmp_path)):
        run = do.start(connection, act)
        wait_for(broken, 10)
        row = do.wait_state(connection, run, "succeeded", timeout=30)
    assert row["attempt"] == 1  # nothing is charged
    assert do.states(connection, run)[:2] == ["starting", "retrying"]


def test_more_requests_than_threads_stand_ready() -> None:
    """Each that comes finds a thread, however many wait inside; afterwards a few are kept, and none once it is stopped."""
    inside, go = threading.Semaphore(0), threading.Event()

    def answer(method: str, target: str, authorization: str, body: Any) -> Any:
        inside.release()
        go.wait(30)
        return {"got": body}

    def ask(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.request("POST", "/x", json.dumps({"n": number}))
        answers.append(json.loads(connection.getresponse().read())["got"]["n"])
        connection.close()

    def doors() -> int:
        return sum(thread.name == "pgsig-door" for thread in threading.enumerate()) - before

    before, answers = sum(thread.name == "pgsig-door" for thread in threading.enumerate()), list[int]()
    server = Server(answer)
    server.start()
    asking = [threading.Thread(target=ask, args=[number]) for number in range(MOST_IDLE * 3)]
    for thread in asking:
        thread.start()
    for _ in asking:
        assert inside.acquire(timeout=10)
    go.set()
    for thread in asking:
        thread.join(10)
    assert sorted(answers) == list(range(MOST_IDLE * 3))
    wait_for(lambda: doors() <= MOST_IDLE, about="threads that nobody needs to end")
    server.stop()
    wait_for(lambda: doors() == 0, about="the last thread to end")
