"""What one instance of a rule remembers between signals: small, readable JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pgsig.model import Json


@dataclass(frozen=True, slots=True)
class Entry:
    """A signal that a leaf holds. at: seconds since the epoch, database time. ok: false only for a `latest` that does not satisfy.

    x: what was found at the leaf's path, for `distinct` and `sum`. told: a level or an armed absence goes on by a signal whose outcome is
    recorded already, since another leaf has used it.
    """

    id: int
    at: float
    depth: int = 0
    ok: bool = True
    x: Json = None
    told: bool = False


Pending = dict[int, list[Entry]]
Levels = dict[int, Entry]


@dataclass(slots=True)
class RuleState:
    """pending: signals waited with, by leaf, in their order. levels: the last signal of each level. seen: digest of the last value,
    for leaves that look for a change. armed: since when an absence counts, and by which signal, by its leaf. clock: the latest
    database time that the instance has seen; a window that ended before it is closed. fired: when it fired lately, for a rule with a
    limit. custom: what `met_by` functions remember, by leaf.
    """

    pending: Pending = field(default_factory=dict)
    levels: Levels = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    armed: dict[int, Entry] = field(default_factory=dict)
    clock: float = 0.0
    fired: list[float] = field(default_factory=list)
    custom: dict[str, Json] = field(default_factory=dict)

    @classmethod
    def from_json(cls, body: Json) -> RuleState:
        return cls(
            {int(k): [Entry(*entry) for entry in v] for k, v in body.get("pending", {}).items()},
            {int(k): Entry(*v) for k, v in body.get("levels", {}).items()},
            dict(body.get("seen", {})),
            {int(k): Entry(*v) for k, v in body.get("armed", {}).items()},
            body.get("clock", 0.0),
            list(body.get("fired", ())),
            dict(body.get("custom", {})),
        )

    def to_json(self) -> Json | None:
        """The state as JSON, or None when there is nothing to remember."""
        body: dict[str, Any] = {}
        if any(self.pending.values()):
            body["pending"] = {str(k): [_row(entry) for entry in v] for k, v in self.pending.items() if v}
        if self.levels:
            body["levels"] = {str(k): _row(v) for k, v in self.levels.items()}
        if self.seen:
            body["seen"] = self.seen
        if self.armed:
            body["armed"] = {str(k): _row(v) for k, v in self.armed.items()}
        body |= {name: kept for name in ("clock", "fired", "custom") if (kept := getattr(self, name))}
        return {"version": 1, **body} if body else None

    def drop(self, ids: set[int]) -> None:
        """Forget signals, which have their outcome now, in every leaf that waits with them. Levels go on."""
        for leaf, entries in self.pending.items():
            self.pending[leaf] = [entry for entry in entries if entry.id not in ids]
        for kept in (self.levels, self.armed):
            for leaf, entry in kept.items():
                if entry.id in ids and not entry.told:
                    kept[leaf] = replace(entry, told=True)

    def holds(self, signal_id: int) -> bool:
        """Whether any leaf still needs a signal."""
        kept = (entry for entries in (self.levels, self.armed) for entry in entries.values())
        return any(entry.id == signal_id for entry in kept) or any(
            entry.id == signal_id for entries in self.pending.values() for entry in entries
        )

    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        kept = self.levels or self.seen or self.armed or self.clock or self.fired or self.custom
        return not kept and not any(self.pending.values())


def _row(entry: Entry) -> list[Any]:
    row = [entry.id, entry.at, entry.depth, entry.ok]
    if entry.told:
        return [*row, entry.x, True]
    return row if entry.x is None else [*row, entry.x]
