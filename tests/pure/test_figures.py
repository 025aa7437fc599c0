"""docs/scaling.md repeats figures of the published run, docs/bench/result.json, and reckons with them: they are those."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

import pytest

from tests.support_core import ROOT

TEXT = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
REPORT = json.loads((ROOT / "docs/bench/result.json").read_text(encoding="utf-8"))
MODEL = {
    figure["name"]: figure["value"]
    for figure in REPORT["figures"] + REPORT["ratios"]
    if figure["group"] == "the model of docs/scaling.md"
}
STEPS = {
    "one emit, one commit": "emit, a commit each", "emit in bulk, one commit for all": "emit, in bulk",
    "taken, no rule interested": "no rule interested", "matched, decided, an action": "an action each",
    "the same with a run": "a run each",
}  # fmt: skip


def number(text: str) -> float:
    return float(text.replace(",", ""))


def is_rounded(text: str, value: float) -> bool:
    """Whether it says the value, to as many places as it has."""
    places = len(text.partition(".")[2])
    return bool(abs(number(text) - value) <= 0.501 * 10**-places)


def row(begin: str) -> list[str]:
    found = re.search(rf"^\| {re.escape(begin)} \| (.*) \|$", TEXT, re.MULTILINE)
    assert found is not None, begin
    return found[1].split(" | ")


def drains(wanted: Callable[[dict[str, str]], bool]) -> tuple[int, int]:
    """The least and the most, signals a second."""
    speeds = [
        round(each["value"]) for each in REPORT["figures"]
        if each["unit"] == "a second" and "two terms" not in each["name"] and wanted(each)
    ]  # fmt: skip
    return min(speeds), max(speeds)


@pytest.mark.parametrize("step", STEPS)
def test_what_a_signal_costs(step: str) -> None:
    cells = row(step)
    for text, what in zip(cells, ("WAL", "client or worker", "server"), strict=False):
        assert is_rounded(text, MODEL[f"{STEPS[step]}: {what}"]), what


@pytest.mark.parametrize("case", ["no rule interested", "an action each", "a run each"])
def test_the_model(case: str) -> None:
    modelled, off = row(case)
    flush = MODEL["one flush (an empty transaction that writes)"]
    assert re.search(rf"One flush took {flush:.0f} µs", TEXT)
    assert is_rounded(modelled, MODEL[f"{case}: client or worker"] + MODEL[f"{case}: server"] + flush / 1000)
    assert is_rounded(off, MODEL[f"the model: measured / modelled time of a signal, {case}"])


def test_what_a_lane_does_and_how_many_a_million_needs() -> None:
    said = re.search(
        r"([\d,]+) to ([\d,]+) signals a second with an action each, ([\d,]+) to ([\d,]+) with a run each", TEXT
    )
    assert said is not None
    least, most, *with_run = (round(number(text)) for text in said.groups())
    # A drain of a backlog is one with an action each, where its name says nothing else.
    assert (least, most) == drains(
        lambda each: (
            "an action each" in each["name"] or each["group"] in ("a snapshot held open", "backlog and history")
        )
    )
    assert tuple(with_run) == drains(lambda each: "a run each" in each["name"])
    lanes = [math.ceil(1e6 / speed) for speed in (most, least)]
    clusters = [math.ceil(each / 4) for each in lanes]
    assert row("lanes")[0].startswith(f"{lanes[0]} to {lanes[1]} at work")
    assert row("lanes")[0].endswith(f"so {clusters[0]} to {clusters[1]} clusters of four")


def test_what_else_a_million_needs() -> None:
    def both(what: str) -> float:
        return float(MODEL[f"emit, in bulk: {what}"] + MODEL[f"an action each: {what}"])

    assert is_rounded(row("WAL")[0].split()[0], both("WAL") / 1000)  # bytes a signal are MB a second
    assert is_rounded(row("processor, server")[0].split()[0], both("server"))
    assert is_rounded(row("processor, workers")[0].split()[0], MODEL["an action each: client or worker"])
