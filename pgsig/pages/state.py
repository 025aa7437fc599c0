"""States as people see them: a sign, a word and a tone for each, so that colour never stands alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pgsig.store.reading import Row

# state: (sign, tone). The tone is a class of the style sheet.
SIGNS = {
    "running": ("▶", "good"), "starting": ("◔", "busy"), "queued": ("◷", "busy"), "retrying": ("↻", "warn"),
    "succeeded": ("✓", "done"), "failed": ("✗", "bad"), "lost": ("?", "bad"), "stopped": ("■", "idle"), "never_run": ("○", "idle"),
    "ready": ("▶", "good"), "reloading": ("⟳", "busy"), "stopping": ("◨", "warn"), "blocked": ("‖", "warn"),
    # Processes.
    "alive": ("●", "good"), "silent": ("?", "bad"), "ended": ("■", "idle"),
    # Backfills.
    "done": ("✓", "done"), "cancelled": ("■", "idle"),
    # Results of actions.
    "recorded": ("→", "done"), "already_running": ("=", "idle"), "already_stopped": ("=", "idle"), "merged": ("+", "busy"),
    "skipped": ("∅", "warn"), "not_running": ("∅", "warn"), "outranked": ("<", "idle"),
    # Verdicts: why an operator did or did not act.
    "started": ("▶", "good"), "reloaded": ("⟳", "good"), "waiting": ("…", "busy"), "debounced": ("◷", "busy"), "no_runner": ("!", "bad"),
    "predicate_false": ("✗", "warn"), "predicate_type_error": ("✗", "bad"), "unchanged": ("=", "idle"), "not_for_it": ("∅", "idle"),
    "window_expired": ("⌛", "warn"), "not_evaluated": ("!", "warn"), "never_matched": ("○", "idle"), "paused": ("‖", "warn"),
    "resumed": ("▶", "done"), "limited": ("‖", "warn"), "shadow": ("◌", "idle"), "by_hand": ("☞", "done"), "no_rules": ("○", "idle"),
    "older": ("∅", "idle"), "source": ("∅", "idle"), "subject": ("∅", "idle"), "false": ("✗", "warn"), "type": ("✗", "bad"),
    "waits": ("◷", "busy"), "fits": ("·", "idle"),
    # Outcomes of signals.
    "consumed": ("✓", "done"), "superseded": ("»", "idle"), "expired": ("⌛", "warn"), "late": ("⌛", "warn"),
    "duplicate": ("=", "idle"), "held": ("‖", "warn"), "quarantined": ("✗", "bad"),
}  # fmt: skip
# What is said of several instances together: the first of these that any is in.
RANK = ("failed", "lost", "retrying", "starting", "queued", "running", "stopped", "succeeded", "never_run")


@dataclass(frozen=True)
class Face:
    """A state to show."""

    state: str
    sign: str
    tone: str
    text: str


def one(state: str) -> Face:
    """The face of one state; an unknown one is shown by its name."""
    sign, tone = SIGNS.get(state, ("·", "idle"))
    return Face(state, sign, tone, state.replace("_", " "))


def face(instances: Sequence[Row]) -> Face:
    """The face of an operator: its instance's, or how many of them are in which state."""
    counts = Counter(instance["observed"] for instance in instances)
    if not counts:
        return one("never_run")
    order = [state for state in RANK if state in counts] or sorted(counts)
    first = one(order[0])
    if len(instances) == 1:
        return first
    text = ", ".join(f"{counts[state]} {state.replace('_', ' ')}" for state in order[:3])
    more = "+" if len(instances) >= 100 else ""
    return Face(first.state, first.sign, first.tone, f"{text}{more}")
