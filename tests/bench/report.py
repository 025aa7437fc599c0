"""What a benchmark says: ratios first, then the figures they were made of."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """One figure over another of the same run, or a figure that has a goal by itself. goal: `≤ 1.5` or `≥ 3`, empty for none."""

    name: str
    value: float
    goal: str = ""
    unit: str = "×"
    group: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        found = re.fullmatch(r"([≤≥]) ([\d.]+)", self.goal)
        if found is None:
            return None
        return self.value <= float(found[2]) if found[1] == "≤" else self.value >= float(found[2])


@dataclass(frozen=True)
class Figure:
    """A measured value: the median of its rounds."""

    name: str
    value: float
    unit: str
    rounds: tuple[float, ...] = ()
    group: str = ""


@dataclass
class Report:
    """Collects. about: machine, versions, when. group: what is being measured; figures of one group are drawn together."""

    about: dict[str, str] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    group: str = ""

    def figure(self, name: str, rounds: Sequence[float], unit: str) -> float:
        """Note a figure; its median."""
        value = median(rounds)
        self.figures.append(Figure(name, value, unit, tuple(rounds), self.group))
        return value

    def ratio(self, name: str, value: float, goal: str = "", unit: str = "×") -> None:
        self.ratios.append(Ratio(name, value, goal, unit, self.group))

    def note(self, text: str) -> None:
        """Something a reader has to know of the figures of this group."""
        self.notes.append(f"{self.group}: {text}")

    def describe_machine(self, postgres: str, versions: dict[str, str]) -> None:
        self.about = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "postgres": postgres,
            "python": platform.python_version(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "load": f"{_load()} at the beginning",
            **versions,
        }

    def end(self, seconds: float) -> None:
        self.about["load"] += f", {_load()} at the end"
        self.about["took"] = f"{seconds:.0f} s"

    def text(self) -> str:
        """The table for people."""
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        lines += ["", "RATIOS AND GOALS (medians of interleaved rounds)"]
        lines += _table(
            (f"{sign(r.met)} {r.name}", f"{short(r.value)} {r.unit}", f"goal {r.goal}" if r.goal else "")
            for r in self.ratios
        )
        lines += ["", "FIGURES (median, least … most of the rounds)"]
        lines += _table((f.name, f"{short(f.value)} {f.unit}", spread(f)) for f in self.figures)
        return "\n".join([*lines, "", *self.notes])

    def write(self, path: Path) -> None:
        body = asdict(self) | {"ratios": [asdict(r) | {"met": r.met} for r in self.ratios]}
        body.pop("group")
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def paired(found: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' own ratios: what was slow for both at one time does not count."""
    return median([a / b for a, b in zip(found, other, strict=True)])


def sign(met: bool | None) -> str:
    return {True: "✓", False: "✗", None: "·"}[met]


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def spread(figure: Figure) -> str:
    return f"{short(min(figure.rounds))} … {short(max(figure.rounds))}" if len(figure.rounds) > 1 else ""


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _table(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    listed = list(rows)
    widths = [max((len(row[i]) for row in listed), default=0) for i in range(3)]
    return [f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {more}".rstrip() for name, value, more in listed]
