"""Errors. Every one says what is wrong, where, and the way out, under a code that never changes meaning.

A caller that wants to react to one kind catches its class; a caller that reports to people prints `str(error)`;
machines read `error.as_dict()`. Bad input is collected whole: see `InvalidInput`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class PgsigError(Exception):
    """Root of everything pgsig raises on purpose.

    message: what is wrong, in one sentence. code: stable, `PS` and three digits. where: the place in the caller's
    input (a JSON pointer, a file and line, a setting's name). fix: the way out.
    """

    def __init__(self, message: str, *, code: str, where: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" ({self.fix})" if self.fix else ""
        return f"{self.code} {place}{self.message}{remedy}"

    def as_dict(self) -> dict[str, Any]:
        """The error for machines: `code`, `message`, and `where` and `fix` when there are any."""
        document: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.where:
            document["where"] = self.where
        if self.fix:
            document["fix"] = self.fix
        return document


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input. `where` is a JSON pointer, or `file:line` in front of one."""

    code: str
    message: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return str(PgsigError(self.message, code=self.code, where=self.where, fix=self.fix))

    def as_dict(self) -> dict[str, Any]:
        return PgsigError(self.message, code=self.code, where=self.where, fix=self.fix).as_dict()


class InvalidInput(PgsigError):
    """An input with all its problems at once. Nothing of it was stored."""

    def __init__(self, problems: Sequence[Problem], *, subject: str = "input") -> None:
        self.problems = tuple(problems)
        many = f"{len(self.problems)} problems" if len(self.problems) > 1 else "a problem"
        super().__init__(f"{subject} has {many}", code=self.problems[0].code if self.problems else "PS000")

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "errors": [problem.as_dict() for problem in self.problems],
        }


class NotFound(PgsigError):
    """What was named does not exist, or the caller may not see it."""


class Conflict(PgsigError):
    """The request collides with what is already there, for instance an event id reused with another body."""


class Unavailable(PgsigError):
    """The database cannot be reached, or is not ready: a later try may succeed."""


class SchemaMismatch(PgsigError):
    """The database's schema is not the one that this version of pgsig works with."""
