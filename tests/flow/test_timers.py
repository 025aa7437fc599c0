"""Timers end to end: a row in the database, a signal when it falls due, a decision by the time that the signal carries."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pgsig.settings import Settings
from pgsig.store.database import Connection, connect
from pgsig.worker import Worker
from tests.flow.workshop import Workshop
from tests.support import wait_for


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


def test_a_timer_is_set_moved_and_gone(shop: Workshop) -> None:
    shop.apply(op={"signal": "a", "debounce": "1h"})
    shop.emit("a")
    shop.evaluate()
    first = shop.call("SELECT due_at FROM pgsig_private.timer")
    shop.emit("a")
    shop.evaluate()
    assert shop.call("SELECT due_at FROM pgsig_private.timer") > first
    left = shop.engine.fire_timers()
    assert left is not None
    assert 3590 < left <= 3600
    shop.apply(op={"signal": "b"})
    assert shop.call("SELECT count(*) FROM pgsig_private.timer") == 0
    assert shop.engine.fire_timers() is None


def test_due_timers_fire_once_with_several_workers(shop: Workshop, database: str) -> None:
    shop.apply(op={"signal": "a", "debounce": "1h"})
    positions = [shop.emit("a", None, f"s{i}") for i in range(20)]
    shop.evaluate()
    shop.connection.execute("UPDATE pgsig_private.timer SET due_at = clock_timestamp()")
    with connect(database, name="other") as other, other.transaction():
        Workshop(shop.connection, other).engine.fire_timers()  # not committed yet: the rows are locked
        shop.engine.fire_timers()
    assert shop.call("SELECT count(*) FROM pgsig.signals WHERE kind = 'timer'") == 20
    # The timers came early, so nothing fires, and each instance asks to be looked at again.
    shop.evaluate()
    assert shop.actions() == []
    assert shop.call("SELECT count(*) FROM pgsig_private.timer") == len(positions)


def test_a_worker_wakes_up_for_a_timer(shop: Workshop, database: str) -> None:
    shop.apply(op={"signal": "a", "debounce": "150ms"}, beat={"absent": "beat", "for": "100ms", "after": "up"})
    # A poll interval far beyond the test: only the timer can wake it.
    worker = Worker(Settings(database_url=database, poll_seconds=60), name="timers")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        shop.emit("up")
        came = [shop.emit("a"), shop.emit("a")]
        wait_for(lambda: len(shop.actions()) == 2, timeout=20, about="two actions by timers")
    finally:
        worker.stop()
        thread.join()
    by_operator = {operator: evidence for operator, _, _, _, evidence in shop.actions()}
    assert by_operator["op"] == came
    waited = shop.call(
        "SELECT extract(epoch FROM t.emitted_at - s.emitted_at) FROM pgsig.signals t, pgsig.signals s"
        " WHERE t.key = 'timer.w.op' AND s.id = %s ORDER BY t.id DESC LIMIT 1",
        came[-1],
    )
    assert float(waited) >= 0.15
