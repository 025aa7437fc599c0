"""What the demonstration says on the terminal: aligned lines, colours where they are wanted, a status line at the bottom."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from time import monotonic
from typing import TextIO

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
NAME = 13  # columns of what stands before the text of a line
WIDEST = 110


class Screen:
    """Lines for people. On a terminal a step shows that it is under way and the status line is kept at the bottom; elsewhere
    there are finished lines only. Safe to use from several threads."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.live = self.out.isatty() and os.environ.get("TERM") != "dumb"
        self.colours = self.live and not os.environ.get("NO_COLOR")
        self._bottom = ""
        self._lock = threading.Lock()

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{CODES[colour]}m{text}\x1b[0m" if self.colours and colour else text

    def line(self, text: str = "") -> None:
        """A line above the status line."""
        with self._lock:
            self._put(self._cleared() + text + "\n" + self._bottom)

    def named(self, name: str, text: str) -> None:
        """A name, and what there is to say about it."""
        self.line(f"  {self.paint(f'{name:<{NAME}}', 'dim')}{text}")

    def status(self, text: str) -> None:
        """Replace the status line; "" removes it. Nothing where the output is not a terminal."""
        if self.live:
            with self._lock:
                before = self._cleared()
                width = min(WIDEST, shutil.get_terminal_size().columns - 1)
                self._bottom = self.paint(text[:width], "dim")
                self._put(before + self._bottom)

    @contextlib.contextmanager
    def step(self, name: str, doing: str = "") -> Iterator[Step]:
        """Something that takes a moment: ✓ or ✗ with its text and duration when the block ends."""
        step = Step(doing)
        self.status(f"  … {name:<{NAME}}{doing}")
        try:
            yield step
        except BaseException:
            self.status("")
            self.line(f"  {self.paint('✗', 'red')} {name:<{NAME}}{step.text}")
            raise
        self.status("")
        took = f"{monotonic() - step.began:5.1f} s"
        self.line(f"  {self.paint('✓', 'green')} {name:<{NAME}}{step.text:<80} {self.paint(took, 'dim')}")

    def _cleared(self) -> str:
        return "\r\x1b[K" if self._bottom else ""

    def _put(self, text: str) -> None:
        # A terminal that was closed, or one without these characters, is no reason to leave processes behind.
        with contextlib.suppress(OSError, ValueError):
            try:
                self.out.write(text)
            except UnicodeEncodeError:
                encoding = self.out.encoding or "ascii"
                plain = (
                    text.replace("✓", "ok").replace("✗", "NO").replace("…", "...").replace("→", "->").replace("·", "-")
                )
                self.out.write(plain.encode(encoding, "replace").decode(encoding))
            self.out.flush()


class Step:
    """text: what to say about the step when it is done."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.began = monotonic()
