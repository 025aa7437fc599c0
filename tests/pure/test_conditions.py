"""What each form of the language means: when it is true, and what it consumes."""

from __future__ import annotations

from typing import Any

import pytest

from pgsig.condition import dump, parse
from tests.pure.workbench import Bench, fired, operator

FREEZE = {"not": {"signal": "freeze", "sticky": True, "eq": "on"}}


def test_an_edge_fires_at_each_match_and_consumes_it() -> None:
    assert fired({"signal": "a"}, "a", "b", "a") == [[(1,)], [], [(3,)]]


@pytest.mark.parametrize(
    ("pattern", "key", "met"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.**", "a", True),
        ("a.**", "a.b.c", True),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
    ],
)
def test_wildcards_stand_for_segments(pattern: str, key: str, met: bool) -> None:
    assert bool(fired({"signal": pattern}, key)[0]) is met


@pytest.mark.parametrize(
    ("wanted", "value", "met"),
    [
        ("on", "on", True),
        (1, 1.0, True),
        (True, 1, False),
        (1, True, False),
        (None, None, True),
        (None, 0, False),
        ({"a": [1]}, {"a": [1.0]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)  # fmt: skip
def test_eq_compares_as_jsonb_does(wanted: Any, value: Any, met: bool) -> None:
    assert bool(fired({"signal": "a", "eq": wanted}, ("a", value))[0]) is met


def test_all_waits_for_every_part_in_any_order_and_starts_anew() -> None:
    # AI-Flow's MeetAll stayed true for ever after a, b; here each firing takes a fresh pair.
    condition = {"all": [{"signal": "a"}, {"signal": "b"}]}
    assert fired(condition, "a", "b", "a", "a", "b") == [[], [(1, 2)], [], [], [(3, 5)]]
    assert fired(condition, "b", "a") == [[], [(1, 2)]]


def test_nothing_is_lost_while_a_part_is_missing() -> None:
    assert fired({"all": [{"signal": "a"}, {"signal": "b"}]}, "a", "a", "b", "b") == [[], [], [(1, 3)], [(2, 4)]]


def test_any_takes_the_part_that_was_true_first() -> None:
    condition = {"all": [{"any": [{"signal": "a"}, {"signal": "b"}]}, {"signal": "c"}]}
    assert fired(condition, "b", "a", "c", "c") == [[], [], [(1, 3)], [(2, 4)]]


def test_at_least_takes_the_parts_that_were_complete_first() -> None:
    condition = {"at_least": 2, "of": [{"signal": "a"}, {"signal": "b"}, {"signal": "c"}]}
    assert fired(condition, "c", "a", "b") == [[], [(1, 2)], []]


def test_seq_goes_by_position() -> None:
    condition = {"seq": [{"signal": "a"}, {"signal": "b"}]}
    assert fired(condition, "b", "a", "b") == [[], [], [(2, 3)]]
    assert fired({"seq": [{"signal": "a"}, {"signal": "a"}]}, "a", "a", "a") == [[], [(1, 2)], []]


def test_latest_forgets_what_came_before() -> None:
    condition = {"all": [{"signal": "config", "latest": True}, {"signal": "go"}]}
    bench = Bench(operator(("START", condition)))
    assert [bench.emit(key) for key in ("config", "config", "go")] == [[], [], [(2, 3)]]
    assert bench.fates() == [(1, "superseded"), (2, "consumed"), (3, "consumed")]


def test_latest_with_a_predicate_is_unmet_by_a_newer_value() -> None:
    condition = {"all": [{"signal": "v", "latest": True, "eq": "pass"}, {"signal": "go"}]}
    assert fired(condition, ("v", "pass"), ("v", "retry"), "go", ("v", "pass")) == [[], [], [], [(3, 4)]]


def test_changed_is_an_edge_where_the_value_differs_for_its_key_and_subject() -> None:
    assert fired({"signal": "a", "changed": True}, ("a", 1), ("a", 1), ("a", 2), ("a", 1)) == [
        [(1,)],
        [],
        [(3,)],
        [(4,)],
    ]
    assert fired({"signal": "a.*", "changed": True}, ("a.x", 1), ("a.y", 1), ("a.x", 1)) == [[(1,)], [(2,)], []]


def test_count_takes_so_many_oldest_first() -> None:
    assert fired({"signal": "a", "count": 3}, "a", "a", "a", "a", "a", "a") == [
        [],
        [],
        [(1, 2, 3)],
        [],
        [],
        [(4, 5, 6)],
    ]


def test_within_lets_older_parts_expire() -> None:
    bench = Bench(operator(("START", {"all": [{"signal": "a"}, {"signal": "b"}], "within": "10s"})))
    assert bench.emit("a", at=100) == []
    assert bench.emit("b", at=111) == []
    assert bench.emit("a", at=120) == [(2, 3)]
    assert bench.fates() == [(1, "expired"), (2, "consumed"), (3, "consumed")]


def test_a_level_holds_back_and_lets_go_of_everything_that_waited() -> None:
    condition = {"all": [{"signal": "a"}, FREEZE]}
    events = [("freeze", "on"), "a", "a", ("freeze", "off"), "a"]
    assert fired(condition, *events) == [[], [], [], [(2,), (3,)], [(5,)]]


def test_a_level_without_subject_holds_for_every_instance() -> None:
    condition = {"all": [{"signal": "a"}, FREEZE]}
    bench = Bench(operator(("START", condition)))
    bench.emit("freeze", "on")
    assert bench.emit("a", None, "x") == bench.emit("a", None, "y") == []
    assert bench.emit("freeze", "off", "x") == [(2,)]  # newer, and x's own
    assert bench.emit("freeze", "off") == [(3,)]
    assert [key for key in bench.states if key[1] == "y"] == []  # nothing left to remember of y


def test_customer_a_never_joins_customer_b() -> None:
    condition = {"all": [{"signal": "a"}, {"signal": "b"}]}
    assert fired(condition, ("a", 1, "A"), ("b", 1, "B"), ("b", 1, "A")) == [[], [], [(1, 3)]]


def test_by_none_makes_one_instance_of_all_subjects() -> None:
    condition = {"all": [{"signal": "a"}, {"signal": "b"}]}
    assert fired(condition, ("a", 1, "A"), ("b", 1, "B"), by="none") == [[], [(1, 2)]]


def test_by_path_correlates_on_a_field_of_the_value() -> None:
    bench = Bench(operator(("START", {"all": [{"signal": "a"}, {"signal": "b"}]}), by="$.id"))
    signals = [bench.signal("a", {"id": 7}), bench.signal("b", {"id": 8}), bench.signal("b", {"id": 7})]
    answers = {(1, "$.id"): "7", (2, "$.id"): "8", (3, "$.id"): "7"}
    orders = bench.feed(signals, answers).orders
    assert [(order.evidence, order.subject) for order in orders] == [((1, 3), "7")]


def test_a_predicate_that_cannot_be_decided_is_not_met() -> None:
    bench = Bench(operator(("START", {"signal": "a", "where": "$.x > 1"})))
    signals = [bench.signal("a", {"x": 2}), bench.signal("a", {"x": "?"})]
    assert [o.evidence for o in bench.feed(signals, {(1, "$.x > 1"): True, (2, "$.x > 1"): None}).orders] == [(1,)]


ROUND_TRIPS: list[Any] = [
    {"signal": "a.*", "eq": None, "label": "x"},
    {"signal": "a", "where": "$.auc > 0.5", "source": "s", "subject": "u", "latest": True},
    {"signal": "a", "count": 3, "within": "1h30m"},
    {"all": [{"signal": "a"}, FREEZE], "within": "500ms"},
    {"at_least": 1, "of": [{"signal": "a"}, {"seq": [{"signal": "b"}, {"signal": "c"}]}]},
    {
        "any": [
            {"cron": "30 2 * * mon-fri", "tz": "Europe/Berlin"},
            {"every": "1d"},
            {"at": "2027-01-31T09:00:00", "tz": "UTC"},
        ]
    },
]


@pytest.mark.parametrize("tree", ROUND_TRIPS)
def test_canonical_json_survives_a_round_trip(tree: Any) -> None:
    node, problems = parse(tree, operator="w.o")
    assert problems == []
    assert node is not None
    assert dump(node) == tree


MISTAKES: list[tuple[Any, list[tuple[str, str]]]] = [
    ("a", [("PS501", "")]),
    ({}, [("PS501", "")]),
    ({"signal": "a", "all": []}, [("PS501", "")]),
    ({"signal": "A*"}, [("PS505", "/signal")]),
    ({"signal": "**"}, [("PS505", "/signal")]),
    ({"signal": "*.*"}, [("PS505", "/signal")]),
    ({"signal": "a.**.b"}, [("PS505", "/signal")]),
    ({"signal": "a", "equals": 1, "count": 0}, [("PS502", "/equals"), ("PS503", "/count")]),
    ({"signal": "a", "latest": True, "sticky": True}, [("PS506", "")]),
    ({"all": []}, [("PS507", "/all")]),
    (
        {"all": [{"not": {"signal": "a"}}, {"signal": "b", "within": "soon"}]},
        [("PS504", "/all/0/not"), ("PS506", "/all/1/within"), ("PS503", "/all/1/within")],
    ),
    ({"not": {"signal": "a", "sticky": True}}, [("PS509", "")]),
    ({"any": [{"signal": "a"}, FREEZE]}, [("PS506", "/any")]),
    ({"at_least": 3, "of": [{"signal": "a"}]}, [("PS503", "/at_least")]),
    ({"cron": "0 0 30 2 *"}, [("PS512", "/cron")]),
    ({"cron": "61 * * * *", "tz": "Mars/North"}, [("PS511", "/tz"), ("PS510", "/cron")]),
    ({"every": "-5m"}, [("PS503", "/every")]),
]


@pytest.mark.parametrize(("tree", "expected"), MISTAKES)
def test_every_mistake_is_found_at_once_with_its_place(tree: Any, expected: list[tuple[str, str]]) -> None:
    node, problems = parse(tree, operator="w.o")
    assert node is None
    assert [(problem.code, problem.where) for problem in problems] == expected


def test_a_bomb_of_nesting_is_refused() -> None:
    tree: Any = {"signal": "a"}
    for _ in range(300):
        tree = {"all": [tree]}
    assert [problem.code for problem in parse(tree, operator="w.o")[1]] == ["PS508"]
