"""Rules of the house that no linter knows: who may speak SQL, what stays free of I/O, what belongs into no file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsig.embedded.binaries import OLDEST_MAJOR, find_binaries
from pgsig.paths import PACKAGE
from tests import support
from tests.support import PARTS, find, needs

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


# ── parts that a machine may lack ──

ROOT = PACKAGE.parent


@pytest.mark.parametrize("part", sorted(PARTS))
def test_ci_installs_what_tests_need(part: str) -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.search(rf"packages\+=\(.*\b{PARTS[part]}\b.*\)", script)
    assert f"{PARTS[part]}" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", ["pgbouncer", "older-postgres", "python:no_such_module"])
def test_a_missing_part_is_a_reason_here_and_a_failure_in_ci(
    part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(support, "DEBIAN", tmp_path)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"needs {part}"):
        needs(part)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=f"needs {part}"):
        needs(part)


def test_an_older_postgres_is_one_that_can_be_upgraded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = find_binaries().major
    monkeypatch.setattr(support, "DEBIAN", tmp_path)
    for major in (OLDEST_MAJOR - 1, own, own + 1):
        (tmp_path / f"{major}/bin").mkdir(parents=True)
        (tmp_path / f"{major}/bin/initdb").touch()
    assert find("older-postgres") is None
    if own > OLDEST_MAJOR:
        (tmp_path / f"{own - 1}/bin").mkdir(parents=True)
        assert find("older-postgres") is None  # clients alone
        (tmp_path / f"{own - 1}/bin/initdb").touch()
        assert find("older-postgres") == str(tmp_path / f"{own - 1}/bin")


def test_only_one_place_looks_for_a_part() -> None:
    """Whoever did so by itself would be skipped where CI lacks the part, and nobody would know. A benchmark is no test."""
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "support.py" and "bench" not in path.parts]
    looks = re.compile(r"shutil\.which\(|Path\(\"/usr/")
    assert [path.name for path in tests if looks.search(path.read_text(encoding="utf-8"))] == []
