"""The worker's end of the doorbell (the emitter's is the default of `pgsig_private.signal.emitted_at`, see `sql/api/10_emit.sql`).

NOTIFY takes a lock over the whole database until after the commit's fsync, so an emitter rings only while every worker sleeps. Who wants to
sleep takes the bell's lock exclusively: having it means that every emitter that saw somebody awake has ended. Then it looks once more, and
closes its eyes. An emitter that stays open for minutes keeps the lock from being had; but once the worker stands in line for it, later
emitters cannot share it any more, and ring. So nobody's signal waits for somebody else's transaction.

Of many idle workers one is on duty: it listens, and has the bell or stands in line for it. The others stand in line for the duty, hear
nothing, and take over when it is gone. So one signal wakes one worker. Those that help under load come by their own poll. Nobody stands in
line for longer than `IN_LINE_FOR` at a time: who leaves the line looks, and joins it again.

At low load the bell stays taken: each commit rings, and a wake-up costs no extra statement. Under load it is let go, and nobody rings, on
behalf of other workers neither: one that is at work says so by sharing a second lock, and then the others leave the bell alone.
Correctness hangs on none of this. With every NOTIFY lost, `wait` still ends within its time. Behind a pooler that gives each transaction
another connection LISTEN hears nothing and locks leak: that is found out first, said, and then nothing but polling is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import time
from collections.abc import Callable, Container

import psycopg
from psycopg import pq

from pgsig.errors import PgsigError
from pgsig.failpoints import reached
from pgsig.store.database import Connection, connect

CHANNEL = "pgsig_signals"
log = logging.getLogger("pgsig.doorbell")

BELL, AWAKE, DUTY = "1885827945, 1000", "1885827945, 1002", "1885827945, 1005"
LISTEN = f"LISTEN {CHANNEL}"
TRY = f"SELECT CASE WHEN pg_try_advisory_xact_lock({AWAKE}) THEN pg_try_advisory_lock({BELL}) END"
ANYBODY_AWAKE = f"SELECT NOT pg_try_advisory_xact_lock({AWAKE})"
STAND_IN_LINE = {
    name: f"SELECT pgsig_private.stand_in_line({lock}, %s)" for name, lock in (("bell", BELL), ("duty", DUTY))
}
TRY_DUTY = f"SELECT pg_try_advisory_lock({DUTY})"
IN_LINE = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted)"
LET_GO = f"SELECT pg_advisory_unlock({BELL})"
AWAKEN = f"SELECT pg_advisory_lock_shared({AWAKE})"
TIRE = f"SELECT pg_advisory_unlock_shared({AWAKE})"

# Seconds. While a statement waits, nothing that died since it began can be removed, anywhere in the database.
IN_LINE_FOR = 15.0
CANCELLED = b"57014"  # by who leaves the line
HEARD_WITHIN = 3.0  # seconds in which a notification of our own has to come back
UNSURE_FOR = 15.0  # seconds after the bell is had in which a lane may still be locked by the server process of a worker that died
DEAF_FOR = 60.0  # seconds after which it is tried again where none did
SOON = 0.01  # seconds that a look may wait after a ring that can wait
IN_VAIN = 3  # rings for nothing: perhaps another worker is at work, and all this ringing is not needed

_Broken = (psycopg.Error, PgsigError, OSError)


class Doorbell:
    """Two connections: the worker's own listens, and one holds the locks or stands in line for them. While one of them is away, `wait` only
    lets time pass; the second one comes back by itself.

    can_wait: what a ring may say of which nobody need hurry: the next look is soon enough, `SOON` at the latest. url, name: for the second
    connection. listen_on: gives the first, None while there is none. It is the one that signals are taken over:
    the server process that woke up to pass a ring on is then the one that is asked what is new.
    """

    def __init__(self, url: str, *, name: str, listen_on: Callable[[], Connection | None]) -> None:
        self._listen_on = listen_on
        self._open: Callable[[], Connection] = lambda: connect(url, name=f"{name} (bell)")
        self._ears: Connection | None = None
        self._hand: Connection | None = None
        self._stopped_r, self._stopped_w = os.pipe()
        self.held = False
        self._had_at = float("-inf")
        self.duty = False
        self._heeds = False  # the ears listen
        self._deaf_until = float("-inf")
        self._line = ""  # the lock that the hand stands in line for: duty, bell, or none
        self._surely = False  # and the server has it in its queue
        self._awake = False
        self._rung = self._failed = False
        self._look_at = float("inf")  # for the rings that can wait
        self._woken = self._vain = 0
        self.can_wait: Container[str] = ()

    @property
    def listening(self) -> bool:
        """Whether rings are heard here: by the one that is on duty."""
        return self._ears is not None and self._heeds

    @property
    def deaf(self) -> bool:
        """Whether LISTEN was found to hear nothing through this address."""
        return time.monotonic() < self._deaf_until

    @property
    def relies(self) -> bool:
        """Whether, on duty, another worker is relied on to look: one that is at work, or that was until a moment ago. If it dies, nobody is
        told."""
        return self.duty and not (self.held and time.monotonic() > self._had_at + UNSURE_FOR)

    def arm(self) -> bool:
        """Nothing was found: see to it that emitters ring. True if that was not so before: look once more before waiting."""
        try:
            if self.held and self._heeds:
                return self._still_needed()
            ears = self._open_ears()
            if ears is None or self._hand is None:
                return False
            tired = self._awake
            if tired:
                self._awake = False
                self._hand.execute(TIRE)
            again = not self.duty and self._seek_duty(ears, self._hand, tired=tired)
            if self.duty:
                self._heed(ears)
                again = self.held or (self._arrived(ears, self._hand) if self._line else self._reach(self._hand))
        except _Broken:
            self._drop_hand()
            return self._at_once()
        if not self._line:  # who stands in line may still be turned away
            self._failed = False
        return again

    def disarm(self) -> None:
        """This worker is awake and will look again by itself: nobody needs to ring."""
        if self._awake:
            return
        try:
            if self._open_ears() is None or self._hand is None:
                return
            if self._line:
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
        if self._ears is None and self._open_ears() is not None:
            return True  # what was rung while nobody listened is heard by looking, and the bell is to be armed anew
        if self._ears is not None and self._drain(self._ears):
            return True
        while (left := min(deadline, self._look_at) - time.monotonic()) > 0:
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
        return self._looked(self._look_at <= time.monotonic())

    def announce(self, channel: str) -> None:
        """NOTIFY from here, in a transaction of its own that has nothing to flush."""
        ears = self._ears or self._open_ears()
        if ears is not None:
            try:
                ears.execute(f"NOTIFY {channel}".encode())
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

    # ── the locks ──

    def _seek_duty(self, ears: Connection, hand: Connection, *, tired: bool) -> bool:
        """Be the one that listens, or stand in line for it."""
        if self._line:
            return self._granted(hand)
        if _one(hand, TRY_DUTY):
            self.duty = True
        else:
            self._stand(hand, "duty")
            if tired:  # nobody rang as long as we were awake: whoever is on duty has to take the bell now
                ears.execute(f"NOTIFY {CHANNEL}".encode())
        return True

    def _stand(self, hand: Connection, line: str) -> None:
        self._line, self._surely = line, False
        hand.pgconn.send_query((STAND_IN_LINE[line] % IN_LINE_FOR).encode())

    def _reach(self, hand: Connection) -> bool:
        """Try to take the bell; where emitters are under way, stand in line."""
        got = _one(hand, TRY)
        if got is None:  # another worker is at work and will look by itself
            return False
        if got:
            self.held, self._had_at = True, time.monotonic()
        else:
            self._stand(hand, "bell")
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
        """Read the answer of a lock if it is there: it is had, or was waited for long enough. The bell is let go again if another worker
        came to work meanwhile."""
        hand.pgconn.consume_input()
        if hand.pgconn.is_busy():
            return False
        self._end_line(hand)
        self._let_go_if_needless(hand)
        return True

    def _end_line(self, hand: Connection) -> None:
        line, self._line = self._line, ""
        while (result := hand.pgconn.get_result()) is not None:
            if (
                result.status == pq.ExecStatus.FATAL_ERROR
                and result.error_field(pq.DiagnosticField.SQLSTATE) != CANCELLED
            ):
                raise psycopg.errors.error_from_result(result)
            if result.status == pq.ExecStatus.TUPLES_OK and result.get_value(0, 0) == b"t":
                self.duty, self.held = self.duty or line == "duty", self.held or line == "bell"
                self._had_at = time.monotonic()

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
            if self._line:
                return self._granted(self._hand)
            self._hand.pgconn.consume_input()
        except _Broken:
            self._drop_hand()
            return self._at_once()
        return False

    def _at_once(self) -> bool:
        """Something failed: look, and try again at once, but not again and again."""
        again, self._failed = not self._failed, True
        return again

    # ── the ears ──

    def _open_ears(self) -> Connection | None:
        """Both connections, and whether a notification from one arrives at the other. None where there are none, or none that hear."""
        if self.deaf:
            return None
        try:
            if self._ears is None:
                self._ears = ears = self._listen_on()
                if ears is None:
                    return None
                if self._hand is None:
                    self._hand = self._open()
                if not self._line and not self._hears(ears, self._hand):
                    self._be_deaf()
                    return None
                # A ring that comes in while another statement runs on this connection is handed to handlers.
                ears.add_notify_handler(self._heard)
            if self._hand is None:
                self._hand = self._open()
        except _Broken:
            self._drop_ears()
            self._drop_hand()
            return None
        return self._ears

    def _hears(self, ears: Connection, hand: Connection) -> bool:
        channel = f"pgsig_hear_{secrets.token_hex(6)}"
        ears.execute(f"LISTEN {channel}".encode())
        hand.execute(f"NOTIFY {channel}".encode())
        heard = any(note.channel == channel for note in ears.notifies(timeout=HEARD_WITHIN, stop_after=1))
        ears.execute(f"UNLISTEN {channel}".encode())
        return heard

    def _be_deaf(self) -> None:
        log.warning(
            "PS013 LISTEN hears nothing through this address: signals wait for the next poll "
            "(a pooler in transaction mode drops it: set PGSIG_LISTEN_URL to the server's own address)"
        )
        self._deaf_until = time.monotonic() + DEAF_FOR
        self._drop_ears()
        self._drop_hand()

    def _heed(self, ears: Connection) -> None:
        if not self._heeds:
            ears.execute(LISTEN)
            self._heeds = True

    def _heard(self, ring: psycopg.Notify) -> None:
        self._rings(ring.payload)

    def _rings(self, what: str) -> None:
        if what in self.can_wait:
            self._look_at = min(self._look_at, time.monotonic() + SOON)
        else:
            self._rung = True

    def _looked(self, rung: bool) -> bool:
        """Whoever is told that somebody rang looks, and finds all that was rung for."""
        if rung:
            self._rung, self._look_at = False, float("inf")
            self._woken += 1
        return rung

    def _drain(self, connection: Connection) -> bool:
        """Read what has arrived without waiting. True if that was a ring, or the end of the connection."""
        try:
            connection.pgconn.consume_input()
            while (note := connection.pgconn.notifies()) is not None:
                self._rings(note.extra.decode())
        except _Broken:
            self._drop_ears()
            return True
        return self._looked(self._rung)

    def _drop_broken(self) -> bool:
        """Drop a connection whose end came in as the answer to something else."""
        broken = [connection for connection in (self._ears, self._hand) if connection is not None and connection.closed]
        if self._ears in broken:
            self._drop_ears()
        if self._hand in broken:
            self._drop_hand()
        return bool(broken)

    def _drop_ears(self) -> None:
        self._heeds = False
        if self._ears is not None:
            with contextlib.suppress(ValueError):  # it was found deaf at once
                self._ears.remove_notify_handler(self._heard)
            self._ears = None

    def _drop_hand(self) -> None:
        self.held = self.duty = self._surely = self._awake = False
        self._line = ""
        if self._hand is not None:
            self._hand.close()
            self._hand = None


def _one(connection: Connection, statement: str) -> object:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None
