"""Why: the database's explanation and the core's are one, what it says would make a rule fire does, and every verdict is of the list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgsig.condition import dump, parse
from pgsig.decide.advance import levels_of
from pgsig.decide.explain import explain, render
from pgsig.decide.find import View
from pgsig.decide.state import RuleState
from pgsig.errors import NotFound
from pgsig.paths import room
from pgsig.store.database import Connection, connect
from pgsig.store.explain import Verdict, why, why_signal
from tests.flow.workshop import Workshop
from tests.support_core import operator

Json = Any


@pytest.fixture
def shop(connection: Connection, database: str) -> Iterator[Workshop]:
    with connect(database, name="engine") as other:
        yield Workshop(connection, other)


# ── random conditions over random signals ──

KEYS = ["a", "b", "c.d"]
VALUES: list[Json] = [None, 1, 2.5, 1e-7, "x", 'quote "\n', {"n": 3}, {"n": -0.25}, {"n": "t"}, [1.0, None, True]]
lengths = st.sampled_from(["500ms", "1h", "1d12h30m", "90s"])
labels: st.SearchStrategy[dict[str, Json]] = st.dictionaries(
    st.just("label"), st.sampled_from(["first", "näher"]), max_size=1
)
predicates: st.SearchStrategy[dict[str, Json]] = st.one_of(
    st.just({}),
    st.builds(lambda v: {"eq": v}, st.sampled_from(VALUES)),
    st.just({"where": "$.n > 1"}),
    st.just({"source": "me"}),
)
modes: st.SearchStrategy[dict[str, Json]] = st.sampled_from([
    {}, {}, {"latest": True}, {"changed": True}, {"count": 2}, {"count": 2, "distinct": "$.n"},
    {"sum": {"of": "$.n", "reaches": 5.5}},
])  # fmt: skip


@st.composite
def edges(draw: st.DrawFn) -> Json:
    return {"signal": draw(st.sampled_from([*KEYS, "c.*", "c.**"])), **draw(predicates), **draw(modes), **draw(labels)}


levels = st.builds(lambda key, more: {"signal": key, "sticky": True, **more}, st.sampled_from(KEYS), predicates)


def groups(parts: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    several = st.lists(parts, min_size=1, max_size=3)
    within = st.dictionaries(st.just("within"), lengths, max_size=1)
    windows = st.sampled_from([{}, {"window": "1d", "tz": "Europe/Berlin", "lateness": "10m"}, {"window": "1w"}, {"window": "6h"},
                               {"debounce": "10m"}, {"debounce": "1ms", "max_wait": "1h"}])  # fmt: skip
    kinds = st.sampled_from(["all", "any", "seq"])
    return st.one_of(
        st.builds(lambda kind, of, a, b, c: {kind: of, **a, **b, **c}, kinds, several, within, windows, labels),
        st.builds(lambda of, n: {"at_least": min(n, len(of)), "of": of}, several, st.integers(1, 3)),
        st.builds(lambda of, level: {"all": [*of, level]}, several, levels),
        st.builds(lambda of, level: {"all": [*of, {"not": level}]}, several, levels),
        st.builds(lambda of: {"all": [*of, {"absent": "b", "for": "5m", "after": "a"}]}, several),
    )


conditions = st.recursive(edges(), groups, max_leaves=6)
signals = st.lists(
    st.tuples(st.sampled_from([*KEYS, "c.d.e"]), st.sampled_from(VALUES), st.sampled_from(["", "s", "t"])), max_size=10
)


def by_python(connection: Connection, rule: int, condition: Json, subject: str) -> Json:
    """What the core says of one instance."""
    root, problems = parse(condition, operator="w.op")
    assert root is not None, problems
    rows = connection.execute(
        "SELECT subject, body FROM pgsig_private.rule_state WHERE rule_id = %s", [rule]
    ).fetchall()
    states = {name: RuleState.from_json(body) for name, body in rows}
    own = states.get(subject) or RuleState()
    return explain(root, View(own.pending, levels_of(own, states.get("")), own.clock))


def bare(tree: Json) -> Json:
    """A tree without what only the database adds."""
    return {
        name: [bare(child) for child in value] if name == "children" else value
        for name, value in tree.items()
        if name != "seen"
    }


def canonical(condition: Json) -> Json | None:
    """A condition as it is stored; None for one that is refused."""
    root, _ = parse(condition, operator="w.op")
    stored = None if root is None else dump(root)
    return stored if stored is not None and parse(stored, operator="w.op")[0] is not None else None


def renew(shop: Workshop, condition: Json, by: str) -> None:
    """One operator with one rule, and nothing else."""
    shop.connection.execute(
        "DELETE FROM pgsig_private.rule_state; DELETE FROM pgsig_private.timer; TRUNCATE pgsig_private.workflow CASCADE"
    )
    operator(shop.connection, "op", ("START", condition), by=by)


bounded = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@bounded
@given(conditions, signals, st.sampled_from(["subject", "none", "$.n"]))
def test_sql_and_python_explain_alike(
    shop: Workshop, condition: Json, events: list[tuple[str, Json, str]], by: str
) -> None:
    stored = canonical(condition)
    if stored is None:
        return
    renew(shop, stored, by)
    for key, value, subject in events:
        shop.emit(key, value, subject)
    shop.evaluate()
    for subject in ("", "s", "t", "3", "-0.25"):
        rule = why(shop.connection, "w.op", subject)["rules"][0]
        assert bare(rule["waiting"]) == by_python(shop.connection, rule["id"], stored, "" if by == "none" else subject)
        text = shop.call("SELECT pgsig_private.render(%s::jsonb)", json.dumps(rule["waiting"]))
        assert text == "\n".join(render(rule["waiting"]))
        assert rule["verdict"] in list(Verdict)
        assert rule["sentence"].startswith(rule["verdict"])


def distinct_keys(condition: Json, numbers: Iterator[int]) -> Json:
    """The same condition with a key of its own at each leaf, and no time in it."""
    if isinstance(condition, list):
        return [distinct_keys(part, numbers) for part in condition]
    fresh = {
        name: value
        for name, value in condition.items()
        if name not in ("within", "window", "tz", "lateness", "debounce", "max_wait")
    }
    for name in ("all", "any", "seq", "of", "not"):
        if name in fresh:
            fresh[name] = distinct_keys(fresh[name], numbers)
    return {**fresh, "signal": f"k{next(numbers)}"} if "signal" in fresh else fresh


own_keys = st.tuples(st.sampled_from([f"k{i}" for i in range(7)]), st.sampled_from(VALUES), st.sampled_from(["", "s"]))


@bounded
@given(conditions, st.lists(own_keys, max_size=8), st.sampled_from(["subject", "none"]))
@example({"signal": "a", "sum": {"of": "$.n", "reaches": 5.5}}, [("k0", {"n": -0.25}, "")], "none")
def test_what_would_make_it_happen_does(
    shop: Workshop, condition: Json, events: list[tuple[str, Json, str]], by: str
) -> None:
    stored = canonical(distinct_keys(condition, iter(range(1000))))
    if stored is None:
        return
    renew(shop, stored, by)
    for key, value, subject in events:
        shop.emit(key, value, subject)
    shop.evaluate()
    rule = why(shop.connection, "w.op", "s")["rules"][0]
    for line in rule["missing"]:
        for _ in range(line["times"]):
            shop.call(line["sql"])
    shop.evaluate()
    if rule["missing"]:
        after = why(shop.connection, "w.op", "s")["rules"][0]
        assert after["last"] is not None
        assert rule["last"] is None or after["last"]["id"] > rule["last"]["id"]


# ── verdicts ──


def sentence(shop: Workshop, operator: str = "w.op", subject: str = "") -> str:
    return str(why(shop.connection, operator, subject)["sentence"])


def test_a_predicate_that_is_false_and_one_that_cannot_be_decided_differ(shop: Workshop) -> None:
    shop.apply(op={"signal": "m", "where": "$.auc > 0.5"}, eq={"signal": "n", "eq": 5})
    for value, word in (
        ({"auc": 0.4}, "predicate_false"),
        ({"auc": "0.9"}, "predicate_type_error"),
        ({}, "predicate_false"),
    ):
        position = shop.emit("m", value)
        shop.evaluate()
        assert sentence(shop).startswith(
            f"{word}: signal {position} was {json.dumps(value)}, needed is m where $.auc > 0.5"
        )
    for other, word in ((4, "predicate_false"), ("5", "predicate_type_error")):
        shop.emit("n", other)
        shop.evaluate()
        assert sentence(shop, "w.eq").startswith(word)


def test_the_way_of_a_run_is_told(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    assert sentence(shop) == "never_matched: nothing has come since the rule was made in version 1"
    first = shop.emit("a")
    assert sentence(shop).startswith(f"not_evaluated: signal {first} was null")
    shop.evaluate()
    assert sentence(shop) == "no_runner: run 1 is queued, and no living runner serves the pool default"
    runner = shop.call(
        "SELECT pgsig_private.join_processes('runner', 'r', 'h', 1, '0', '{default}', 9, interval '1 hour')"
    )
    assert sentence(shop) == "queued: run 1 waits for a free place in the pool default"
    shop.call("SELECT count(*) FROM pgsig_private.claim(%s, '{default}', 1)", runner)
    assert sentence(shop) == f"started: action 1 by signals {first}, run 1 is starting"
    shop.emit("a")
    shop.evaluate()
    assert sentence(shop) == "queued: run 2 waits behind run 1, which is starting"


def test_what_the_rules_did_is_told(shop: Workshop) -> None:
    shop.apply(
        op={
            "streaming": {"command": ["true"]},
            "start": [{"signal": "a"}, {"signal": "b"}],
            "stop": {"signal": "c"},
            "reload": {"signal": "d"},
        }
    )
    words = []
    for key in ("d", "c", "a", "b", "d"):
        shop.emit(key)
        shop.evaluate()
        words.append(sentence(shop).split(":")[0])
    assert words == ["not_running", "already_stopped", "no_runner", "already_running", "reloaded"]
    shop.emit("c")
    shop.evaluate()
    assert sentence(shop).startswith("stopped: action 6")
    shop.call("SELECT pgsig.act('w.op', 'START', reason => 'try it', source => 'ann')")
    shop.evaluate()
    shop.connection.execute(
        "UPDATE pgsig_private.run SET state = 'starting', runner_id = 1, slot = 0 WHERE state = 'queued'"
    )
    assert sentence(shop) == "by_hand: action 7, START, recorded, by hand, ann: try it, run 7 is starting"


def test_a_rule_that_loses_says_so(shop: Workshop) -> None:
    shop.apply(op={"streaming": {"command": ["true"]}, "start": {"signal": "a"}, "stop": {"signal": "a"}})
    shop.emit("a")
    shop.evaluate()
    rules = {rule["action"]: rule["verdict"] for rule in why(shop.connection, "w.op")["rules"]}
    assert rules == {"START": "outranked", "STOP": "already_stopped"}


def test_time_is_told(shop: Workshop) -> None:
    shop.apply(
        quiet={"signal": "a", "debounce": "1h"}, short={"all": [{"signal": "a"}, {"signal": "b"}], "within": "1ms"}
    )
    shop.emit("a")
    shop.evaluate()
    assert re.fullmatch(r"debounced: it acts at \d{4}-.* UTC if nothing more comes", sentence(shop, "w.quiet"))
    shop.connection.execute(
        "UPDATE pgsig_private.timer SET due_at = clock_timestamp() - interval '1 s' WHERE due_at < clock_timestamp() + interval '1 min'"
    )
    shop.engine.fire_timers()
    shop.evaluate()
    assert sentence(shop, "w.short").startswith("window_expired: signal 1 was null")


def test_waiting_and_pauses_are_told(shop: Workshop) -> None:
    shop.apply(op={"all": [{"signal": "a"}, {"signal": "b", "label": "the other"}]})
    shop.emit("a", subject="s")
    shop.evaluate()
    assert sentence(shop, subject="s") == "waiting (1 of 2) for b"
    assert sentence(shop).startswith("not_for_it: signal 1 was null, needed is a; it counts for s only")
    shop.call("SELECT pgsig.pause('w.op')")
    shop.emit("b", subject="s")
    shop.evaluate()
    answer = why(shop.connection, "w.op", "s")
    assert answer["sentence"] == "paused (hold): 1 signal is held until it is resumed"
    assert (answer["paused"], answer["rules"][0]["missing"]) == ("hold", [])


def test_one_text_for_all(shop: Workshop) -> None:
    shop.apply(op={"signal": "a", "eq": "it's"})
    text = shop.call("SELECT pgsig.why('w.op', subject => 'x y')")
    assert text == why(shop.connection, "w.op", "x y")["text"]
    assert """SELECT pgsig.emit('a', '"it''s"', subject => 'x y');""" in text
    assert """pgsig emit a '"it'"'"'s"' --subject 'x y'""" in text
    assert "last: never" in text


def test_a_long_value_that_was_seen_is_cut_and_says_so(shop: Workshop) -> None:
    shop.apply(op={"signal": "a", "eq": 5})
    for value, shown in (("x" * 200, '"' + "x" * 99 + "…"), ("x" * 98, '"' + "x" * 98 + '"')):
        shop.emit("a", value)
        shop.evaluate()
        assert f"last seen: {shown} in signal" in shop.call("SELECT pgsig.why('w.op')")


def test_an_unknown_operator_is_refused(shop: Workshop) -> None:
    with pytest.raises(NotFound, match="PS201"):
        why(shop.connection, "w.nothing")


def test_a_reader_may_ask_and_nobody_else(shop: Workshop) -> None:
    shop.apply(op={"signal": "a"})
    shop.connection.execute("SET ROLE pgsig_reader")
    try:
        assert "never_matched" in shop.call("SELECT pgsig.why('w.op')")
    finally:
        shop.connection.execute("RESET ROLE")


def test_the_list_of_verdicts_is_closed() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (room("sql") / "api").glob("6*.sql"))
    said = set(re.findall(r"\('verdict', '(\w+)'", text)) | set(
        re.findall(r"(?:THEN|ELSE) '(\w+)'", text.partition("v_word := CASE")[2].partition("END IF;")[0])
    )
    assert said <= set(Verdict)
    results = {
        "already_running",
        "already_stopped",
        "not_running",
        "merged",
        "skipped",
        "outranked",
        "limited",
        "shadow",
    }
    unsaid = set(Verdict) - said - results - {"started", "stopped", "reloaded"}
    assert unsaid == set()


# ── one signal ──


def test_what_a_signal_did_or_why_not(shop: Workshop) -> None:
    old = shop.emit("model.trained")
    shop.apply(
        one={"signal": "model.trained", "where": "$.auc > 0.5"},
        two={"all": [{"signal": "model.*"}, {"signal": "b"}]},
        three={"signal": "model.trained", "source": "ci"},
    )

    def told(position: int) -> dict[str, str]:
        answer = why_signal(shop.connection, position)
        return {rule["operator"]: rule["text"] for rule in answer["rules"]}

    assert set(told(old).values()) == {"it came before the rule was made"}
    new = shop.emit("model.trained", {"auc": "x"}, "m")
    assert told(new)["two"] == "no worker has evaluated it yet"
    shop.evaluate()
    assert told(new) == {
        "one": "it cannot be compared, a text is not a number",
        "two": "waited with, until the rest of the condition comes (for m)",
        "three": "it is of another source",
    }
    used = shop.emit("model.trained", {"auc": 0.9}, "m")
    shop.evaluate()
    assert told(used)["one"] == "consumed, by action 1 (for m)"
    assert why_signal(shop.connection, shop.emit("model.train"))["rules"] != []
    typo = why_signal(shop.connection, shop.emit("modle.trained"))
    assert (typo["rules"], typo["near"]) == ([], ["model.trained"])
    assert typo["text"].endswith("no rule is interested in this key\n  did you mean model.trained?")
