"""The Python front end: thin, immutable, and equal to YAML."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgsig
from pgsig import Condition, Workflow, all_of, any_of, at, at_least, cron, every, seq, signal
from pgsig.condition import dump
from pgsig.condition import parse as parse_condition
from pgsig.definition import parse
from pgsig.definition.reading import read_text
from pgsig.errors import InvalidInput, PgsigError
from tests.pure.test_definition import EXAMPLE

A, B, C = signal("a.x"), signal("b.x"), signal("c.x")


@pytest.mark.parametrize(
    ("condition", "tree"),
    [
        (A.eq(None), {"signal": "a.x", "eq": None}),
        (A.eq((1, 2)), {"signal": "a.x", "eq": [1, 2]}),
        (
            A.where("$.n > 1").source("s").subject("t"),
            {"signal": "a.x", "where": "$.n > 1", "source": "s", "subject": "t"},
        ),
        (A.changed(), {"signal": "a.x", "changed": True}),
        (A.latest().label("new"), {"signal": "a.x", "latest": True, "label": "new"}),
        (A.count(3).within(timedelta(minutes=90)), {"signal": "a.x", "count": 3, "within": "1h30m"}),
        (A & B & C, {"all": [A.tree, B.tree, C.tree]}),
        (A & (B & C), {"all": [A.tree, B.tree, C.tree]}),
        ((A & B).label("both") & C, {"all": [{"all": [A.tree, B.tree], "label": "both"}, C.tree]}),
        (A | B | C, {"any": [A.tree, B.tree, C.tree]}),
        (A & ~B.sticky().eq("on"), {"all": [A.tree, {"not": {"signal": "b.x", "sticky": True, "eq": "on"}}]}),
        (A & B | C, {"any": [{"all": [A.tree, B.tree]}, C.tree]}),
        (all_of(A, any_of(B, C)), {"all": [A.tree, {"any": [B.tree, C.tree]}]}),
        (seq(A, B).within("10m").by("$.id"), {"seq": [A.tree, B.tree], "within": "10m", "by": "$.id"}),
        (at_least(2, A, B, C), {"at_least": 2, "of": [A.tree, B.tree, C.tree]}),
        (at_least(1, [A, B]), {"at_least": 1, "of": [A.tree, B.tree]}),
        (every(timedelta(hours=2)), {"every": "2h"}),
        (every("10m", anchor="2026-01-01", tz="UTC"), {"every": "10m", "anchor": "2026-01-01", "tz": "UTC"}),
        (cron("@daily", tz="Europe/Berlin"), {"cron": "@daily", "tz": "Europe/Berlin"}),
        (at(datetime(2027, 1, 1, tzinfo=UTC)), {"at": "2027-01-01T00:00:00+00:00"}),
    ],
)
def test_builders_are_canonical_json(condition: Condition, tree: dict[str, Any]) -> None:
    assert condition.tree == tree


def test_no_method_changes_the_condition_that_it_is_called_on() -> None:
    before = json.dumps(A.tree)
    A.eq(1), A.label("x"), A & B, ~A
    assert json.dumps(A.tree) == before


@pytest.mark.parametrize("text", ["bool(A)", "A and B", "A or B", "not A", "A if A else B"])
def test_python_s_own_and_or_not_are_refused(text: str) -> None:
    with pytest.raises(TypeError, match=r"use & \| ~"):
        eval(text)


def test_filters_belong_to_signals() -> None:
    with pytest.raises(TypeError, match="belongs to a signal"):
        (A & B).eq(1)
    with pytest.raises(TypeError, match="belongs to a signal"):
        every("1m").where("$")
    with pytest.raises(TypeError, match="belongs to a signal"):
        (~A.sticky()).latest()
    with pytest.raises(TypeError, match="by belongs to the whole rule"):
        A.by("$.x") & B
    with pytest.raises(TypeError):
        A & "b.x"  # type: ignore[operator]
    with pytest.raises(TypeError, match="any_of joins conditions"):
        any_of(A, "b.x")  # type: ignore[arg-type]


def recommender() -> Workflow:
    wf = Workflow("recommender")
    wf.streaming("train", command=["python", "train.py"], restart_policy="always", start=signal("data.ready"))
    migrate = wf.batch("migrate", command=("python", "migrate.py"))
    wf.batch(
        "evaluate",
        command=["python", "evaluate.py"],
        timeout=timedelta(seconds=600),
        retries=2,
        start=signal("model.trained").where("$.auc > 0.5").by("subject"),
    )
    wf.streaming(
        "serve",
        python="serving:main",
        handover="start_first",
        autostart=True,
        order=["reload", "restart", "stop"],
        stop=[signal("ops.stop"), signal("ops.halt").by("$.cell")],
        restart=signal("config.changed") | every("24h") | migrate.succeeded(),
        reload=(signal("model.validated").eq("passed") & ~signal("ops.freeze").sticky().eq("on")).within("1h"),
    )
    wf.batch("report", command=["sh", "-c", "make report"], start=cron("30 2 * * mon-fri", tz="Europe/Berlin"))
    return wf


def test_python_and_yaml_are_equal() -> None:
    document, source = read_text(EXAMPLE)
    definition = parse(document, source)
    assert recommender().as_document() == definition.document
    assert recommender().definition().digest == definition.digest


# ── functions ──

wf = Workflow("w", namespace="team", description="of the tests")


@wf.batch(start=signal("a.b"), pool="gpu")
def job(n: int) -> int:
    """Add one."""
    return n + 1


@wf.streaming
def stream() -> None: ...


@wf.batch(start=[job.succeeded() & stream.ready(), job.failed() | job.lost() | job.stopped() | job.running()])
def after() -> None: ...


def test_a_decorated_function_stays_a_function_and_is_imported_by_its_module() -> None:
    assert job(1) == 2
    assert job.__doc__ == "Add one."
    assert wf.as_document() == {
        "workflow": "w",
        "namespace": "team",
        "description": "of the tests",
        "operators": {
            "job": {"batch": {"python": f"{__name__}:job", "pool": "gpu"}, "start": {"signal": "a.b"}},
            "stream": {"streaming": {"python": f"{__name__}:stream"}},
            "after": {
                "batch": {"python": f"{__name__}:after"},
                "start": [
                    {"all": [{"signal": "run.w.job.succeeded"}, {"signal": "run.w.stream.ready"}]},
                    {"any": [{"signal": f"run.w.job.{state}"} for state in ("failed", "lost", "stopped", "running")]},
                ],
            },
        },
    }


def test_names_are_unique_and_functions_can_be_imported() -> None:
    mine = Workflow("w")
    mine.batch("a", command=["x"])
    with pytest.raises(PgsigError, match="PS530"):
        mine.batch("a", command=["x"])
    with pytest.raises(PgsigError, match="PS531"):

        @mine.batch
        def inner() -> None: ...

    with pytest.raises(PgsigError, match="PS531"):
        mine.batch(lambda: None)
    with pytest.raises(TypeError, match="a command"):
        mine.batch("b", command=["x"])()


def test_mistakes_are_named_together_when_the_document_is_made() -> None:
    mine = Workflow("W")
    mine.batch("a", command=["x"], timeot="3s", start=signal("A B"))  # type: ignore[call-overload]
    mine.batch("b", command="make all")
    with pytest.raises(InvalidInput) as refused:
        mine.as_document()
    assert [problem.code for problem in refused.value.problems] == ["PS529", "PS522", "PS505", "PS524"]


def test_a_file_that_is_run_as_a_program_names_its_functions_by_its_file(tmp_path: Path) -> None:
    text = (
        "from pgsig import Workflow\nwf = Workflow('w')\n"
        "@wf.batch\ndef job(): ...\n"
        "if __name__ == '__main__': print(wf.as_document()['operators']['job']['batch']['python'])\n"
    )
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "jobs.py").write_text(text)
    folder = str(Path(pgsig.__file__).parent.parent)
    for argv, expected in ((["shop/jobs.py"], "jobs:job"), (["-m", "shop.jobs"], "shop.jobs:job")):
        done = subprocess.run(
            [sys.executable, *argv],
            cwd=tmp_path,
            env={"PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_importing_pgsig_imports_next_to_nothing() -> None:
    code = "import sys, pgsig; print(sorted(m for m in sys.modules if m.startswith(('pgsig', 'psycopg', 'sqlalchemy', 'click'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pgsig']"
    assert all(getattr(pgsig, name) is not None for name in pgsig.__all__)


# ── properties ──

keys = st.sampled_from(["a.x", "b.x", "c.d.e", "m.*", "n.**"])
# PyYAML writes some texts without quotes that others read as numbers: those are refused, not mixed up. And it writes the line ends of
# Unicode as they are, which it then reads as a space.
texts = st.text(max_size=5).filter(
    lambda text: not re.fullmatch(r"[-+0-9.eE_]+", text) and not re.search("[\x85\u2028\u2029]", text)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
).filter(lambda value: "\\u0000" not in json.dumps(value) and "\\ud" not in json.dumps(value))


def leaf(key: str, eq: tuple[Any] | None, source: str | None, latest: bool, label: str | None) -> Condition:
    edge = signal(key) if eq is None else signal(key).eq(eq[0])
    edge = edge if source is None else edge.source(source)
    edge = edge.latest() if latest else edge
    return edge if label is None else edge.label(label)


edges = st.builds(
    leaf,
    keys,
    st.none() | st.tuples(values),
    st.none() | st.just("s"),
    st.booleans(),
    st.none() | st.text("abc ", min_size=1, max_size=5),
)
ticks = st.sampled_from([every("1h"), cron("0 2 * * *", tz="Europe/Berlin"), at("2030-01-01T00:00:00")])
# Long enough for every tick that a sequence may wait for.
lengths = st.integers(86400, 10**6).map(lambda seconds: timedelta(seconds=seconds))


conditions = st.recursive(
    edges | ticks,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a, b, span: seq(a, b).within(span), inner, inner, lengths),
        st.builds(lambda a, b: at_least(1, a, b), inner, inner),
        st.builds(lambda a: all_of(a, ~signal("z.level").sticky()), inner),
    ),
    max_leaves=5,
)


@given(conditions)
def test_a_canonical_condition_is_its_own_canonical_form(condition: Condition) -> None:
    node, problems = parse_condition(condition.tree, operator="w.a")
    assert node is not None, problems
    tree = dump(node)
    again, _ = parse_condition(tree, operator="w.a")
    assert again is not None
    assert dump(again) == tree
