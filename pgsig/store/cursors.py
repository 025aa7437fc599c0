"""Cursors of listeners that are refused: where each of them is taken, the code and the text are the same."""

from __future__ import annotations

from pgsig.errors import InvalidInput, Problem

ANEW = "begin anew: after=here from now on, after=oldest with what is left"


def foreign(where: str = "") -> InvalidInput:
    """It is of a timeline that is not in this database's past (`sql/api/16_timeline.sql`)."""
    return _refused("PS405", "a cursor of a copy of this database that is not in use any more", where)


def behind(where: str = "") -> InvalidInput:
    """Signals that it has not seen were dropped (`pgsig_private.missed` in `sql/api/25_keep.sql`)."""
    return _refused(
        "PS409", "signals that came after this cursor were dropped, as they were past retention_days", where
    )


def _refused(code: str, message: str, where: str) -> InvalidInput:
    return InvalidInput([Problem(code, message, where, ANEW)], subject="the request")
