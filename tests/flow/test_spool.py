"""The folders of runs: one after the other in the same place, and nothing of one is left to the next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgsig.runner.place import Place, Spool
from pgsig.store.jobs import Grant


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    found = Spool(tmp_path)
    found.reuses = True
    yield found
    found.close()
    assert not found.folder.exists()


def begin(spool: Spool, number: int, cause: str = "[]", token: str = "secret") -> Place:
    grant = Grant(number, 1, 1, 1, "default", "w", "o", "s", "batch", {}, {}, cause, "START", 0)
    place = spool.place(grant, url="http://127.0.0.1:9", token=token)
    os.close(os.open(place.output, os.O_RDWR | os.O_CREAT, 0o600))
    return place


def texts(place: Place) -> dict[str, str]:
    return {file.name: file.read_text() for file in place.folder.iterdir()}


def test_the_folder_of_a_run_that_ended_is_the_next_ones(spool: Spool) -> None:
    """Under its own name, with its own content."""
    first = begin(spool, 1, json.dumps(["long"] * 100), "first")
    node = first.folder.stat().st_ino
    first.output.write_text("said")
    first.remove()
    assert "first" not in "".join(file.read_text() for file in first.folder.iterdir())
    second = begin(spool, 2, token="other")
    assert second.folder.stat().st_ino == node
    assert not first.folder.exists()
    found = texts(second)
    assert json.loads(found["run.json"])["id"] == 2
    assert json.loads(found["run.json"])["cause"] == []
    assert found["url"] == "http://127.0.0.1:9"
    assert found["output"] == ""
    assert "other" in found["curl"]
    assert not any(word in text for text in found.values() for word in ("first", "long", "said"))
    third = begin(spool, 3)
    assert third.folder.stat().st_ino != node
    assert begin(spool, 3).folder == third.folder


def link(place: Place) -> None:
    os.link(place.output, place.folder.parent / "kept")


def point_elsewhere(place: Place) -> None:
    (place.folder / "run.json").unlink()
    (place.folder / "run.json").symlink_to(place.folder.parent / "lock")


@pytest.mark.parametrize(
    "change",
    [
        link,
        point_elsewhere,
        lambda place: (place.folder / "own").touch(),
        lambda place: (place.folder / "url").unlink(),
        lambda place: place.output.chmod(0o644),
        lambda place: place.output.write_text("x" * 100_000),
    ],
)
def test_one_that_is_not_as_it_was_made_is_removed(spool: Spool, change: Callable[[Place], object]) -> None:
    first = begin(spool, 1)
    change(first)
    first.remove()
    assert not first.folder.exists()


def test_of_an_engine_whose_jobs_last_none_is_used_again(spool: Spool) -> None:
    spool.reuses = False
    first = begin(spool, 1)
    first.remove()
    assert not first.folder.exists()
