"""Definitions: the canonical form, and that every mistake is named at once with its line and a way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgsig.definition import Definition, load, parse
from pgsig.definition.reading import read_text
from pgsig.errors import InvalidInput, Problem
from pgsig.model import Action, Kind

EXAMPLE = """
workflow: recommender
operators:
  train:
    streaming: {command: [python, train.py], restart: always}
    start: {signal: data.ready}
  migrate:
    batch: {command: [python, migrate.py]}
  evaluate:
    batch: {command: [python, evaluate.py], timeout: 600s, retries: 2, on_busy: queue}
    start: {signal: "model.trained", where: "$.auc > 0.5", by: subject}
  serve:
    streaming: {python: "serving:main", handover: start_first, autostart: true}
    reload:
      all: [{signal: "model.validated", eq: passed}, {not: {signal: ops.freeze, sticky: true, eq: "on"}}]
      within: 1h
    restart: {any: [{signal: config.changed}, {every: 24h}, {signal: run.recommender.migrate.succeeded}]}
    stop:    [{signal: ops.stop}, {signal: ops.halt, by: $.cell}]
  report:
    batch: {command: [sh, -c, "make report"]}
    start: {cron: "30 2 * * mon-fri", tz: Europe/Berlin}
"""


def read(text: str) -> Definition:
    return parse(*read_text(text, "w.yaml"))


def wrong(text: str) -> list[Problem]:
    with pytest.raises(InvalidInput) as refused:
        parse(*read_text(text, "w.yaml"))
    return list(refused.value.problems)


def operator(body: str) -> str:
    return f"workflow: w\noperators:\n  job:\n    {body}\n"


def batch(fields: str) -> str:
    return operator(f"batch: {{command: [x], {fields}}}")


def test_the_canonical_form_leaves_defaults_out_and_shortens_durations() -> None:
    document = read(EXAMPLE).document
    assert document["workflow"] == "recommender"
    assert "namespace" not in document
    operators = document["operators"]
    assert operators["train"] == {"streaming": {"command": ["python", "train.py"]}, "start": {"signal": "data.ready"}}
    assert operators["evaluate"]["batch"] == {"command": ["python", "evaluate.py"], "timeout": "10m", "retries": 2}
    assert operators["evaluate"]["start"] == {"signal": "model.trained", "where": "$.auc > 0.5"}
    assert operators["serve"]["restart"]["any"][1] == {"every": "1d"}
    assert operators["serve"]["stop"] == [{"signal": "ops.stop"}, {"signal": "ops.halt", "by": "$.cell"}]


def test_the_order_of_rules_survives_a_store_that_sorts_keys() -> None:
    definition = read(EXAMPLE)
    assert definition.document["operators"]["serve"]["order"] == ["reload", "restart", "stop"]
    again = parse(json.loads(json.dumps(definition.document, sort_keys=True)))
    assert again.digest == definition.digest
    (serve,) = (operator for operator in again.operators if operator.name == "serve")
    assert serve == definition.operators[3]
    assert [rule.name for rule in serve.rules] == ["reload", "restart", "stop", "stop.2"]
    assert [rule.action for rule in serve.rules] == [Action.RELOAD, Action.RESTART, Action.STOP, Action.STOP]
    assert serve.kind is Kind.STREAMING
    assert [trigger.spec for trigger in serve.triggers] == [{"every": "1d"}]


def test_a_list_of_one_condition_is_that_condition() -> None:
    assert read(operator("batch: {command: [x]}\n    start: [{signal: a.b}]")).digest == (
        read(operator("batch: {command: [x]}\n    start: {signal: a.b}")).digest
    )


def test_a_json_file_and_a_yaml_file_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(EXAMPLE)
    (tmp_path / "w.json").write_text(json.dumps(read(EXAMPLE).document))
    assert load(tmp_path / "w.yaml").digest == load(tmp_path / "w.json").digest


def test_every_mistake_is_named_at_once_with_its_line() -> None:
    problems = wrong(
        "workflow: Rec\n"
        "operatrs: {}\n"
        "operators:\n"
        "  train:\n"
        "    stream: {command: python train.py}\n"
        "    start: {signal: data.ready, wher: x}\n"
        "    on: 3\n"
        "  score:\n"
        "    batch: {command: [python], timeot: 600s, retries: -1}\n"
    )
    found = {(problem.code, problem.where): problem.fix for problem in problems}
    assert set(found) == {
        ("PS526", "w.yaml:7 /operators/train/on"),
        ("PS529", "w.yaml:1 /workflow"),
        ("PS522", "w.yaml:2 /operatrs"),
        ("PS522", "w.yaml:5 /operators/train/stream"),
        ("PS523", "w.yaml:4 /operators/train"),
        ("PS502", "w.yaml:6 /operators/train/start/wher"),
        ("PS522", "w.yaml:9 /operators/score/batch/timeot"),
        ("PS523", "w.yaml:9 /operators/score/batch/retries"),
    }
    assert found["PS522", "w.yaml:2 /operatrs"] == "did you mean operators?"
    assert found["PS522", "w.yaml:5 /operators/train/stream"] == "did you mean streaming?"
    assert found["PS522", "w.yaml:9 /operators/score/batch/timeot"] == "did you mean timeout?"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (operator("batch: {command: make all}"), "PS524", "[make, all]; for a shell: [sh, -c"),
        (operator('batch: {command: ["make all"]}'), "PS524", '[sh, -c, "make all"]'),
        (operator("batch: {command: []}"), "PS524", "at least one text"),
        (operator("batch: {command: [x, 3]}"), "PS524", "quote numbers"),
        (operator("batch: {command: [x], python: 'a:b'}"), "PS524", "not both"),
        (operator("batch: {timeout: 3s}"), "PS524", "a command or a python target"),
        (operator("batch: {python: 'a.b'}"), "PS524", "module:function"),
        (operator("batch: {python: 'a;b:c'}"), "PS524", "module:function"),
        (batch("env: {A: 1}"), "PS525", "quote it"),
        (batch("env: {LD_PRELOAD: x}"), "PS525", "decides what code"),
        (batch("env: {PATH: /evil}"), "PS525", "decides what code"),
        (batch("env: {PGSIG_RUN: x}"), "PS525", "tells a run about itself"),
        (batch("env: {'A B': x}"), "PS525", "name of a variable"),
        (batch("env: {DB_PASSWORD: hunter2}"), "PS525", "pass_env: [DB_PASSWORD]"),
        (batch("env: {API_KEY: k}"), "PS525", "secret"),
        (batch("env: {URL: 'postgresql://u:p@h/d'}"), "PS525", "secret"),
        (batch("pass_env: [A-B]"), "PS525", "name of a variable"),
        (batch("env: {A: x}, pass_env: [A]"), "PS525", "keep one"),
        (batch("env_from: [A]"), "PS522", "pass_env"),
        (batch("timeout: -3s"), "PS523", "duration"),
        (batch("timeout: 99999h"), "PS523", "10 years"),
        (batch("retries: true"), "PS523", "whole number"),
        (batch("retries: 1001"), "PS523", "0 to 1000"),
        (batch("priority: 101"), "PS523", "-100 to 100"),
        (batch("on_busy: quue"), "PS523", "did you mean queue?"),
        (batch("on_busy: parallel(0)"), "PS523", "parallel(4)"),
        (batch("on_busy: parallel(n)"), "PS523", "none of"),
        (batch("restart: always"), "PS522", "only streaming operators have it"),
        (
            "workflow: w\noperators: {a: {batch: {command: [x]}, autostart: true}}",
            "PS522",
            "it stands inside batch or streaming",
        ),
        (
            "workflow: w\noperators: {a: {streaming: {command: [x]}, replicas: 2}}",
            "PS522",
            "it stands inside streaming",
        ),
        (batch("params: [1]"), "PS523", "object"),
        (batch("autostart: 'yes'"), "PS523", "true or false"),
        (operator("batch: {command: [x]}\n    streaming: {command: [x]}"), "PS523", "either batch"),
        (operator("batch: {command: [x]}\n    start: []"), "PS523", "1 to 100 conditions"),
        (operator("batch: {command: [x]}\n    start: {signal: a, by: model}"), "PS503", "$.model_id"),
        (operator("batch: {command: [x]}\n    start: [{signal: a}, {signal: a}]"), "PS529", "the same"),
        (operator("batch: {command: [x]}\n    start: {signal: a}\n    order: [stop]"), "PS523", "order names"),
        (operator("batch: {command: [x]}\n    start: {signal: run.w.jb.failed}"), "PS527", "did you mean job?"),
        (operator("batch: {command: [x]}\n    start: {any: [{signal: tick.w.jb}]}"), "PS527", "did you mean job?"),
        (operator("batch: {command: [x]}\n    start: {signal: run.x.y.succeded}"), "PS527", "succeeded?"),
        (operator("batch: {command: [x]}\n    start: {signal: run.x.y}"), "PS527", "never comes"),
        (operator("batch: {command: [x]}\n    start: {cron: '0 0 30 2 *'}"), "PS512", "never comes"),
        (operator("batch: {command: [x]}\n    start: {every: 5m, jitter: 10m}"), "PS513", "shorter than the interval"),
        (operator("batch: {command: [x]}\n    start: {every: 1500ms}"), "PS510", "whole number of seconds"),
        ("workflow: w\noperators: {}", "PS523", "1 to 1000 operators"),
        ("workflow: w\noperators: {A: {batch: {command: [x]}}}", "PS529", "operator"),
        ("- 1", "PS523", "an object"),
        ("workflow: w\nnamespace: X\noperators: {a: {batch: {command: [x]}}}", "PS529", "namespace"),
    ],
)
def test_a_mistake_is_refused_with_code_and_remedy(text: str, code: str, said: str) -> None:
    problems = wrong(text)
    assert [problem.code for problem in problems] == [code]
    assert said in str(problems[0])


@pytest.mark.parametrize(
    "key",
    [
        *("run.w.job.failed", "run.other.thing.failed", "run.w.*.failed", "run.*.*.failed", "run.w.**", "run.w.job.*"),
        *("tick.w.job", "manual.w.job", "manual.**"),
    ],
)
def test_states_of_operators_that_exist_or_belong_to_others_may_be_waited_for(key: str) -> None:
    read(operator(f"batch: {{command: [x]}}\n    start: {{signal: '{key}', max: 3/1h}}"))


def test_a_value_that_looks_like_a_condition_is_a_value() -> None:
    definition = read(operator("batch: {command: [x]}\n    start: {signal: a, eq: {signal: run.w.nope.x, where: x}}"))
    assert definition.paths == ()


def test_paths_that_only_postgres_can_check_are_collected_with_their_places() -> None:
    uses = read(EXAMPLE).paths
    assert {(use.path, use.where, use.predicate) for use in uses} == {
        ("$.auc > 0.5", "/operators/evaluate/start/where", True),
        ("$.cell", "/operators/serve/stop/1/by", False),
    }


def test_what_json_does_not_have_is_refused_in_a_document_from_python() -> None:
    for value in (object(), {1: "x"}, float("nan"), 10**400, b"x"):
        with pytest.raises(InvalidInput) as refused:
            parse({"workflow": "w", "operators": {"a": {"batch": {"command": ["x"], "params": {"p": value}}}}})
        assert refused.value.code == "PS526"


PROBES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"ready": "soon"}, [("/ready", "PS523")]),
    ({"ready": {}}, [("/ready", "PS523")]),
    ({"ready": {"http": "http://h/", "command": ["x"]}}, [("/ready", "PS523")]),
    ({"ready": {"heartbeat": "1s"}}, [("/ready", "PS523")]),
    ({"ready": {"http": "https://h/"}}, [("/ready/http", "PS523")]),
    ({"ready": {"http": "http://u:p@h/"}}, [("/ready/http", "PS525")]),
    ({"ready": {"http": "http://h:{prot}/"}}, [("/ready/http", "PS523")]),
    ({"ready": {"http": "http://h/ x"}}, [("/ready/http", "PS523")]),
    ({"ready": {"command": "curl -f h"}}, [("/ready/command", "PS524")]),
    ({"ready": {"command": ["x"], "every": "50ms", "failures": 2}}, [("/ready/every", "PS523"), ("/ready/failures", "PS522")]),
    ({"live": {"heartbeat": "0s", "every": "1s"}}, [("/live/heartbeat", "PS523"), ("/live/every", "PS522")]),
    ({"live": "start"}, [("/live", "PS523")]),
    ({"live": {"http": "http://h/", "failures": 0}}, [("/live/failures", "PS523")]),
    # Of two that are alive at once, which one has answered?
    ({"ready": {"http": "http://127.0.0.1:80/"}, "handover": "start_first"}, [("/ready/http", "PS523")]),
    ({"live": {"http": "http://127.0.0.1:80/"}, "replicas": 2}, [("/live/http", "PS523")]),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "wanted"), PROBES)
def test_probes_that_cannot_be_made_are_refused(spec: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse({"workflow": "w", "operators": {"o": {"streaming": {"command": ["x"], **spec}}}})
    where = "/operators/o/streaming"
    assert [(one.where.removeprefix(where), one.code) for one in refused.value.problems] == wanted


def test_probes_are_canonical() -> None:
    spec = {
        "ready": {"http": "http://127.0.0.1:{port}/", "every": "1000ms", "timeout": "2s"}, "ready_timeout": "60s", "replicas": 2,
        "live": {"command": ["x"], "failures": 3, "every": "0.5m"},
    }  # fmt: skip
    found = parse({"workflow": "w", "operators": {"o": {"streaming": {"command": ["x"], **spec}}}})
    assert found.operators[0].spec == {
        "command": ["x"], "ready": {"http": "http://127.0.0.1:{port}/", "timeout": "2s"}, "replicas": 2,
        "live": {"command": ["x"], "every": "30s"},
    }  # fmt: skip
