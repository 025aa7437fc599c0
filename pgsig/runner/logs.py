"""A job's output on its way from the spool file to the database, bounded in both."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
import threading
from pathlib import Path
from typing import Any

PAGE = 65536  # bytes that become one row, at most
PUNCH_AFTER = 262144  # bytes that were read before their blocks are given back
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


def _find_fallocate() -> Any:
    """The C library's fallocate, or None where there is none: it is Linux's own."""
    try:
        found = ctypes.CDLL(None, use_errno=True).fallocate
    except (OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return found


_fallocate = _find_fallocate()


class Tail:
    """Reads a growing file from its beginning, and gives back the disk space of what it has read.

    limit: bytes that may lie unread; a job that writes faster than the database takes loses its oldest output, and the text
    says so at that place. Methods may be called from several threads.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._limit = limit
        # A log is trimmed row by row: a row must be a small part of what is kept.
        self._page = min(PAGE, max(limit // 8, 128))
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._offset = 0
        self._punched = 0
        self._skipped = 0
        self._again = ""
        self._lock = threading.Lock()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def bound(self) -> int:
        """Drop what exceeds the limit, and free what was read. Returns the bytes that lie unread."""
        with self._lock:
            if self._file is None:
                return 0
            waiting = os.fstat(self._file).st_size - self._offset
            if waiting > self._limit:
                self._skipped += waiting - self._limit
                self._offset += waiting - self._limit
                waiting = self._limit
            if self._offset - self._punched >= PUNCH_AFTER:
                self._free()
            return max(waiting, 0)

    def _free(self) -> None:
        assert self._file is not None
        if _fallocate is not None and _fallocate(self._file, _PUNCH_HOLE | _KEEP_SIZE, 0, self._offset) == 0:
            self._punched = self._offset
        elif os.fstat(self._file).st_size == self._offset:
            # No holes on this file system: begin anew. What is written in this very moment is lost.
            os.ftruncate(self._file, 0)
            self._offset = self._punched = 0

    def take(self, *, last: bool = False) -> str:
        """The next output as text that Postgres can keep, "" when there is none yet. last: nobody writes any more."""
        with self._lock:
            if self._again:
                text, self._again = self._again, ""
                return text
            if self._file is None:
                return ""
            note = ""
            if self._skipped:
                note = f"\n[pgsig: {self._skipped} bytes dropped here: they came faster than they could be kept]\n"
                self._skipped = 0
                self._decoder.reset()
            data = os.pread(self._file, self._page, self._offset)
            self._offset += len(data)
            return note + self._decoder.decode(data, last and not data).replace("\0", "\ufffd")

    def put_back(self, text: str) -> None:
        """What was taken could not be kept: give it again next time."""
        with self._lock:
            self._again = text

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                os.close(self._file)
            self._file = None
