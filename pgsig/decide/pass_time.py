"""What time alone does to a rule's state: parts that grow too old, windows that close, absences that are complete; and when next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pgsig.condition import Debounce, Leaf, Tick, leaves, walk
from pgsig.condition.calendar import window_of
from pgsig.decide.catalog import CompiledRule
from pgsig.decide.find import due_after_quiet
from pgsig.decide.state import Entry, RuleState

# A part is too old, and a window is closed, strictly after its end: the timer for it falls due this much later, in seconds.
INSTANT = 0.001


def expired(rule: CompiledRule, state: RuleState, now: float) -> list[tuple[int, str]]:
    """Forget what is too old by now. Returns (signal, why)."""
    gone: dict[int, str] = {}
    for numbers, length in rule.spans:
        gone |= {e.id: "older than within" for n in numbers for e in state.pending.get(n, ()) if e.at + length < now}
    for numbers, window in rule.windows:
        for number in numbers:
            for entry in state.pending.get(number, ()):
                if window_of(entry.at, window.length, window.zone)[1] + window.lateness <= now:
                    gone[entry.id] = "its window closed"
    if gone:
        state.drop(set(gone))
    return sorted(gone.items())


def is_late(rule: CompiledRule, state: RuleState, leaf: Leaf | Tick, at: float) -> bool:
    """Rule 12: whether the window that a signal belongs to was closed before it came."""
    return any(
        leaf.index in numbers and window_of(at, window.length, window.zone)[1] + window.lateness <= state.clock
        for numbers, window in rule.windows
    )


def complete_absences(rule: CompiledRule, state: RuleState, now: float, cause: Entry) -> list[Entry]:
    """Where nothing came for long enough, the signal that tells so (a timer's) stands for it and is waited with like any other.

    Returns the signals that had armed what is over now.
    """
    over = []
    for absent in rule.absents:
        number = absent.watch.index
        since = state.armed.get(number)
        if since is None or now < since.at + absent.length:
            continue
        state.pending.setdefault(number, []).append(cause)
        if absent.after is None:
            state.armed[number] = replace(since, at=now)
        else:
            over.append(state.armed.pop(number))
    return over


def next_due(rule: CompiledRule, state: RuleState, now: float) -> float | None:
    """When to look again if nothing comes, in seconds since the epoch; None where time changes nothing."""
    return min((due for due in _dues(rule, state) if due > now), default=None)


def _dues(rule: CompiledRule, state: RuleState) -> Iterator[float]:
    for numbers, length in rule.spans:
        yield from (entry.at + length + INSTANT for number in numbers for entry in state.pending.get(number, ())[:1])
    for numbers, window in rule.windows:
        for number in numbers:
            for entry in state.pending.get(number, ()):
                yield window_of(entry.at, window.length, window.zone)[1] + window.lateness + INSTANT
    for absent in rule.absents:
        if (since := state.armed.get(absent.watch.index)) is not None:
            yield since.at + absent.length
    for node in walk(rule.root):
        if isinstance(node, Debounce):
            came = [entry for leaf in leaves(node) for entry in state.pending.get(leaf.index, ()) if entry.ok]
            if came:
                yield due_after_quiet(node, came)
