"""The evaluator of SQL/JSON paths without a database says what Postgres says: random paths over random values."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgsig.condition import jsonpath
from pgsig.model import Json, Signal
from pgsig.store import signals
from pgsig.store.database import Connection
from pgsig.testing import WorkflowTest

KEYS = ("a", "b", "auc", "k y")
TEXTS = ("", "a", "ab", "1", "1.50", " 2e1 ", "x\n", "é", 'q"', "0.1.2")
numbers = (
    st.integers(-20, 20) | st.sampled_from([0.5, -1.25, 1e-7, 3.0, 123456789.125, 1e20, 0.1, 10**30]) | st.just(10**5)
)
scalars = st.none() | st.booleans() | numbers | st.sampled_from(TEXTS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(
    [".a", ".b", ".auc", '."k y"', ".*", "[*]", "[0]", "[1]", "[last]", "[0 to 1]", "[last - 1, 0]", "[-1]"]
)
methods = st.sampled_from([".size()", ".type()", ".double()", ".abs()", ".floor()", ".ceiling()"])
literals = st.sampled_from(
    ['"a"', '"ab"', '"1"', "1", "0", "-2", "1.5", "2e1", ".5", "0.10", "true", "false", "null", '"é"', '"\\u0061"']
)
comparisons = st.sampled_from(["==", "!=", "<>", "<", "<=", ">", ">="])
patterns = st.sampled_from(
    ["^a", "b$", "[0-9]+", "^[a-z]{1,2}$", "a|x", "\\\\d", "\\\\s", "^.$", "(a)b?", "^[^a]", "\\\\."]
)


@st.composite
def path(draw: st.DrawFn, base: str, depth: int) -> str:
    text = base + "".join(draw(st.lists(members, max_size=3)))
    if depth > 0 and draw(st.integers(0, 3)) == 0:
        text += f" ? ({draw(predicate('@', depth - 1))})" + "".join(draw(st.lists(members, max_size=1)))
    return text + (draw(methods) if draw(st.integers(0, 2)) == 0 else "")


@st.composite
def value(draw: st.DrawFn, base: str, depth: int) -> str:
    form = draw(st.integers(0, 7)) if depth > 0 else draw(st.integers(0, 3))
    if form <= 2:
        return draw(path(base, depth))
    if form == 3:
        return draw(literals)
    if form == 4:
        return f"-{draw(path(base, depth - 1))}"
    sign = draw(st.sampled_from("+-*/%"))
    text = f"({draw(value(base, depth - 1))} {sign} {draw(value(base, depth - 1))})"
    return text + (draw(methods) if form == 5 else "")


@st.composite
def predicate(draw: st.DrawFn, base: str, depth: int) -> str:
    form = draw(st.integers(0, 9)) if depth > 0 else draw(st.integers(0, 3))
    if form <= 2:
        return f"{draw(value(base, depth - 1))} {draw(comparisons)} {draw(value(base, depth - 1))}"
    if form == 3:
        return f"exists({draw(value(base, depth - 1))})"
    if form == 4:
        return f"{draw(path(base, 0))} starts with {draw(st.sampled_from(['a', '', '1'])).__repr__().replace(chr(39), chr(34))}"
    if form == 5:
        flag = draw(st.sampled_from(["", ' flag "i"', ' flag "q"']))
        return f'{draw(path(base, 0))} like_regex "{draw(patterns)}"{flag}'
    if form == 6:
        return f"!({draw(predicate(base, depth - 1))})"
    if form == 7:
        return f"({draw(predicate(base, depth - 1))}) is unknown"
    return f"({draw(predicate(base, depth - 1))}) {draw(st.sampled_from(['&&', '||']))} ({draw(predicate(base, depth - 1))})"


questions = st.tuples(values, predicate("$", 2), st.just(True)) | st.tuples(values, value("$", 2), st.booleans())


def ask(connection: Connection, asked: list[tuple[Json, str, bool]]) -> tuple[list[object], list[object]]:
    """What the evaluator says, and what Postgres says."""
    given_to = [
        (Signal(n, "default", "k", "", json.dumps(v), "me", datetime(2026, 1, 1, tzinfo=UTC)), path, predicate)
        for n, (v, path, predicate) in enumerate(asked)
    ]
    theirs = signals.ask(connection, given_to)
    ours: list[object] = [
        (jsonpath.holds if predicate else jsonpath.text_at)(path, s.value) for s, path, predicate in given_to
    ]
    return ours, [theirs[s.id, path] for s, path, _ in given_to]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=st.lists(questions, min_size=1, max_size=25))
def test_it_says_what_postgres_says(connection: Connection, asked: list[tuple[Json, str, bool]]) -> None:
    ours, theirs = ask(connection, asked)
    wrong = [(q, a, b) for q, a, b in zip(asked, ours, theirs, strict=True) if a != b or type(a) is not type(b)]
    assert wrong == []


def test_a_test_may_ask_a_database_what_only_postgres_reads(database: str) -> None:
    where = '$.day.datetime() > "2026-01-01".datetime()'
    document = {
        "workflow": "w",
        "operators": {"op": {"batch": {"command": ["true"]}, "start": {"signal": "a", "where": where}}},
    }
    with WorkflowTest(document, database=database) as t:
        t.emit("a", {"day": "2025-01-01"})
        t.emit("a", {"day": "2026-02-01"}, "late")
        assert t.actions == [("op", "START", "late", "recorded")]
