"""The published JSON Schema: what the parser takes validates, a mistake of structure does not; and documents survive every front end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pgsig import Condition, Workflow, absent, all_of, any_of, at, at_least, cron, every, seq, signal
from pgsig.cli import run
from pgsig.definition import parse
from pgsig.definition.reading import read_text
from pgsig.definition.schema import build, text, written
from pgsig.errors import InvalidInput
from pgsig.paths import PACKAGE
from tests.pure import test_definition_options, test_definition_refusals
from tests.pure.test_definition import EXAMPLE
from tests.pure.test_definition_python import recommender, values

SCHEMA = json.loads(text())
VALIDATOR = Draft202012Validator(SCHEMA)
EXAMPLES = [PACKAGE / "demo" / "workflow.yaml", *sorted((PACKAGE / "cli" / "templates").rglob("workflow.yaml"))]


def op(**body: Any) -> dict[str, Any]:
    return {"workflow": "w", "operators": {"op": {"batch": {"command": ["x"]}, **body}}}


def test_the_file_is_what_is_built_and_a_schema() -> None:
    assert text() == written(), "run: python -m pgsig.definition.schema"
    assert build() == SCHEMA
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_workflows_that_are_shipped_validate(path: Path) -> None:
    document, source = read_text(path.read_bytes(), str(path))
    VALIDATOR.validate(document)
    VALIDATOR.validate(parse(document, source).document)


def marked(test: Any, name: str) -> list[Any]:
    """The parameters of a test of another file, by name."""
    mark = next(mark for mark in test.pytestmark if mark.name == "parametrize")
    names = mark.args[0] if isinstance(mark.args[0], tuple) else (mark.args[0],)
    rows = mark.args[1] if isinstance(mark.args[0], tuple) else [(row,) for row in mark.args[1]]
    return [row[names.index(name)] for row in rows]


def valid() -> list[Any]:
    document, _ = read_text(EXAMPLE)
    starts = marked(test_definition_refusals.test_what_may_come_true_is_left_alone, "start")
    starts += marked(test_definition_options.test_builders_are_canonical_json, "tree")
    starts += marked(test_definition_refusals.test_what_ends_or_waits_for_somebody_is_no_loop, "start")
    starts += [
        {"signal": "a", "eq": None, "max": "3/1h", "then": "stop", "by": "strict $.id"},
        {"every": 90, "label": "x"},
        {"signal": "m.*.**", "changed": False, "within": "1 h 30 m", "count": 2},
        [{"at": "2030-01-01", "tz": "UTC"}, {"cron": "@daily"}],
    ]
    bodies = [
        {
            "streaming": {
                "command": ["x"],
                "ready": {"http": "http://h:{port}/"},
                "ready_timeout": 90,
                "live": {"heartbeat": "30s"},
            }
        },
        {"batch": {"command": ["x"], "live": {"command": ["y"], "every": "1 m", "timeout": "5s", "failures": 2}}},
        {"streaming": {"python": "a.b:c.d", "restart": "never", "ready": "api", "on_lease_loss": "keep"}},
        {
            "batch": {
                "command": ["x"],
                "on_busy": "parallel( 4 )",
                "env": {"A": "x"},
                "pass_env": ["B"],
                "timeout": 90.5,
            }
        },
        {"batch": {"command": ["x"]}, "stop": {"signal": "a"}, "start": {"signal": "b"}, "order": ["stop", "start"]},
    ]
    whole = [{"workflow": "w", "operators": {"op": body}} for body in bodies]
    return [document, recommender().as_document(), *(op(start=start) for start in starts), *whole]


@pytest.mark.parametrize("document", valid(), ids=lambda document: json.dumps(document)[:60])
def test_every_valid_example_validates_as_written_and_as_stored(document: Any) -> None:
    VALIDATOR.validate(document)


A = {"signal": "a"}


SPECS: list[dict[str, Any]] = [
    {}, {"command": "make all"}, {"command": []}, {"command": ["x", 3]}, {"command": ["x"], "python": "a:b"}, {"python": "a.b"},
    {"command": ["x"], "timeot": "3s"}, {"command": ["x"], "timeout": "-3s"}, {"command": ["x"], "retries": True},
    {"command": ["x"], "retries": 1001}, {"command": ["x"], "restart": "always"}, {"command": ["x"], "on_busy": "quue"},
    {"command": ["x"], "env": {"A": 1}}, {"command": ["x"], "env": {"A B": "x"}}, {"command": ["x"], "params": [1]},
    {"command": ["x"], "autostart": "yes"}, {"command": ["x"], "pool": "A"}, {"command": ["x"], "priority": 101},
]  # fmt: skip
STARTS: list[Any] = [
    "a", {}, {"signal": "A"}, {"signal": "**"}, {"signal": "*.*"}, {"signal": "a..b"}, {"signal": "a.**.b"}, {**A, "all": [A]},
    {**A, "wher": "x"}, {**A, "count": 0}, {**A, "count": 1.5}, {**A, "latest": "yes"}, {**A, "label": ""},
    {**A, "sum": {"of": "$.n"}}, {**A, "sum": {"of": "$.n", "reaches": 0}}, {**A, "met_by": "is_met"}, {**A, "distinct": "$.x"},
    {**A, "max_wait": "5m"}, {**A, "tz": "UTC"}, {**A, "lateness": "1m"}, {**A, "debounce": "soon"},
    {"all": []}, {"all": A}, {"all": [A], "count": 3}, {"all": ["a"]}, {"seq": [A], "eq": 1}, {"at_least": 1}, {"of": [A]},
    {"at_least": 0, "of": [A]}, {"not": [A]}, {"not": {**A, "sticky": True}, "within": "1h"},
    {"absent": "a"}, {"absent": "a", "for": "soon"}, {"absent": A, "for": "5m"}, {"cron": 3}, {"every": "5m", "jitter": "soon"},
    {**A, "by": "model"}, {**A, "max": "3"}, {**A, "max": "3/1h", "then": "NONE"}, {**A, "then": "STOP"}, {**A, "shadow": 1},
    {"all": [{**A, "by": "none"}]}, {"any": [{**A, "max": "3/1h"}]}, {"not": {**A, "sticky": True, "shadow": True}},
]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        [], {}, {"workflow": "w"}, {"workflow": "w", "operators": {}}, {"workflow": "W", "operators": op()["operators"]},
        {**op(), "operatrs": {}}, {**op(), "namespace": "X"}, {"workflow": "w", "operators": {"A": {"batch": {"command": ["x"]}}}},
        {"workflow": "w", "operators": {"a": {"start": A}}},
        {"workflow": "w", "operators": {"a": {"batch": {"command": ["x"]}, "streaming": {"command": ["x"]}}}},
        *(op(batch=spec) for spec in SPECS),
        op(order=["start", "start"], start=A), op(order=["go"], start=A), op(start=[]), op(on=A), op(description=3),
        *(op(start=start) for start in STARTS),
    ],
    ids=lambda document: json.dumps(document)[-60:],
)  # fmt: skip
def test_a_mistake_of_structure_does_not_validate_and_is_refused(document: Any) -> None:
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(InvalidInput):
        parse(document)


# ── properties ──

keys = st.sampled_from(["a.x", "b.x", "c.d.e", "m.*", "n.**", "run.other.op.failed"])
paths = st.sampled_from(["$.n", "$.a.b"])
lengths: st.SearchStrategy[Any] = st.sampled_from(["500ms", "30s", "1h", "1d", "1w", 90, 2.5])


def maybe(found: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | found


@st.composite
def edges(draw: st.DrawFn) -> Condition:
    made = signal(draw(keys))
    if (eq := draw(maybe(st.tuples(values)))) is not None:
        made = made.eq(eq[0])
    for name, drawn in (("where", paths), ("source", st.just("s")), ("label", st.just("l"))):
        if (said := draw(maybe(drawn))) is not None:
            made = getattr(made, name)(said)
    form = draw(st.integers(0, 5))
    if form == 0:
        return made.count(draw(st.integers(2, 9)), distinct=draw(maybe(paths)))
    if form == 1:
        return made.sum(draw(paths), draw(st.integers(1, 100) | st.floats(0.5, 9)))
    if form == 2:
        return made.met_by("ops.is_met")
    return made.latest() if form == 3 else made.changed() if form == 4 else made


@st.composite
def timed(draw: st.DrawFn, of: st.SearchStrategy[Condition]) -> Condition:
    made = draw(of)
    if draw(st.booleans()):
        made = made.debounce("30s", max_wait=draw(maybe(st.just("5m"))))
    if draw(st.booleans()):
        zone, late = draw(maybe(st.sampled_from(["UTC", "Asia/Tokyo"]))), draw(maybe(lengths))
        made = made.window(draw(st.sampled_from(["15m", "1d", "1w"])), tz=zone, lateness=late)
    return made


ticks = st.sampled_from([every("1h"), cron("0 2 * * *", tz="Europe/Berlin"), at("2030-01-01T00:00:00")])
absences = st.builds(lambda key, length, after: absent(key, for_=length, after=after), keys, lengths, maybe(keys))
levels = st.builds(lambda eq: ~signal("z.level").eq(eq).sticky(), values)
happening = st.recursive(
    timed(edges()) | ticks,
    lambda inner: st.one_of(
        timed(st.builds(all_of, inner, inner)),
        timed(st.builds(any_of, inner, inner)),
        timed(st.builds(lambda a, b, span: seq(a, b).within(span), inner, inner, lengths)),
        timed(st.builds(lambda a, b: at_least(1, a, b).label("one"), inner, inner)),
    ),
    max_leaves=5,
)
conditions = happening | absences | st.builds(all_of, happening | absences, levels)


@st.composite
def rules(draw: st.DrawFn, action: str) -> Condition:
    made = draw(conditions)
    if (by := draw(st.sampled_from([None, "subject", "none", "$.id"]))) is not None:
        made = made.by(by)
    if (limit := draw(st.sampled_from([None, "3/1h", "10/90s"]))) is not None:
        made = made.max(limit, then=draw(st.sampled_from([None, "STOP" if action != "stop" else "start"])))
    return made.shadow() if draw(st.booleans()) else made


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    made = Workflow(
        "w", namespace=draw(st.sampled_from(["default", "team"])), description=draw(st.sampled_from(["", "text"]))
    )
    for name in draw(st.sampled_from([("one",), ("one", "two")])):
        options: Any = {
            action: draw(st.lists(rules(action), min_size=1, max_size=2, unique_by=repr))
            for action in draw(st.lists(st.sampled_from(["start", "stop", "restart", "reload"]), unique=True))
        }
        if draw(st.booleans()):
            made.batch(name, command=["x"], retries=draw(st.integers(0, 3)), **options)
        else:
            made.streaming(name, python="a:b", grace=draw(lengths), **options)
    return made


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workflows())
def test_python_canonical_json_and_yaml_are_one(workflow: Workflow) -> None:
    try:
        definition = workflow.definition()
    except InvalidInput as error:
        # Said twice, or never true: chance makes such things.
        if not {problem.code for problem in error.problems} <= {"PS514", "PS529"}:
            raise
        reject()
    document = definition.document
    VALIDATOR.validate(document)
    again, source = read_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), "w.yaml")
    assert source.problems == []
    for other in (parse(again), parse(json.loads(json.dumps(document, sort_keys=True)))):
        assert other.document == document
        assert other.digest == definition.digest
        assert other.operators == definition.operators


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
