"""Years of clocks in seconds: the database's time and each clock's own are arguments, and everything that can happen to a clock does."""

from __future__ import annotations

import heapq
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pgsig.clock import Clock
from pgsig.settings import Settings

NEVER = 1e12  # seconds
BEGIN = datetime(2026, 9, 20, 11, 17, tzinfo=UTC)
# As pgsig_private.trigger_now, but for a test's own time.
TURNED = """
    CREATE OR REPLACE FUNCTION pgsig_private.trigger_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT current_setting('test.now')::timestamptz $$
"""


class Years:
    """Clocks that run through `days`. Everything random follows from the seed."""

    def __init__(self, connection: psycopg.Connection[Any], *, clocks: int, days: float, seed: int) -> None:
        self.connection = connection
        self.random = random.Random(seed)
        self.end = days * 86400
        self.time = 0.0  # seconds since BEGIN
        self.skew = [0.0] * clocks  # how far each host's count of seconds is off
        self.step = 0.0  # of the database's own clock
        self.asleep = [0.0] * clocks  # until then a clock does nothing
        self.clocks = [self.new(n) for n in range(clocks)]
        self.wakes = [(self.random.random(), n) for n in range(clocks)]
        self.done = {"turns": 0, "kills": 0, "pauses": 0, "steps": 0, "outages": 0}
        connection.execute(TURNED)
        self.tell()

    def new(self, n: int) -> Clock:
        return Clock(Settings(), name=f"clock-{n}", elapsed=lambda: self.time + self.skew[n])

    def moment(self) -> datetime:
        return BEGIN + timedelta(seconds=self.time + self.step)

    def tell(self) -> None:
        self.connection.execute("SELECT set_config('test.now', %s, false)", [self.moment().isoformat()])

    def run(self) -> None:
        trouble = self.random.expovariate(1) * 86400
        while self.wakes:
            at, n = heapq.heappop(self.wakes)
            if at >= self.end:
                continue
            while trouble <= at:
                self.time = max(self.time, trouble)
                self.make_trouble()
                trouble += self.random.expovariate(1) * 86400
            if self.asleep[n] > at:
                heapq.heappush(self.wakes, (self.asleep[n], n))
                continue
            self.time = max(self.time, at)
            self.tell()
            wait = self.clocks[n].turn(self.connection)
            self.done["turns"] += 1
            # No two hosts wake at the same instant.
            heapq.heappush(self.wakes, (self.time + max(wait, 0.001) + self.random.random() / 50, n))

    def make_trouble(self) -> None:
        """A clock is killed, sleeps, or its host's time steps by up to an hour; or the database's does; or nobody is there for a day."""
        n, what = self.random.randrange(len(self.clocks)), self.random.random()
        if what < 0.35:
            self.close(n)
            self.clocks[n] = self.new(n)
            self.asleep[n] = self.time + self.random.random() * 7200
            self.done["kills"] += 1
        elif what < 0.6:
            self.asleep[n] = self.time + self.random.random() * 2 * 86400
            self.done["pauses"] += 1
        elif what < 0.8:
            self.skew[n] += self.random.choice((-3600, 3600)) * self.random.random()
            self.done["steps"] += 1
        elif what < 0.9:
            self.step = 0.0 if self.step else self.random.choice((-3600.0, 3600.0))
            self.done["steps"] += 1
        else:
            until = self.time + self.random.random() * 2 * 86400
            self.asleep = [max(asleep, until) for asleep in self.asleep]
            self.done["outages"] += 1

    def close(self, n: int) -> None:
        """What a process that ends lets go of by itself."""
        self.clocks[n]._wake_r.close()
        self.clocks[n]._wake_w.close()

    def finish(self) -> None:
        """All of them look once more, at the end of the time."""
        self.step, self.time = 0.0, self.end
        self.tell()
        for n in range(len(self.clocks)):
            self.clocks[n]._reload_at = 0.0
            self.clocks[n].turn(self.connection)
            self.close(n)
