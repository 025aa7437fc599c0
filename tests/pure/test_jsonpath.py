"""SQL/JSON paths without a database: the corners that are easily got wrong, and what is refused. What Postgres says: tests/store."""

from __future__ import annotations

import pytest

from pgsig.condition.jsonpath import check, holds, text_at
from pgsig.condition.numeric import Number
from pgsig.errors import PgsigError


@pytest.mark.parametrize(("path", "value", "says"), [
    ("$.auc > 0.5", '{"auc": 0.9}', True), ("$.auc > 0.5", '{"auc": "0.9"}', None), ("$.auc > 0.5", "{}", False),
    ("$.a == null", '{"a": null}', True), ("$.a == null", '{"a": 1}', False), ("$.a != null", '{"a": 1}', True),
    ("$.a == 1", '{"a": 1.0}', True), ("$.a == true", '{"a": 1}', None), ("$.a", '{"a": true}', True), ("$.a", '{"a": 1}', None),
    ("$.a > 2", '{"a": [1, 3]}', True), ("$.a > 2", '{"a": ["x", 3]}', True), ("$.a > 2", '{"a": ["x", 1]}', None),
    ("$.a == 1", '[{"a": 1}]', True), ("$.a == 1", '[[{"a": 1}]]', False), ("$[0] == 1", "1", True), ("$.a / 0 > 1", '{"a": 1}', None),
    ("$.a + 1 > 1", "{}", None), ("!($.a == 1)", '{"a": "x"}', None), ("($.a == 1) is unknown", '{"a": "x"}', True),
    ("exists($.a ? (@ > 1))", '{"a": [0, 2]}', True), ("exists($.a.double())", '{"a": ["1", "x"]}', True),
    ("exists($.a.double())", '{"a": ["x", "1"]}', None), ('$.a starts with "ab"', '{"a": "abc"}', True),
    ('$.a like_regex "^A" flag "i"', '{"a": "abc"}', True), ('$.a like_regex "a.c"', '{"a": "a\\nc"}', False),
    ('$.a like_regex "a.c" flag "q"', '{"a": "abc"}', False), ("$.a.size() == 2", '{"a": [1, 2]}', True),
    ("$.a[*].size() == 1", '{"a": 5}', True), ('$.a.type() == "array"', '{"a": []}', True), ("$[last] == 3", "[1, 2, 3]", True),
    ("$[last - 1 to last] == 2", "[1, 2, 3]", True), ("$[5] == 1", "[1]", False), ("lax $.a == 1", '{"a": 1}', True),
    ('$."k y" == 1', '{"k y": 1}', True), ("$.* == 2", '{"a": 1, "b": 2}', True), ("$.a <> 1 && $.b == 2 || $.c == 3", '{"c": 3}', True),
    ("-$.a < 0", '{"a": [1, 2]}', True), ("$.a.abs() == 2", '{"a": -2}', True), ("1.5.floor() == 1", "{}", PgsigError),
])  # fmt: skip
def test_truths(path: str, value: str, says: object) -> None:
    if says is PgsigError:
        with pytest.raises(PgsigError, match="PS570"):
            holds(path, value)
    else:
        assert holds(path, value) is says


@pytest.mark.parametrize(("path", "value", "text"), [
    ("$.a", '{"a": "x"}', "x"), ("$.a", '{"a": 1.50}', "1.50"), ("$.a", '{"a": 1e3}', "1000"), ("$.a", '{"a": null}', None),
    ("$.b", "{}", None), ("$", '{"bb": [1, true], "a": "é"}', '{"a": "é", "bb": [1, true]}'), ("$.a[*]", '{"a": [2, 3]}', "2"),
    ("$.a / 3", '{"a": 1}', "0.33333333333333333333"), ("$.a.double()", '{"a": "1e2"}', "100"), ("$.a[*].double()", '{"a": [1, "x"]}', "1"),
])  # fmt: skip
def test_texts(path: str, value: str, text: str | None) -> None:
    assert text_at(path, value) == text


@pytest.mark.parametrize(("path", "part"), [
    ("strict $.a == 1", "strict mode"), ("$.a.datetime() > 1", r"\.datetime\(\)"), ("$.** == 1", r"\*\*"), ("$x == 1", r"\$x"),
    ('$ like_regex "a{2,}?(?=b)"', "regular expression"), ('$ like_regex "a" flag "x"', "flags"), ("$.a ==", "no end"), ("", "no end"),
    ("$.a && $.b", "a predicate is needed"), ("($.a == 1) + 1 == 2", "a value is needed"), ("$.a == 0x1F", "number"),
    ('"\\ud800" == $.a', "surrogate"), ("!$.a", "without parentheses"), ("$[last", r"no '\]'"), ("last == 1", "last outside"),
    ("(" * 60 + "1" + ")" * 60 + " == 1", "levels"), ("-" * 60 + "1 == 1", "levels"), ("$.a == 1 == true", "'=='"),
])  # fmt: skip
def test_what_only_postgres_reads_is_refused_by_name(path: str, part: str) -> None:
    with pytest.raises(PgsigError, match=f"PS570 .*{part}.*database"):
        holds(path, '"ab"')


def test_check_needs_no_value() -> None:
    check("$.a > 1")
    with pytest.raises(PgsigError, match="PS570"):
        check("$.a.keyvalue().key == 1")


@pytest.mark.parametrize(("a", "sign", "b", "text"), [
    ("1", "/", "3", "0.33333333333333333333"), ("10", "/", "4", "2.5000000000000000"), ("-7", "%", "3", "-1"), ("1.50", "+", "1", "2.50"),
    ("1.5", "*", "1.50", "2.250"), ("1e-3", "-", "1", "-0.999"), ("123456789", "/", "7", "17636684.142857142857"),
    ("0", "/", "5", "0.00000000000000000000"),
])  # fmt: skip
def test_numbers_are_those_of_postgres(a: str, sign: str, b: str, text: str) -> None:
    x, y = Number.read(a), Number.read(b)
    assert (
        str(
            {"/": lambda: x / y, "%": lambda: x % y, "+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y}[sign]()
        )
        == text
    )
