"""A catalog of which workflows are replaced, one after the other, is the one that is built anew."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import pytest

from pgsig.condition.pattern import PatternIndex
from pgsig.decide.catalog import Catalog, Path, build
from pgsig.model import Action, Kind, Operator, Rule

KEYS = ["a", "a.b", "a.c", "a.b.c", "b.b", "b.c.d", "run.w.o.starting", "run.w.o.failed", "tick.w0.o0"]
CONDITIONS: list[Any] = [
    {"signal": "a"}, {"signal": "a.b"}, {"signal": "a.*"}, {"signal": "a.**"}, {"signal": "*.b"}, {"signal": "*.*.d"},
    {"signal": "run.*.*.starting"}, {"any": [{"signal": "a.b"}, {"signal": "a.b"}]},
    {"all": [{"signal": "a.b"}, {"signal": "b.*"}], "within": "1h"}, {"signal": "b.c.d", "met_by": "public.mine"},
]  # fmt: skip
PATHS: list[Path] = [("x", "w0"), ("x", "w1"), ("x", "w2"), ("y", "w0"), ("y", "w1")]


def operators(path: Path, numbers: count[int], choice: random.Random) -> list[Operator]:
    """Of a workflow that changed: its operators are the same ones, as far as they are still there."""
    made = []
    for place in range(choice.randrange(4)):
        number = 10 * PATHS.index(path) + place
        rules = [
            Rule(next(numbers), number, f"start.{n}", Action.START, n, choice.choice(CONDITIONS))
            for n in range(choice.randrange(3))
        ]
        paused = choice.choice([None, None, "hold", "drop"])
        made.append(Operator(number, *path, f"o{place}", Kind.BATCH, 1, {}, tuple(rules), paused))
    return made


def picture(catalog: Catalog) -> dict[str, Any]:
    """What can be asked of it."""
    return {
        "operators": catalog.operators, "manual": catalog.manual, "paused": catalog.paused, "timed": catalog.timed,
        "rules": {number: (rule.rule, rule.operator) for number, rule in catalog.rules.items()},
        "flags": (catalog.custom, catalog.heeds_starts),
        "interest": {
            (namespace, key): sorted((rule.rule.id, leaf.index) for rule, leaf in catalog.interest[namespace][key])
            for namespace in catalog.interest for key in KEYS if catalog.interest[namespace][key]
        },
        "expected": {(space, key): found for space in "xy" for key in KEYS if (found := catalog.expected(space, key))},
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_replacing_is_building_anew(seed: int) -> None:
    choice, numbers = random.Random(seed), count(1)
    now = {path: operators(path, numbers, choice) for path in PATHS}
    catalog = build(one for path in PATHS for one in now[path])
    for _ in range(30):
        changed = choice.sample(PATHS, choice.randrange(1, 4))
        now |= {path: operators(path, numbers, choice) for path in changed}
        catalog.replace(changed, [one for path in changed for one in now[path]])
        assert picture(catalog) == picture(build(one for path in PATHS for one in now[path]))
    catalog.replace(PATHS, [])
    assert picture(catalog) == picture(build([]))
    for index in catalog.interest.values():  # nor is anything left behind that nobody can ask for
        assert (index._exact, index._root.next, index._wild) == ({}, {}, 0)
    assert not catalog.of_workflow


@pytest.mark.parametrize("pattern", ["a.b", "a.*", "a.**", "*.b"])
def test_what_was_not_added_cannot_be_taken_back(pattern: str) -> None:
    index = PatternIndex([("a.b", 1), ("a.*", 1), ("a.**", 1), ("*.b", 1)])
    with pytest.raises(ValueError, match="not in list"):
        index.remove(pattern, 2)
    assert index["a.b"] == [1, 1, 1, 1]
