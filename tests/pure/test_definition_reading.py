"""Reading definition files: YAML without its surprises, JSON as strict, and nothing that runs, grows or
recurses.
"""

from __future__ import annotations

from typing import Any

import pytest

from pgsig.definition import parse
from pgsig.definition.reading import LARGEST, read_text
from pgsig.errors import InvalidInput


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("true", True), ("False", False), ("~", None), ("", None), ("12", 12), ("-1.5", -1.5), ("1.0e+3", 1000.0)),
        *(("1h30m", "1h30m"), ("2027-01-31", "2027-01-31"), ("2027-01-31T09:00:00", "2027-01-31T09:00:00")),
        *(("y", "y"), ('"on"', "on"), ("'010'", "010"), ("!!str 12", "12"), ("yes please", "yes please")),
        *(("[a, b]", ["a", "b"]), ("{a: {b: 1}}", {"a": {"b": 1}}), ("1.2.3", "1.2.3")),
    ],
)
def test_yaml_has_the_types_of_json(value: str, expected: Any) -> None:
    document, source = read_text(f"a: {value}")
    assert document == {"a": expected}
    assert source.problems == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *(
            (word, f'write "{word}"')
            for word in (
                "on",
                "Off",
                "yes",
                "NO",
                "010",
                "0x1f",
                "1:30",
                "12:30:00",
                "1_000",
                ".inf",
                "+5",
                ".5",
                "1e3",
                "1.",
                "123e4567",
                "1.5e3",
            )
        ),
        *(("!foo x", "!foo"), ("!!python/object:os.system x", "!!python/object:os.system"), ("&x [*x]", "levels")),
        *(
            ("{1: x}", 'write "1"'),
            ("{on: x}", 'write "on"'),
            ("{<<: {b: 1}}", "merge keys"),
            ("{[1]: x}", "a key is a text"),
        ),
        *(
            ("{b: 1, b: 2}", "there twice"),
            ("1" * 401, "too large"),
            ("1.0e+999", "too large"),
            ("!!binary aGk=", "!!binary"),
        ),
    ],
)
def test_what_yaml_would_guess_or_run_is_refused(value: str, said: str) -> None:
    _, source = read_text(f"a: {value}")
    assert len(source.problems) == 1
    assert said in str(source.locate(source.problems[0]))


def test_aliases_may_be_used_but_not_to_grow_without_bound() -> None:
    assert read_text("a: &x [1, 2]\nb: *x")[0] == {"a": [1, 2], "b": [1, 2]}
    bomb = (
        "a: &a ["
        + ",".join("1" * 9)
        + "]\n"
        + "".join(
            f"{name}: &{name} [{','.join(f'*{before}' for _ in range(9))}]\n"
            for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        )
    )
    _, source = read_text(bomb)
    assert ["20000 values" in problem.message for problem in source.problems] == [True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "line 1, column 5"),
        ("a: 1\n--- 2", "another document"),
        ("[" * 5000, "nested"),
        ("a: *nobody", "undefined alias"),
        ("\ta: 1", "not YAML"),
        ("a: \x07", "not YAML"),
        ("#" * (LARGEST + 1), "1 MiB"),
    ],
)
def test_a_text_that_is_no_yaml_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_text(text)
    assert said in str(refused.value)
    assert refused.value.code == "PS520"


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_text(b"a: \xff")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('{"workflow": "w", "workflow": "v"}', "PS521", "twice"),
        ('{"workflow": NaN}', "PS526", "NaN"),
        ('{"workflow": }', "PS520", "line 1"),
        ('{"workflow": "w", "operators": {"a": {"batch": {"command": ["x", "\\u0000"]}}}}', "PS526", "NUL"),
        ('{"workflow": "w", "operators": {"a": {"batch": {"command": ["\\ud83d"]}}}}', "PS526", "surrogate"),
        ("[" * 100_000, "PS520", "nested"),
    ],
)
def test_json_is_as_strict(text: str, code: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(*read_text(text, is_json=True))
    problems = refused.value.problems
    assert problems[0].code == code
    assert said in str(problems[0])
