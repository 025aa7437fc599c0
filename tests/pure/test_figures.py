"""docs/scaling.md repeats figures of the published run, docs/bench/result.json: they are those. For what it has of its own run and of the
simulation see test_simulate.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support_core import ROOT

TEXT = " ".join((ROOT / "docs/scaling.md").read_text(encoding="utf-8").split())
MODEL = "the model of docs/scaling.md"  # has small steps and two lanes among its own
REPORT = json.loads((ROOT / "docs/bench/result.json").read_text(encoding="utf-8"))


def figure(name: str, group: str) -> dict[str, Any]:
    (found,) = [each for each in REPORT["figures"] if each["name"] == name and each["group"] == group]
    return dict(found)


def with_range(found: dict[str, Any]) -> str:
    return f"{found['value']:,.0f} ({min(found['rounds']):,.0f} … {max(found['rounds']):,.0f})"


def drains(wanted: Callable[[dict[str, str]], bool]) -> str:
    """The least and the most, signals a second."""
    speeds = [
        round(each["value"]) for each in REPORT["figures"]
        if each["unit"] == "a second" and "two terms" not in each["name"] and each["group"] != MODEL and wanted(each)
    ]  # fmt: skip
    return f"{min(speeds):,} to {max(speeds):,}"


def test_what_a_lane_does() -> None:
    # A drain of a backlog is one with an action each, where its name says nothing else.
    acting = drains(
        lambda each: (
            "an action each" in each["name"] or each["group"] in ("a snapshot held open", "backlog and history")
        )
    )
    starting = drains(lambda each: "a run each" in each["name"])
    assert f"{acting} and {starting}, the lowest and the highest median of its drains" in TEXT


@pytest.mark.parametrize(("name", "said"), [
    ("emit, 1 clients", "{} a second"), ("emit, 16 clients", "{} with 16 clients"), ("emit, 64 clients", "{} with 64"),
    ("emit, 16 clients, worker draining", "{} with 16 clients beside a worker"),
])  # fmt: skip
def test_what_emitters_do(name: str, said: str) -> None:
    assert said.format(with_range(figure(name, "emit, one row a commit"))) in TEXT


def test_what_a_runner_does() -> None:
    (found,) = [each for each in REPORT["figures"] if each["name"].startswith("10,000 short jobs, pgsig")]
    assert f"a runner had {with_range(found)} of them a second" in TEXT


def test_what_many_rules_cost() -> None:
    many, few = (
        figure(f"match: exact, {rules} rules", "rules in the pure core")["value"] for rules in ("100,000", "10")
    )
    assert re.search(rf"takes {many:.1f} µs with 100,000 of them, {few:.1f} with ten", TEXT)
    whole = figure("all definitions are read, 100,000 rules", "many rules in a database")["value"] / 1000
    assert f"takes {whole:.0f} s with 100,000" in TEXT
