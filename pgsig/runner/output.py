"""Moves the output of jobs from their files to the database."""

from __future__ import annotations

import logging
import threading

import psycopg

from pgsig.runner.session import Session
from pgsig.store import output
from pgsig.store.database import Connection

log = logging.getLogger(__name__)
PAGES_PER_FLUSH = 4


class Copier:
    """The sessions whose output is copied. limit: bytes that are kept of each run. lost: errors after which the text is
    kept for another try."""

    def __init__(self, limit: int, lost: tuple[type[Exception], ...]) -> None:
        self.limit = limit
        self._lost = lost
        self._sessions: set[Session] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def follow(self, session: Session) -> None:
        with self._lock:
            self._sessions.add(session)

    def forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)

    def forget_all(self) -> set[Session]:
        with self._lock:
            gone, self._sessions = self._sessions, set()
        return gone

    def flush(self, work: Connection) -> None:
        """Copy a portion of everybody's."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            self.copy(work, session)

    def copy(self, work: Connection, session: Session, *, last: bool = False) -> None:
        """Copy a few pages of one, or all that is left."""
        tail, pages = session.tail, 0
        if tail is None:
            return
        if last:
            tail.bound()
        while (last or pages < PAGES_PER_FLUSH) and (text := tail.take(last=last)):
            pages += 1
            try:
                self._keep(work, session, text)
            except self._lost:
                tail.put_back(text)
                raise
            except psycopg.Error:
                log.exception("output of run %s could not be kept", session.grant.id)

    def _keep(self, work: Connection, session: Session, text: str) -> None:
        grant = session.grant
        if session.logged is None:
            session.logged = output.log_size(work, grant.id)
        output.log_add(work, *grant.key, text)
        session.logged += len(text.encode())
        if session.logged > self.limit:
            # Somewhat below the limit, so that it is not done again for the next line.
            output.log_trim(work, grant.id, self.limit * 7 // 8)
            session.logged = output.log_size(work, grant.id)
