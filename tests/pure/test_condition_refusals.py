"""What is refused, in which words, and what just passes: messages are what people get to see, so they are pinned whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsig.condition import dump, parse

A = {"signal": "a"}


def nested(depth: int) -> Any:
    tree: Any = A
    for _ in range(depth):
        tree = {"all": [tree]}
    return tree


def told() -> Iterator[tuple[Any, list[str]]]:
    """(condition, what is said of it): a line of JSON, and indented below it a line for each problem."""
    text = (Path(__file__).parent / "refusals.txt").read_text(encoding="utf-8")
    for block in re.split(r"\n(?=\S)", text.strip()):
        tree, *said = block.split("\n    ")
        yield json.loads(tree), said


REFUSED = [
    *told(),
    ({"any": [A] * 101}, ["PS508 /x/any: any has at most 100 parts (split the rule)"]),
    (nested(33), ["PS508 /x" + "/all/0" * 33 + ": conditions nest at most 32 deep (split the rule)"]),
]


@pytest.mark.parametrize(("tree", "said"), REFUSED)
def test_a_mistake_is_told_with_its_place_and_its_way_out(tree: Any, said: list[str]) -> None:
    node, problems = parse(tree, operator="w.o", where="/x")
    assert node is None
    assert [f"{p.code} {p.where}: {p.message}" + (f" ({p.fix})" if p.fix else "") for p in problems] == said


ACCEPTED: list[Any] = [
    {'signal': 'a'},
    {'signal': 'a', 'label': "x" * 100},
    {'signal': 'a', 'count': 10000},
    {'signal': 'a', 'sum': {'of': '$.n', 'reaches': 0.5}},
    {'signal': 'a', 'debounce': '1s', 'max_wait': '1s'},
    {'signal': 'a', 'window': '7d'},
    {'signal': 'a', 'window': '1m', 'tz': 'Europe/Berlin', 'lateness': '1ms'},
    {'at_least': 1, 'of': [{'signal': 'a'}]},
    {'at_least': 2, 'of': [{'signal': 'a'}, {'signal': 'a'}]},
    {'signal': 'a', 'met_by': 'o.f'},
    {'signal': 'a', 'latest': True},
    {'signal': 'a', 'changed': True},
    {'signal': 'm', 'sticky': True},
    {"all": [A] * 100},
    {'all': [{'not': {'all': [{'signal': 'm', 'sticky': True}, {'signal': 'm', 'sticky': True}]}}, {'signal': 'a'}]},
    {'seq': [{'signal': 'a'}, {'signal': 'a'}], 'label': 'y', 'within': '1s'},
    {'all': [{'signal': 'a'}, {'any': [{'signal': 'm', 'sticky': True, 'eq': 1}, {'signal': 'm', 'sticky': True, 'eq': 2}]}]},
    {'all': [{'absent': 'a', 'for': '1s', 'label': 'q'}, {'not': {'signal': 'm', 'sticky': True}, 'label': 'n'}]},
    {'every': '1h', 'label': 'z'},
    {'signal': 'a.*.*.*.*.*.*.*.*'},
    {'signal': "a" * 200},
    {'signal': 'a', 'where': '$ > 1', 'source': 's', 'subject': 'u', 'eq': None},
    {'signal': 'a', 'count': 2, 'distinct': '$.x', 'within': '10s'},
    {'signal': 'a', 'sum': {'of': '$.n', 'reaches': 3}, 'within': '10s'},
    nested(32),
]  # fmt: skip


@pytest.mark.parametrize("tree", ACCEPTED)
def test_what_just_passes_is_kept_as_it_is(tree: Any) -> None:
    node, problems = parse(tree, operator="w.o")
    assert problems == []
    assert node is not None
    assert dump(node) == tree
