"""Conditions in Python: `signal("model.trained").where("$.auc > 0.5") &
~signal("ops.freeze").eq("on").sticky()`.

Every object holds canonical JSON and nothing else; it is checked when its workflow becomes a document, so
that all problems are named together. Methods return a new condition, none changes the one it is called on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any, NoReturn, TypedDict, Unpack

from pgsig.condition import duration
from pgsig.model import Action, Json

Length = str | float | timedelta
OF_THE_RULE = ("by", "max", "then", "shadow")


@dataclass(frozen=True)
class Condition:
    """A condition over signals. tree: its canonical JSON."""

    tree: dict[str, Any]

    def eq(self, value: Json) -> Condition:
        """Only signals with this value.

        Raises TypeError on anything but a signal, like all that filter signals.
        """
        return self._signal(eq=value)

    def where(self, predicate: str) -> Condition:
        """Only signals for whose value a SQL/JSON path predicate holds, for instance `$.auc > 0.5`."""
        return self._signal(where=predicate)

    def source(self, name: str) -> Condition:
        """Only signals of this source."""
        return self._signal(source=name)

    def subject(self, name: str) -> Condition:
        """Only signals about this subject."""
        return self._signal(subject=name)

    def changed(self) -> Condition:
        """Only when the value differs from the last one for the same key and subject."""
        return self._signal(changed=True)

    def latest(self) -> Condition:
        """Only the newest signal that waits; older ones are superseded."""
        return self._signal(latest=True)

    def sticky(self) -> Condition:
        """A level: holds while the last signal satisfies, and is never consumed."""
        return self._signal(sticky=True)

    def count(self, n: int, *, distinct: str | None = None) -> Condition:
        """True when n signals wait; it takes them all.

        distinct: a SQL/JSON path; signals with the same value there count once.
        """
        return self._signal(**_said(count=n, distinct=distinct))

    def sum(self, path: str, reaches: float) -> Condition:
        """True when the numbers at a SQL/JSON path of the signals that wait add up to this; it takes those."""
        return self._signal(sum={"of": path, "reaches": reaches})

    def met_by(self, function: str) -> Condition:
        """Only signals that a SQL function takes for a match.

        function: its name with schema. It is called with (signal jsonb, state jsonb) and answers (state jsonb, met boolean);
        each instance of the rule has a state of its own, null at first. An apply is refused where it does not exist.
        """
        return self._signal(met_by=function)

    def within(self, length: Length) -> Condition:
        """All parts lie in a span of this length; older parts expire."""
        return self._with(within=written(length))

    def debounce(self, quiet: Length, *, max_wait: Length | None = None) -> Condition:
        """True once it is and nothing more came for so long, or `max_wait` after the first; takes all that came."""
        return self._with(**_said(debounce=quiet, max_wait=max_wait))

    def window(self, length: Length, *, tz: str | None = None, lateness: Length | None = None) -> Condition:
        """True when signals of one calendar window make it so; leftovers expire when it closes.

        length: a part of a day, a day, or a week. tz: whose days these are (default: UTC). lateness: how long a window that is
        over still takes signals (default: not at all).
        """
        return self._with(**_said(window=length, tz=tz, lateness=lateness))

    def label(self, text: str) -> Condition:
        """A name for people, shown in explanations."""
        return self._with(label=text)

    def by(self, path: str) -> Condition:
        """What an instance of the whole rule is: "subject" (default), "none", or a path like `$.model_id`."""
        return self._with(by=path)

    def max(self, limit: str, *, then: str | Action | None = None) -> Condition:
        """The whole rule is carried out so often at most, for instance "3/1h".

        then: what it does above that: START, STOP, RESTART or RELOAD (default: nothing). Either is recorded.
        """
        return self._with(**_said(max=limit, then=then))

    def shadow(self) -> Condition:
        """The whole rule decides and is recorded, and nothing follows."""
        return self._with(shadow=True)

    def __and__(self, other: Condition) -> Condition:
        return _join("all", self, other)

    def __or__(self, other: Condition) -> Condition:
        return _join("any", self, other)

    def __rand__(self, other: Condition) -> Condition:  # an APScheduler trigger on the left
        return _join("all", other, self)

    def __ror__(self, other: Condition) -> Condition:
        return _join("any", other, self)

    def __invert__(self) -> Condition:
        return Condition({"not": _part(self, "~")})

    def __bool__(self) -> NoReturn:
        raise TypeError("a condition is neither true nor false in Python: use & | ~ instead of and, or, not")

    def _signal(self, **said: Json) -> Condition:
        if "signal" not in self.tree:
            form, key = next(iter(self.tree)), next(iter(said))
            raise TypeError(f'.{key}() belongs to a signal, not to {form}: signal("…").{key}(…)')
        return self._with(**said)

    def _with(self, **said: Json) -> Condition:
        return Condition({**self.tree, **plain(said)})


def signal(key: str) -> Condition:
    """A signal of this key comes. `*` stands for one segment, a trailing `**` for any number of them."""
    return Condition({"signal": key})


def all_of(*parts: Condition) -> Condition:
    """Every part is true. The same as `&`."""
    return Condition({"all": [_part(part, "all_of") for part in parts]})


def any_of(*parts: Condition) -> Condition:
    """One of the parts is true: the first one that becomes so. The same as `|`."""
    return Condition({"any": [_part(part, "any_of") for part in parts]})


def seq(*parts: Condition) -> Condition:
    """Every part becomes true, each after the one before."""
    return Condition({"seq": [_part(part, "seq") for part in parts]})


def at_least(n: int, *parts: Condition | Iterable[Condition]) -> Condition:
    """n of the parts are true."""
    flat: list[Condition] = []
    for part in parts:
        flat += [part] if isinstance(part, Condition) else part
    return Condition({"at_least": n, "of": [_part(part, "at_least") for part in flat]})


def absent(key: str, *, for_: Length, after: str | None = None) -> Condition:
    """No signal of this key came for so long.

    after: the key that arms it each time. Without it the first signal of `key` does, and each further `for_` of silence counts.
    """
    tree = {"absent": key, "for": written(for_)}
    return Condition(tree if after is None else {**tree, "after": after})


class Beside(TypedDict, total=False):
    """What stands beside every periodic trigger.

    tz: the time zone of its local times (default: UTC). begin, end: the first and the last moment, or day, of its due times. jitter: up to
    so much later than it is due it fires; the same for every clock. missed: which times that nobody fired come late, "none", "latest"
    (default), "all" or "all(n)". params: parameters of the run that it starts.
    """

    tz: str
    begin: str | date
    end: str | date
    jitter: Length
    missed: str
    params: dict[str, Json]


def every(length: Length, *, anchor: str | datetime | None = None, **beside: Unpack[Beside]) -> Condition:
    """A tick each time this length has passed, counted from the anchor (default: midnight of 2020-01-01
    UTC).
    """
    return _tick({"every": written(length), "anchor": anchor}, beside)


def cron(expression: str | dict[str, str], **beside: Unpack[Beside]) -> Condition:
    """A tick by a cron of 5 fields, 6 with seconds first, `@daily` and the like, or APScheduler's fields by name."""
    return _tick({"cron": expression}, beside)


def calendar(
    period: str, *, time: str = "00:00", anchor: str | date | None = None, **beside: Unpack[Beside]
) -> Condition:
    """A tick at the same time of day every "1 day", "2 weeks", "3 months" or "1 year".

    anchor: the date that it is counted from (default: 2020-01-01; needed for weeks). A month without its day is left out.
    """
    return _tick({"calendar": period, "time": None if time == "00:00" else time, "anchor": anchor}, beside)


def at(moment: str | datetime, **beside: Unpack[Beside]) -> Condition:
    """One tick at a date and time; without an offset of its own it is in the time zone `tz`."""
    return _tick({"at": moment}, beside)


def times_any(*parts: Condition, **beside: Unpack[Beside]) -> Condition:
    """A tick whenever one of several periodic triggers is due; one tick where several are due at the same instant."""
    return _tick({"times": "any", "of": [part.tree for part in parts]}, beside)


def times_all(*parts: Condition, **beside: Unpack[Beside]) -> Condition:
    """A tick whenever all of several periodic triggers are due at the same instant."""
    return _tick({"times": "all", "of": [part.tree for part in parts]}, beside)


def trigger(target: str, **beside: Unpack[Beside]) -> Condition:
    """Ticks of an APScheduler trigger object, or of what a function without arguments returns: `module:name`, as a clock imports it.

    It is asked for the next time after an instant, with no previous time.
    """
    return _tick({"trigger": target}, beside)


def written(length: Length) -> Json:
    """A length of time as canonical JSON has it. What is not one is left for the check to refuse."""
    if not isinstance(length, timedelta):
        return length
    seconds = length.total_seconds()
    return duration.text(seconds) if seconds > 0 else seconds


def plain(value: Any) -> Json:
    """Tuples as lists, enums as their values; all else as it is."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    return written(value) if isinstance(value, timedelta) else value


def condition_of(given: Any) -> Any:
    """A condition for an APScheduler trigger object; everything else as it is. Raises InvalidInput for a trigger that cannot be stored."""
    if hasattr(given, "get_next_fire_time"):
        from pgsig.definition.apscheduler import spec_of  # imports APScheduler: who hands over a trigger has it

        return Condition(spec_of(given))
    return given


def _said(**given: Json) -> dict[str, Json]:
    """What was not left out."""
    return {name: value for name, value in given.items() if value is not None}


def _tick(tree: dict[str, Any], beside: Beside) -> Condition:
    return Condition(plain(_said(**tree, **beside)))


def _part(part: Condition, owner: str) -> dict[str, Any]:
    part = condition_of(part)
    if not isinstance(part, Condition):
        raise TypeError(
            f"{owner} joins conditions, not {type(part).__name__}: signal(…), every(…), operator.succeeded()"
        )
    for key in OF_THE_RULE:
        if key in part.tree:
            raise TypeError(f"{key} belongs to the whole rule: write (a & b).{key}(…)")
    return part.tree


def _join(form: str, left: Any, right: Any) -> Condition:
    """`a & b & c` is one group of three, as long as nobody gave the inner group a label or a window of its
    own.
    """
    left, right = condition_of(left), condition_of(right)
    if not (isinstance(left, Condition) and isinstance(right, Condition)):
        return NotImplemented  # type: ignore[no-any-return]
    parts: list[dict[str, Any]] = []
    for side in (left, right):
        tree = _part(side, "&" if form == "all" else "|")
        parts += tree[form] if set(tree) == {form} else [tree]
    return Condition({form: parts})
