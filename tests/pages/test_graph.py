"""The layout and the picture: pure functions, the same answer for the same question."""

from __future__ import annotations

import random
import re
from typing import Any

from pgsig.pages.graph import GAP_Y, Box, layout
from pgsig.pages.scene import MOST, scene


def boxes(names: str) -> list[Box]:
    return [Box(name, 60, 26) for name in names]


def test_a_chain_goes_from_left_to_right_on_one_line() -> None:
    drawing = layout(boxes("cab"), [("a", "b"), ("b", "c")])
    a, b, c = (drawing.nodes[name] for name in "abc")
    assert a.x + a.width < b.x < b.x + b.width < c.x
    assert a.y == b.y == c.y


def test_nothing_overlaps_and_everything_is_inside() -> None:
    chance = random.Random(7)
    for _ in range(40):
        names = [f"n{i}" for i in range(chance.randint(1, 25))]
        edges = [(chance.choice(names), chance.choice(names)) for _ in range(chance.randint(0, 40))]
        drawing = layout([Box(name, chance.randint(20, 160), chance.choice((26, 48))) for name in names], edges)
        placed = list(drawing.nodes.values())
        assert len(drawing.paths) == len(edges)
        for i, one in enumerate(placed):
            assert min(one.x, one.y) >= 0
            assert one.x + one.width <= drawing.width
            assert one.y + one.height <= drawing.height
            for other in placed[i + 1 :]:
                apart_x = one.x + one.width <= other.x or other.x + other.width <= one.x
                apart_y = one.y + one.height + GAP_Y - 2 <= other.y or other.y + other.height + GAP_Y - 2 <= one.y
                assert apart_x or apart_y, (one, other)


def test_the_same_input_gives_the_same_picture() -> None:
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("a", "d"), ("d", "d"), ("e", "c")]
    assert layout(boxes("abcde"), edges) == layout(boxes("abcde"), edges)


def test_a_circle_and_a_loop_end() -> None:
    drawing = layout(boxes("ab"), [("a", "b"), ("b", "a"), ("a", "a")])
    assert drawing.nodes["a"].x < drawing.nodes["b"].x
    assert all(re.fullmatch(r"M[-0-9 MCHc.]+", path) for path in drawing.paths)


def test_an_order_without_crossings_is_found() -> None:
    drawing = layout(boxes("abcxyz"), [("a", "z"), ("b", "y"), ("c", "x")])
    left = sorted("abc", key=lambda name: drawing.nodes[name].y)
    right = sorted("xyz", key=lambda name: drawing.nodes[name].y)
    assert [{"a": "z", "b": "y", "c": "x"}[name] for name in left] == right


def test_an_empty_picture() -> None:
    assert layout([], []).nodes == {}


def operator(number: int, name: str, kind: str = "batch", observed: str = "running") -> dict[str, Any]:
    return {
        "operator_id": number, "namespace": "default", "workflow": "w", "operator": name, "kind": kind,
        "instances": [{"observed": observed, "subject": ""}],
    }  # fmt: skip


def rule(number: int, action: str, condition: Any) -> dict[str, Any]:
    return {"operator_id": number, "operator": f"op{number}", "action": action, "condition": condition}


def test_rules_and_emissions_become_edges() -> None:
    picture = scene(
        [operator(1, "train", "streaming"), operator(2, "serve", "streaming")],
        [
            rule(1, "START", {"cron": "0 2 * * *", "tz": "Europe/Berlin"}),
            rule(
                2, "RELOAD", {"all": [{"signal": "model.*", "eq": "ok"}, {"not": {"signal": "freeze", "sticky": True}}]}
            ),
            rule(
                2,
                "RESTART",
                {"any": [{"signal": "run.w.train.failed"}, {"at_least": 2, "of": [{"signal": "a"}, {"signal": "b"}]}]},
            ),
        ],
        [{"operator_id": 1, "key": "model.trained"}, {"operator_id": 2, "key": "served"}],
    )
    names = {node.name: node.text for node in picture.nodes}
    edges = {(names[edge.source], edge.kind, names[edge.target]) for edge in picture.edges}
    assert edges == {
        ("every day at 02:00", "start", "train"), ("model.*", "reload", "serve"), ("freeze", "holds", "serve"),
        ("train failed", "restart", "serve"), ("a", "restart", "serve"), ("b", "restart", "serve"),
        ("train", "emits", "model.*"), ("serve", "emits", "served"), ("train", "emits", "train failed"),
    }  # fmt: skip
    words = next(edge.words for edge in picture.edges if edge.kind == "reload")
    assert words == 'RELOAD serve when model.* = "ok" and not freeze as a level'


def test_a_picture_has_an_end() -> None:
    picture = scene([operator(i, f"op{i}") for i in range(MOST + 5)], [], [])
    assert (len(picture.nodes), picture.left_out) == (MOST, 5)
