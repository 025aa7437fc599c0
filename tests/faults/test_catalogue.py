"""docs/faults.md speaks of tests that exist, of faults that the soak has, and of every row."""

from __future__ import annotations

import json
import re

from tests.soak.schedule import WEIGHTS
from tests.support_core import ROOT

TEXT = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = {int(row[0]): row[1] for row in re.findall(r"^\| (\d+) \|(.*)\|$", TEXT, re.MULTILINE)}


def test_every_row_is_there_and_says_what_injects_it() -> None:
    assert sorted(ROWS) == [*range(1, 35), *range(40, 57)]
    for number, row in ROWS.items():
        last = row.rsplit("|", 1)[1]
        assert re.search(r"`test_\w+`|`soak: |not here: ", last), f"row {number}"


def test_every_test_that_is_named_exists() -> None:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 30
    assert named <= there, named - there


def test_every_fault_of_the_soak_that_is_named_exists() -> None:
    named = set(re.findall(r"`soak: ([^`]+)`", TEXT))
    assert named <= set(WEIGHTS), named - set(WEIGHTS)


def test_the_last_sweep_is_told_as_it_was() -> None:
    report = json.loads((ROOT / "tests/soak/sweep.json").read_text(encoding="utf-8"))
    said = re.search(r"\(`tests/soak/sweep.json`\), of ([\d,]+) kills,\s+(\d+) of them there, found nothing", TEXT)
    assert said is not None
    assert said.groups() == (f"{report['kills']:,}", str(report["failpoints"]["guard.fencing kill9"]))
    assert report["good"]
    assert report["findings"] == []
