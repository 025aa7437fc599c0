"""What a benchmark says: ratios first, then the figures they were made of."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """One figure over another of the same run. goal: what it should be, as people write it."""

    name: str
    value: float
    goal: str = ""


@dataclass(frozen=True)
class Figure:
    """A measured value: the median of its rounds."""

    name: str
    value: float
    unit: str
    rounds: tuple[float, ...] = ()


@dataclass
class Report:
    """Collects. about: machine, versions, when."""

    about: dict[str, str] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def figure(self, name: str, rounds: Sequence[float], unit: str) -> float:
        """Note a figure; its median."""
        value = median(rounds)
        self.figures.append(Figure(name, value, unit, tuple(rounds)))
        return value

    def ratio(self, name: str, value: float, goal: str = "") -> None:
        self.ratios.append(Ratio(name, value, goal))

    def describe_machine(self, postgres: str) -> None:
        self.about = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "postgres": postgres,
            "python": platform.python_version(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        }

    def text(self) -> str:
        """The table for people."""
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        lines += ["", "RATIOS (median of interleaved rounds)"]
        lines += _table((r.name, f"{r.value:.2f} x", f"goal {r.goal}" if r.goal else "") for r in self.ratios)
        lines += ["", "FIGURES"]
        lines += _table(
            (
                f.name,
                f"{_short(f.value)} {f.unit}",
                f"{_short(min(f.rounds))} … {_short(max(f.rounds))}" if len(f.rounds) > 1 else "",
            )
            for f in self.figures
        )
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _table(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    listed = list(rows)
    widths = [max((len(row[i]) for row in listed), default=0) for i in range(3)]
    return [f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {more}".rstrip() for name, value, more in listed]
