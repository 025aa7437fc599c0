"""What is to come: the next due times of triggers, in UTC and in their own zone, with what a change of clocks does to them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger

from pgsig.condition import duration, missed, schedule
from pgsig.condition.times import Times
from pgsig.condition.words import words
from pgsig.definition import Definition
from pgsig.model import Json
from pgsig.store import triggers
from pgsig.store.database import Connection
from pgsig.store.reading import Row, rows

Import = Callable[[str], BaseTrigger]
AHEAD = timedelta(days=400)  # as far as warnings look: both changes of clocks of a year are in it
LEAST = 3  # due times of one trigger among many
MOST_WARNINGS = 3  # of one trigger


@dataclass(frozen=True, slots=True)
class Coming:
    """due: in UTC. at: when it is fired, later than due by its jitter. local: due in the trigger's zone, with the zone's name.

    note: what a change of clocks does to it.
    """

    trigger: Row
    due: datetime
    at: datetime
    local: str
    note: str | None

    def as_dict(self) -> Row:
        found: Row = {}
        for name in ("namespace", "workflow", "operator", "trigger"):
            if name in self.trigger:
                found[name] = self.trigger[name]
        found["due"] = self.due.isoformat()
        if self.at != self.due:
            found["at"] = self.at.isoformat()
        found |= {"local": self.local, "words": words(self.trigger["spec"]), "note": self.note}
        return found


def coming(
    found: Iterable[Row], now: datetime, most: int, *, fair: bool = False, imported: Import | None = None
) -> list[Coming]:
    """The next `most` due times of triggers together, the soonest first. Each is a row with id, spec, and since where that is known.

    fair: of one trigger no more than its share, so that a busy one does not hide the others. imported: gets a trigger of the user's own;
    without it those are left out. Paused ones are left out too.
    """
    asked = [trigger for trigger in found if not trigger.get("paused")]
    each = max(LEAST, -(-most // len(asked))) if fair and asked else None
    ahead = (islice(_of(trigger, now, imported), each) for trigger in asked)
    return list(islice(heapq.merge(*ahead, key=lambda one: one.due), most))


def next_of(trigger: Row, now: datetime, most: int, imported: Import | None = None) -> list[Coming]:
    """The next `most` due times of one trigger, also of a paused one. imported: see `coming`."""
    return list(islice(_of(trigger, now, imported), most))


def unknown(found: Iterable[Row], now: datetime, imported: Import | None = None) -> list[Row]:
    """Triggers of the user's own that cannot be asked here: only the clocks know. imported: see `coming`."""
    return [trigger for trigger in found if _times(trigger["spec"], now, imported) is None]


def _times(spec: Json, now: datetime, imported: Import | None) -> Times | None:
    """The due times of a spec; None where they cannot be had here, or it does not say them."""
    try:
        times = schedule.build(spec, imported)
        if "trigger" in spec:
            times.next(now)
    except Exception:  # noqa: BLE001  one of the user's own may raise whatever it likes
        return None
    return times


def told(connection: Connection, found: list[Row], most: int) -> list[Row]:
    """The same triggers, each with its `words`, its `next` due times, and the `gaps` that were left out last."""
    now = triggers.now(connection)
    gaps = rows(connection, "gaps_of_triggers", triggers=[item["id"] for item in found], limit=3)
    for item in found:
        item["words"] = words(item["spec"])
        ahead = next_of(item, now, most)
        item["next"] = [{"due": one.due, "at": one.at, "local": one.local, "note": one.note} for one in ahead]
        item["gaps"] = [
            {name: gap[name] for name in ("first_due", "last_due", "times", "why", "by_whom", "reason", "recorded_at")}
            for gap in gaps if gap["trigger_id"] == item["id"]
        ]  # fmt: skip
    return found


def _of(trigger: Row, now: datetime, imported: Import | None = None) -> Iterator[Coming]:
    spec = trigger["spec"]
    if (times := _times(spec, now, imported)) is None:
        return
    zone = _zone(spec)
    late = duration.seconds(spec["jitter"]) if "jitter" in spec else 0.0
    # What is settled ahead was skipped by hand.
    after = max(now, trigger.get("since") or now).astimezone(UTC)
    while (due := times.next(after)) is not None:
        at = due + missed.jitter(str(trigger["id"]), due, late)
        yield Coming(trigger, due, at, f"{due.astimezone(zone):%a %Y-%m-%d %H:%M:%S} {zone.key}", times.note(due))
        after = due


def _zone(spec: Json) -> ZoneInfo:
    """Where its local times are told: in its own zone, or the one that all parts of a combination with a zone have."""
    named = {part["tz"] for part in spec.get("of", ()) if isinstance(part, dict) and "tz" in part}
    return schedule.zone_of(spec.get("tz") or (named.pop() if len(named) == 1 else "UTC"))


def warnings(definition: Definition, now: datetime) -> list[str]:
    """What people should know of a definition's triggers: times that are past or never come, and changes of clocks that move some."""
    found = []
    for operator in definition.operators:
        for trigger in operator.triggers:
            place = f"{definition.workflow}.{operator.name}"
            try:
                times = schedule.build(trigger.spec)
            except ValueError:
                continue  # only a clock can ask it
            if times.next(now) is None:
                found.append(f"{place}: {words(trigger.spec)} is past, it will not come")
            found += [f"{place}: {words(trigger.spec)}: {note}" for note in moved(trigger.spec, times, now)]
    return found


def moved(spec: Json, times: Times, now: datetime) -> list[str]:
    """The first due times within 400 days that a change of clocks moves."""
    from pgsig.condition.wall import changes

    zone = schedule.zone_of(spec.get("tz", "UTC"))
    zones = {
        zone,
        *(schedule.zone_of(part["tz"]) for part in spec.get("of", ()) if isinstance(part, dict) and "tz" in part),
    }
    found = []
    for change in sorted(
        (c for z in zones for year in (now.year, now.year + 1) for c in changes(z, year)), key=lambda c: c.at
    ):
        if not now < change.at < now + AHEAD:
            continue
        span = abs(change.jump)
        for due in schedule.due_between(times, change.at - span - schedule.MICROSECOND, change.at + span, 20):
            if (note := times.note(due)) is not None:
                found.append(f"on {due.astimezone(zone):%Y-%m-%d} {note}")
                break
    return found[:MOST_WARNINGS]
