"""`pgsig.testing`: a workflow in memory behaves as on a database, with a clock that the test moves."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pgsig import Workflow, signal
from pgsig.errors import Conflict, InvalidInput, NotFound, PgsigError
from pgsig.model import Json
from pgsig.testing import WorkflowTest


def one(start: Json, kind: str = "batch", **more: Json) -> dict[str, Json]:
    """A workflow `w` of one operator `op`. Keys in upper case are the operator's own, the rest belongs to its kind."""
    beside = {key.lower(): value for key, value in more.items() if key.isupper()}
    spec = {key: value for key, value in more.items() if not key.isupper()}
    body = {kind: {"command": ["true"], **spec}, **beside}
    return {"workflow": "w", "operators": {"op": {**body, "start": start} if start is not None else body}}


RECOMMENDER = """
workflow: recommender
operators:
  evaluate:
    batch: {command: [python, evaluate.py]}
    start: {signal: model.trained, where: "$.auc > 0.5"}
  serve:
    streaming: {command: [python, serve.py], handover: start_first, autostart: true}
    restart: {all: [{signal: run.recommender.evaluate.succeeded, where: "$.passed == true"}], within: 1h}
    stop: {signal: ops.stop}
  report:
    batch: {command: [make, report]}
    start: {cron: "30 2 * * *", tz: Europe/Berlin}
"""


def test_a_workflow_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text(RECOMMENDER)
    with WorkflowTest(file, now="2026-01-01T00:00Z") as t:
        assert t.actions == [("serve", "START", "", "recorded")]
        low, high = t.emit("model.trained", {"auc": 0.3}, "m1"), t.emit("model.trained", {"auc": 0.9}, "m1")
        assert t.actions[1:] == [("evaluate", "START", "m1", "recorded")]
        assert (t.outcomes(low), t.outcomes(high)) == ([], [("evaluate", "start", "m1", "consumed")])
        assert t.state("evaluate", "m1") == "running"
        t.finish("evaluate", subject="m1", result={"passed": True})
        assert (t.state("evaluate", "m1"), t.state("serve", "m1")) == ("succeeded", "running")
        t.advance("2h")
        assert t.actions[3:] == [("report", "START", "", "recorded")]
        assert t.now.isoformat() == "2026-01-01T02:00:00+00:00"


def test_state_signals_are_those_of_the_database() -> None:
    with WorkflowTest(one({"signal": "a"})) as t:
        t.emit("a", subject="x")
        t.fail("op", subject="x", exit_code=3)
        assert t.keys == ["a", "run.w.op.starting", "run.w.op.running", "run.w.op.failed"]
        last = t.signals[-1]
        assert (last.subject, last.source, last.depth, last.run_id) == ("x", "pgsig", 1, 1)
        assert last.value == '{"run": 1, "reason": "exit code 3", "attempt": 1, "exit_code": 3, "generation": 1}'


@pytest.mark.parametrize(("on_busy", "results"), [
    ("queue", ["recorded", "queued", "queued"]), ("skip", ["recorded", "skipped", "skipped"]),
    ("merge", ["recorded", "queued", "merged"]), ("parallel(2)", ["recorded", "recorded", "queued"]),
    ("replace", ["recorded", "recorded", "recorded"]),
])  # fmt: skip
def test_on_busy(on_busy: str, results: list[str]) -> None:
    with WorkflowTest(one({"signal": "a"}, on_busy=on_busy)) as t:
        for _ in results:
            t.emit("a")
        assert [acted.result for acted in t.actions] == results


def test_what_is_queued_begins_when_its_place_is_free() -> None:
    with WorkflowTest(one({"signal": "a"})) as t:
        t.emit("a")
        second = t.emit("a")
        assert [run.state for run in t.runs("op")] == ["running", "queued"]
        t.finish("op")
        assert [run.state for run in t.runs("op")] == ["succeeded", "running"]
        assert t.runs("op")[1].evidence == (second,)


def test_a_stop_is_obeyed_at_once_and_empties_the_queue() -> None:
    with WorkflowTest(one({"signal": "a"}, STOP={"signal": "b"})) as t:
        t.emit("a")
        t.emit("a")
        t.emit("b")
        assert [run.state for run in t.runs("op")] == ["stopped", "stopped"]
        assert t.keys[-2:] == ["run.w.op.stopped", "run.w.op.stopped"]
        t.emit("b")
        assert t.actions[-1] == ("op", "STOP", "", "already_stopped")


def test_a_handover_stops_the_old_run_once_the_new_one_is_ready() -> None:
    document = one({"signal": "go"}, "streaming", handover="start_first", ready="api", RESTART={"signal": "new"})
    with WorkflowTest(document) as t:
        t.emit("go")
        t.ready("op")
        t.emit("new")
        assert [run.state for run in t.runs("op")] == ["running", "running"]
        t.ready("op")
        assert [run.state for run in t.runs("op")] == ["stopped", "running"]


def test_a_restart_stops_first() -> None:
    with WorkflowTest(one({"signal": "go"}, "streaming", RESTART={"signal": "new"}, RELOAD={"signal": "conf"})) as t:
        t.emit("go")
        t.emit("new")
        reload = t.emit("conf", 7)
        first, second = t.runs("op")
        assert (first.state, second.state, second.reloads) == ("stopped", "running", [(reload,)])
        assert [key.rpartition(".")[2] for key in t.keys if key.startswith("run.")] == [
            "starting", "running", "ready", "stopped", "starting", "running", "ready"]  # fmt: skip


def test_timers_fire_when_the_clock_passes_them() -> None:
    with WorkflowTest(one({"signal": "a", "debounce": "30s"})) as t:
        first = t.emit("a")
        t.advance("20s")
        second = t.emit("a")
        t.advance("29s")
        assert t.actions == []
        t.advance("1s")
        assert t.decided[0].evidence == (first, second)
    with WorkflowTest(one({"all": [{"signal": "a"}, {"signal": "b"}], "within": "10m"})) as t:
        old = t.emit("a")
        t.advance("11m")
        assert t.outcomes(old) == [("op", "start", "", "expired")]
        t.emit("b")
        assert t.actions == []


def test_an_absence_is_true_after_its_time() -> None:
    with WorkflowTest(one({"absent": "beat", "after": "run.w.op.running", "for": "5m"}, "streaming")) as t:
        t.act("op", "START")
        t.advance("299.9s")
        assert len(t.actions) == 1
        t.advance("1s")
        assert t.actions[1:] == [("op", "START", "", "already_running")]


def test_ticks_fire_each_at_its_time() -> None:
    with WorkflowTest(one({"every": "10m"}, on_busy="skip")) as t:
        t.advance(timedelta(minutes=25))
        assert [s.at.minute for s in t.signals if s.key == "tick.w.op"] == [10, 20]
        assert t.actions == [("op", "START", "", "recorded"), ("op", "START", "", "skipped")]
    with WorkflowTest(one({"cron": "30 2 * * *", "tz": "Europe/Berlin"}), now="2026-10-24T12:00:00+00:00") as t:
        t.advance("2d")
        # The night in which 02:30 comes twice has one of them.
        assert [s.at.isoformat() for s in t.signals if s.key == "tick.w.op"] == [
            "2026-10-25T00:30:00+00:00", "2026-10-26T01:30:00+00:00"]  # fmt: skip


@pytest.mark.parametrize(("mode", "evidence", "ended"), [
    ("hold", [1, 2], ["consumed", "consumed"]), ("collapse", [2], ["superseded", "consumed"]), ("drop", [], ["expired", "expired"]),
])  # fmt: skip
def test_pauses(mode: str, evidence: list[int], ended: list[str]) -> None:
    with WorkflowTest(one({"signal": "a"})) as t:
        t.pause("op", mode)
        held = [t.emit("a"), t.emit("a")]
        before = [e.outcome for position in held for e in t.outcomes(position)]
        assert before == (["expired"] if mode == "drop" else ["held"]) * 2
        t.resume()
        started = [d.evidence[0] for d in t.decided if d.short.action == "START"]
        assert started == [held[n - 1] for n in evidence]
        assert [e.outcome for position in held for e in t.outcomes(position)] == ended


def test_a_loop_ends_at_the_depth_limit() -> None:
    document = one([{"signal": "go"}, {"signal": "run.w.op.succeeded", "max": "50/1h"}])
    with WorkflowTest(document, depth_limit=3) as t:
        t.emit("go")
        for _ in range(2):
            t.finish("op")
        t.finish("op")
        assert len(t.actions) == 3
        assert t.outcomes(len(t.signals)) == [("op", "start.2", "", "quarantined")]


def test_shadows_and_limits() -> None:
    with WorkflowTest(one({"signal": "a", "shadow": True})) as t:
        t.emit("a")
        assert (t.actions, t.state("op")) == ([("op", "START", "", "shadow")], "never_run")
    with WorkflowTest(one({"signal": "a", "max": "1/1h"}, on_busy="parallel(9)")) as t:
        t.emit("a")
        t.emit("a")
        t.advance("61m")
        t.emit("a")
        assert [acted.result for acted in t.actions] == ["recorded", "limited", "recorded"]


def test_why_says_what_is_missing() -> None:
    with WorkflowTest(one({"all": [{"signal": "a"}, {"signal": "b"}]})) as t:
        t.emit("a", subject="x")
        text = t.why("op", "x")
        assert "w.op for x: never_run" in text
        assert "✓ a" in text
        assert "✗ b" in text


def test_an_event_id_counts_once() -> None:
    with WorkflowTest(one({"signal": "a"})) as t:
        first = t.emit("a", 1, event_id="e")
        assert t.emit("a", 1, event_id="e") == first
        with pytest.raises(Conflict, match="PS109"):
            t.emit("a", 2, event_id="e")
        assert len(t.actions) == 1


def test_a_run_continues_its_causal_chain() -> None:
    with WorkflowTest(one({"signal": "a"})) as t:
        t.emit("a")
        t.emit("result", run=t.runs("op")[0])
        assert (t.signals[-1].depth, t.signals[-1].run_id) == (1, 1)


def test_correlation_by_a_path() -> None:
    with WorkflowTest(one({"all": [{"signal": "a"}, {"signal": "b"}], "by": "$.model"})) as t:
        t.emit("a", {"model": "m1"})
        t.emit("b", {"model": "m2"})
        assert t.actions == []
        t.emit("b", {"model": "m1"})
        assert t.actions == [("op", "START", "m1", "recorded")]


def test_python_workflows_and_bad_input() -> None:
    wf = Workflow("w")
    wf.batch("op", command=["true"], start=signal("a").where("$.x.datetime() > 1"))
    with WorkflowTest(wf) as t:
        with pytest.raises(InvalidInput, match=r"(?s)PS102.*PS112"):
            t.emit("run.w.op.failed", {1, 2})
        with pytest.raises(InvalidInput, match="PS101"):
            t.emit("a.*")
        with pytest.raises(PgsigError, match=r"PS570 .*\.datetime\(\).*database=URL"):
            t.emit("a", {})
        with pytest.raises(NotFound, match="PS572"):
            t.finish("op")
        with pytest.raises(NotFound, match="PS201"):
            t.act("nobody", "START")
        with pytest.raises(ValueError, match="is past"):
            t.advance_to("2025-01-01")
        with pytest.raises(ValueError, match="does not end a run"):
            t.finish("op", "running")
