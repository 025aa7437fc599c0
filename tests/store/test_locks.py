"""An advisory lock has one purpose."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
BELL = "1000"  # shared by who emits, in SQL, and taken by who sleeps, in Python
OBJECT = re.compile(r"1885827945, (1\d{3})")
LISTED = re.compile(r"\b(1\d{3}) ")


def test_no_two_files_mean_different_things_by_the_same_lock() -> None:
    places = defaultdict(set)
    for room, pattern in (("pgsig", "**/*.py"), ("sql/api", "*.sql"), ("sql/queries", "*.sql")):
        for path in (ROOT / room).glob(pattern):
            for number in OBJECT.findall(path.read_text(encoding="utf-8")):
                places[number].add(path.name)
    shared = {number: names for number, names in places.items() if len(names) > 1}
    assert shared == {BELL: {"doorbell.py", "10_emit.sql"}}
    listed = (
        (ROOT / "sql/api/10_emit.sql")
        .read_text(encoding="utf-8")
        .partition("Advisory locks use class")[2]
        .partition("\n\n")[0]
    )
    assert sorted(LISTED.findall(listed)) == sorted(places)
