"""What a benchmark says: ratios first, then the figures they were made of."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

BASIS = (
    "N rounds: the median of as many, in which what is compared takes turns; N events: a percentile of those of all rounds;"
    " 1 value: measured once, or made of figures that are below"
)


@dataclass(frozen=True)
class Ratio:
    """One figure over another of the same run, or a figure that has a goal by itself. goal: `≤ 1.5` or `≥ 3`, empty for none.

    rounds: the ratios of the rounds, of which the value is the median. events: of all rounds, where the value is of percentiles of them.
    """

    name: str
    value: float
    goal: str = ""
    unit: str = "×"
    group: str = ""
    rounds: tuple[float, ...] = ()
    events: int = 0

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        found = re.fullmatch(r"([≤≥]) ([\d.]+)", self.goal)
        if found is None:
            return None
        return self.value <= float(found[2]) if found[1] == "≤" else self.value >= float(found[2])


@dataclass(frozen=True)
class Figure:
    """A measured value: the median of its rounds, or a percentile of the events of all of them."""

    name: str
    value: float
    unit: str
    rounds: tuple[float, ...] = ()
    group: str = ""
    events: int = 0


@dataclass
class Report:
    """Collects. about: machine, versions, when. group: what is being measured; figures of one group are drawn together. scaling: what
    `tests.bench.simulate` goes by."""

    about: dict[str, str] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scaling: dict[str, Any] = field(default_factory=dict)
    group: str = ""

    def figure(self, name: str, rounds: Sequence[float], unit: str) -> float:
        """Note a figure; its median."""
        value = median(rounds)
        self.figures.append(Figure(name, value, unit, tuple(rounds), self.group))
        return value

    def pooled(self, name: str, rounds: Sequence[Sequence[float]], part: float, unit: str) -> float:
        """Note a percentile of what happened in all rounds together: of one round's few events a p99 is the slowest."""
        events = [event for found in rounds for event in found]
        value = percentile(events, part)
        self.figures.append(Figure(name, value, unit, group=self.group, events=len(events)))
        return value

    def ratio(
        self, name: str, value: float | Sequence[float], goal: str = "", unit: str = "×", events: int = 0
    ) -> None:
        """value: the ratios of the rounds; or one, of figures; or that of a figure, which has its rounds."""
        rounds: tuple[float, ...] = ()
        if not isinstance(value, float | int):
            rounds = tuple(value)
            value = median(rounds)
        elif behind := next((f for f in self.figures if f.group == self.group and f.value == value), None):
            rounds, events = behind.rounds, behind.events or events
        self.ratios.append(Ratio(name, value, goal, unit, self.group, rounds, events))

    def unmet(self) -> list[Ratio]:
        return [ratio for ratio in self.ratios if ratio.met is False]

    def note(self, text: str) -> None:
        """Something a reader has to know of the figures of this group."""
        self.notes.append(f"{self.group}: {text}")

    def describe(self, facts: dict[str, str]) -> None:
        """Where and of what this is measured."""
        self.about = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
            "load": f"{_load()} at the beginning",
        }

    def end(self, seconds: float) -> None:
        self.about["load"] += f", {_load()} at the end"
        self.about["took"] = f"{seconds:.0f} s"

    def text(self) -> str:
        """The table for people."""
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        lines += ["", f"RATIOS AND GOALS ({BASIS})"]
        lines += _table(
            (
                f"{sign(r.met)} {r.name}",
                f"{short(r.value)} {r.unit}",
                basis(r),
                spread(r),
                f"goal {r.goal}" if r.goal else "",
            )
            for r in self.ratios
        )
        lines += ["", "FIGURES (least … most of the rounds)"]
        lines += _table((f.name, f"{short(f.value)} {f.unit}", basis(f), spread(f)) for f in self.figures)
        return "\n".join([*lines, "", *self.notes])

    def summary(self) -> str:
        """The last line: which goals are not met."""
        goals, unmet = [r for r in self.ratios if r.goal], self.unmet()
        if not unmet:
            return f"unmet goals: none of {len(goals)}"
        return f"unmet goals: {len(unmet)} of {len(goals)}: " + "; ".join(
            f"{r.name} {short(r.value)} (goal {r.goal})" for r in unmet
        )

    def write(self, path: Path) -> None:
        body = asdict(self) | {"ratios": [asdict(r) | {"met": r.met} for r in self.ratios]}
        body.pop("group")
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * part) - 1)]


def paired(found: Sequence[float], other: Sequence[float]) -> list[float]:
    """The rounds' own ratios, of which the median counts: what was slow for both at one time does not."""
    return [a / b for a, b in zip(found, other, strict=True)]


def sign(met: bool | None) -> str:
    return {True: "✓", False: "✗", None: "·"}[met]


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def basis(found: Ratio | Figure) -> str:
    """What a value is made of."""
    if found.events:
        return f"{found.events:,} events"
    return f"{len(found.rounds)} rounds" if len(found.rounds) > 1 else "1 value"


def spread(found: Ratio | Figure) -> str:
    return f"{short(min(found.rounds))} … {short(max(found.rounds))}" if len(found.rounds) > 1 else ""


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Columns, of which the second is of numbers."""
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    return [
        "  " + "  ".join(f"{text:{'>' if i == 1 else '<'}{widths[i]}}" for i, text in enumerate(row)).rstrip()
        for row in listed
    ]
