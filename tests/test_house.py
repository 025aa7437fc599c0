"""Rules of the house that no linter knows: who may speak SQL, what stays free of I/O, what belongs into no file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsig.paths import PACKAGE

PURE = ("condition", "decide")
# What a pure module may import besides the package itself: nothing that opens, waits, measures or draws.
HARMLESS = {
    "__future__",
    "apscheduler",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "typing",
    "zoneinfo",
}


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", modules(*PURE), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_core_does_no_io(path: Path) -> None:
    foreign = {
        name for name in imported(path)
        if name.split(".")[0] not in HARMLESS and not name.startswith(("pgsig.condition", "pgsig.decide", "pgsig.model", "pgsig.errors"))
    }  # fmt: skip
    assert foreign == set()
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(datetime\.now|utcnow|time\.time|open\(|random\.random\()", text)


STATEMENT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|WITH \w+ AS)\s")
# doorbell.py takes and gives back one lock. run.py has to work where pgsig is not installed. show.py is what a page offers to copy.
EXCEPTIONS = {"doorbell.py", "run.py", "show.py"}
# The demonstration is a user of the database like any other.
SPEAKERS = [path for path in modules("") if not {"store", "demo"} & set(path.parts) and path.name not in EXCEPTIONS]


@pytest.mark.parametrize("path", SPEAKERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_store_speaks_sql(path: Path) -> None:
    constants = (
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)
    )
    assert [node.value for node in constants if isinstance(node.value, str) and STATEMENT.match(node.value)] == []
