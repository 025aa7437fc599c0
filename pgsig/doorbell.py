"""The worker's end of the doorbell (the emitter's is `pgsig_private.ring` in `sql/api/10_emit.sql`).

NOTIFY takes a lock over the whole database until after the commit's fsync, so an emitter rings only while every worker sleeps. Who wants to
sleep takes the bell's lock exclusively: having it means that every emitter that saw somebody awake has ended. Then it looks once more, and
closes its eyes. An emitter that stays open for minutes keeps the lock from being had; but once the worker stands in line for it, later
emitters cannot share it any more, and ring. So nobody's signal waits for somebody else's transaction.

At low load the bell stays taken: each commit rings, and a wake-up costs no extra statement. Under load it is let go, and nobody rings, on
behalf of other workers neither: one that is at work says so by sharing a second lock, and then the others leave the bell alone.
Correctness hangs on none of this. With every NOTIFY lost, `wait` still ends within its time.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

import psycopg
from psycopg import pq

from pgsig.errors import PgsigError
from pgsig.failpoints import reached
from pgsig.store.database import Connection, connect

CHANNEL = "pgsig_signals"
BELL, AWAKE = "1885827945, 1000", "1885827945, 1002"
LISTEN = f"LISTEN {CHANNEL}"
TRY = f"SELECT CASE WHEN pg_try_advisory_xact_lock({AWAKE}) THEN pg_try_advisory_lock({BELL}) END"
ANYBODY_AWAKE = f"SELECT NOT pg_try_advisory_xact_lock({AWAKE})"
STAND_IN_LINE = f"SELECT pg_advisory_lock({BELL})"
IN_LINE = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted)"
LET_GO = f"SELECT pg_advisory_unlock({BELL})"
AWAKEN = f"SELECT pg_advisory_lock_shared({AWAKE})"
TIRE = f"SELECT pg_advisory_unlock_shared({AWAKE})"

IN_VAIN = 3  # rings for nothing: perhaps another worker is at work, and all this ringing is not needed

_Broken = (psycopg.Error, PgsigError, OSError)


class Doorbell:
    """Two connections: one listens, one holds the locks or stands in line for them. Both come back by themselves; while they cannot,
    `wait` only lets time pass."""

    def __init__(self, url: str, *, name: str) -> None:
        self._open: Callable[[str], Connection] = lambda what: connect(url, name=f"{name} ({what})")
        self._ears: Connection | None = None
        self._hand: Connection | None = None
        self._stopped_r, self._stopped_w = os.pipe()
        self.held = False
        self._in_line = False  # for the bell's lock
        self._surely = False  # and the server has it in its queue
        self._awake = False
        self._rung = False
        self._woken = self._vain = 0

    @property
    def listening(self) -> bool:
        return self._ears is not None

    def arm(self) -> bool:
        """Nothing was found: see to it that emitters ring. True if that was not so before: look once more before waiting."""
        try:
            if self.held:
                return self._still_needed()
            ears = self._listen()
            if ears is None:
                return False
            if self._hand is None:
                self._hand = self._open("bell")
            if self._in_line:
                return self._arrived(ears, self._hand)
            return self._reach(self._hand)
        except _Broken:
            self._drop_hand()
            return False

    def disarm(self) -> None:
        """This worker is awake and will look again by itself: nobody needs to ring."""
        if self._awake:
            return
        try:
            if self._hand is None:
                self._hand = self._open("bell")
            if self._in_line:
                self._leave_line(self._hand)
            self._hand.execute(AWAKEN)
            self._awake = True
            reached("bell.disarmed")
            if self.held:
                self.held = False
                self._hand.execute(LET_GO)
        except _Broken:
            self._drop_hand()

    def wait(self, seconds: float) -> bool:
        """Sleep until somebody rings, `wake` is called or the time is over. True if it may be worth looking."""
        deadline = time.monotonic() + seconds
        if self._ears is None and self._listen() is not None:
            return True  # what was rung while nobody listened is heard by looking
        if self._ears is not None and self._drain(self._ears):
            return True
        while (left := deadline - time.monotonic()) > 0:
            if self._drop_broken():
                return True
            files = [self._stopped_r, *(c.fileno() for c in (self._ears, self._hand) if c is not None)]
            ready, _, _ = select.select(files, [], [], left)
            if self._stopped_r in ready:
                os.read(self._stopped_r, 4096)
                return True
            if self._hand is not None and self._hand.fileno() in ready and self._hand_moved():
                return True
            if self._ears is not None and self._ears.fileno() in ready and self._drain(self._ears):
                return True
        return False

    def announce(self, channel: str) -> None:
        """NOTIFY from here, in a transaction of its own that has nothing to flush."""
        if self._ears is not None:
            try:
                self._ears.execute(f"NOTIFY {channel}".encode())
            except _Broken:
                self._drop_ears()

    def wake(self) -> None:
        """End a `wait` from another thread or a signal handler."""
        os.write(self._stopped_w, b".")

    def close(self) -> None:
        self._drop_ears()
        self._drop_hand()
        os.close(self._stopped_r)
        os.close(self._stopped_w)

    # ── the lock ──

    def _reach(self, hand: Connection) -> bool:
        """Try to take the bell; where emitters are under way, or another worker has it, stand in line."""
        if self._awake:
            self._awake = False
            hand.execute(TIRE)
        got = _one(hand, TRY)
        if got is None:  # another worker is at work and will look by itself
            return False
        if got:
            self.held = True
        else:
            self._in_line, self._surely = True, False
            hand.pgconn.send_query(STAND_IN_LINE.encode())
        reached("bell.armed")
        return True

    def _arrived(self, ears: Connection, hand: Connection) -> bool:
        """In line already? An emitter that shared the lock before is awaited, one that comes later rings; between them lies a look."""
        if self._granted(hand):
            return True
        if self._surely:
            return False
        row = ears.execute(IN_LINE, [hand.info.backend_pid]).fetchone()
        self._surely = bool(row and row[0])
        return True

    def _granted(self, hand: Connection) -> bool:
        """Read the answer of the lock if it is there. The bell is let go again if another worker came to work meanwhile."""
        hand.pgconn.consume_input()
        if hand.pgconn.is_busy():
            return False
        self._end_line(hand)
        self._let_go_if_needless(hand)
        return True

    def _end_line(self, hand: Connection) -> None:
        self._in_line = False
        while (result := hand.pgconn.get_result()) is not None:
            if result.status == pq.ExecStatus.TUPLES_OK:
                self.held = True

    def _leave_line(self, hand: Connection) -> None:
        hand.cancel_safe(timeout=5)
        self._end_line(hand)

    def _still_needed(self) -> bool:
        """After some rings for nothing, ask whether another worker takes the signals anyway."""
        self._vain = self._vain + 1 if self._woken else 0
        self._woken = 0
        if self._vain >= IN_VAIN and self._hand is not None:
            self._vain = 0
            self._let_go_if_needless(self._hand)
        return False

    def _let_go_if_needless(self, hand: Connection) -> None:
        if self.held and _one(hand, ANYBODY_AWAKE):
            self.held = False
            hand.execute(LET_GO)

    def _hand_moved(self) -> bool:
        """Something came in on the connection of the lock: the lock, or the connection's end. True if it is worth looking."""
        assert self._hand is not None
        try:
            if self._in_line:
                return self._granted(self._hand)
            self._hand.pgconn.consume_input()
        except _Broken:
            self._drop_hand()
            return True
        return False

    # ── the ears ──

    def _listen(self) -> Connection | None:
        if self._ears is None:
            try:
                connection = self._open("listen")
                # A ring that comes in while another statement runs on this connection is handed to handlers.
                connection.add_notify_handler(self._heard)
                connection.execute(LISTEN)
                self._ears = connection
            except _Broken:
                self._ears = None
        return self._ears

    def _heard(self, _: object) -> None:
        self._rung = True

    def _drain(self, connection: Connection) -> bool:
        """Read what has arrived without waiting. True if that was a ring, or the end of the connection."""
        try:
            connection.pgconn.consume_input()
            while connection.pgconn.notifies() is not None:
                self._rung = True
        except _Broken:
            self._drop_ears()
            return True
        rung, self._rung = self._rung, False
        self._woken += rung
        return rung

    def _drop_broken(self) -> bool:
        """Drop a connection whose end came in as the answer to something else."""
        broken = [connection for connection in (self._ears, self._hand) if connection is not None and connection.closed]
        if self._ears in broken:
            self._drop_ears()
        if self._hand in broken:
            self._drop_hand()
        return bool(broken)

    def _drop_ears(self) -> None:
        if self._ears is not None:
            self._ears.close()
            self._ears = None

    def _drop_hand(self) -> None:
        self.held = self._in_line = self._surely = self._awake = False
        if self._hand is not None:
            self._hand.close()
            self._hand = None


def _one(connection: Connection, statement: str) -> object:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None
