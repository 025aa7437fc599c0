"""What the README shows is what works: its Python makes a workflow, its SQL runs against the database."""

from __future__ import annotations

import re
from pathlib import Path

from pgsig import Workflow, presence, web
from pgsig.runner import door
from pgsig.store.database import Connection
from pgsig.store.definitions import apply

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def workflow() -> Workflow:
    names: dict[str, object] = {}
    exec(block("python"), names)
    wf = names["wf"]
    assert isinstance(wf, Workflow)
    return wf


def test_the_python_and_the_sql_work_together(connection: Connection) -> None:
    assert apply(connection, workflow().as_document()).version == 1
    for statement in filter(str.strip, re.sub(r"--.*", "", block("sql")).split(";")):
        connection.execute(statement.encode())
    emitted = connection.execute("SELECT key FROM pgsig.signals WHERE kind = 'user' ORDER BY id").fetchall()
    assert [key for (key,) in emitted] == ["data.ready", "model.trained", "order.paid"]


def test_ten_lines_are_ten_lines() -> None:
    for language in ("python", "sql"):
        assert len([line for line in block(language).splitlines() if line.strip()]) <= 10


def test_connections_are_as_many_as_the_code_makes() -> None:
    """Those that last are counted in tests/flow/test_crowd.py."""
    told = dict(re.findall(r"^\| (worker|runner|clock|web)\b(.*)\|$", README, re.MULTILINE))
    assert set(told) == {"worker", "runner", "clock", "web"}
    assert f"each of its {web.PROCESSES} processes" in told["web"]
    assert f"up to {web.CONNECTIONS}, kept" in told["web"]
    assert f"every {presence.BEAT:.0f} s another" in told["web"]
    assert f"up to {door.CONNECTIONS}, kept" in told["runner"]


def test_what_a_copy_of_the_files_cannot_do_is_told_here_as_in_the_faults() -> None:
    faults = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    for text in (README, faults):
        assert re.search(r"started without\s+`recovery.signal`", text)
