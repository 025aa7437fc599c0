"""What a runner has to tell the database: one line, in order, repeated until it got through."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from time import monotonic

import psycopg

from pgsig.failpoints import reached
from pgsig.runner.lines import OUTAGE
from pgsig.runner.output import Copier
from pgsig.runner.session import Say, SayReady, SayReload, SayState, Session
from pgsig.store import jobs
from pgsig.store.database import Connection

log = logging.getLogger(__name__)
MOST_TOGETHER = 100  # reports in one transaction


class Outbox:
    """Filled by any thread, emptied by the one that has the connection. output: whose rest is copied before an end is told. said: called
    for each report with whether the database has taken it, before whoever waits for it learns of it."""

    def __init__(self, output: Copier, said: Callable[[SayState, bool], None]) -> None:
        self._output = output
        self._said = said
        self._lock = threading.Lock()
        self._line: deque[Say] = deque()
        self.by = float("inf")  # when the first of it has to be told, by `time.monotonic`
        self._alone = 0  # reports to tell one by one, since that many together failed

    def __len__(self) -> int:
        return len(self._line)

    def put(self, items: Sequence[Say]) -> None:
        with self._lock:
            self._line.extend(items)
            now = monotonic()
            self.by = min(self.by, *(item.by or now for item in items))

    def drop(self) -> set[Session]:
        """Nothing of it counts any more. Returns whose it was."""
        with self._lock:
            dropped, self._line, self.by = self._line, deque(), float("inf")
        for item in dropped:
            item.told.set_result(False)
        return {item.session for item in dropped}

    def tell(self, work: Connection) -> None:
        """Tell everything. Raises one of OUTAGE where the database is away: what it has not taken stays."""
        while self._line:
            items = self._together()
            try:
                told = self._tell(work, items)
            except OUTAGE:
                raise
            except psycopg.Error:
                # Repeating it would hold up everybody else's for ever.
                log.exception("run %s: %s could not be recorded", items[0].session.grant.id, items[0])
                told = [False]
            with self._lock:
                for _ in told:
                    self._line.popleft()
                if not self._line:
                    self.by = float("inf")
            for item, answer in zip(items, told, strict=False):
                if isinstance(item, SayState):
                    self._said(item, answer)
                item.told.set_result(answer)

    def _together(self) -> list[Say]:
        """What can be told in one transaction: reports that follow each other, else the first alone. Those of one run keep
        their order."""
        with self._lock:
            reports = list(takewhile(lambda item: isinstance(item, SayState), islice(self._line, MOST_TOGETHER)))
            return reports if len(reports) > 1 and not self._alone else [self._line[0]]

    def _tell(self, work: Connection, items: Sequence[Say]) -> list[bool]:
        match items[0]:
            case SayReady(session=session):
                reached("link.ready")
                said = jobs.ready(work, *session.grant.key)
                reached("link.was_ready")
                return [said]
            case SayReload(session=session, id=reload, state=state, reason=reason):
                reached("link.reload")
                said = jobs.report_reload(work, reload, session.grant.epoch, state, reason)
                reached("link.reloaded")
                return [said]
            case SayState():
                reports = [item for item in items if isinstance(item, SayState)]
                for item in reports:
                    if item.last:
                        reached("link.ended")
                        self._output.copy(work, item.session, last=True)
                return self._report(work, [item.report for item in reports])
        raise TypeError(type(items[0]).__name__)

    def _report(self, work: Connection, reports: Sequence[jobs.Report]) -> list[bool]:
        try:
            reached("link.reporting")
            answers = jobs.report(work, *reports)
            reached("link.reported")
        except OUTAGE:
            raise
        except psycopg.Error:
            if len(reports) == 1:
                raise
            # One of them cannot be recorded, and which one is not known: each for itself.
            self._alone = len(reports)
            return []
        self._alone = max(0, self._alone - len(reports))
        return answers
