"""The acceptance scenarios of AIP-35 and AI-Flow, each with its number, on the engine with a real database.

The test is the runner: it claims what is due, and reports what becomes of it. The scenarios that are missing (3, 7 to 9, 12, 15) are
about executors, user interfaces and Flink.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pgsig import Workflow, all_of, cron, every, signal
from pgsig.aip35 import SignalAction, SignalOperator, user_define_control_dependency
from pgsig.store import in_job, triggers
from pgsig.store.database import Connection, connect
from tests.flow.hands import Hands

X = ["x"]
RESTART = SignalAction.RESTART


@pytest.fixture
def hands(connection: Connection, database: str) -> Iterator[Hands]:
    with connect(database, name="engine") as other:
        yield Hands(connection, other)


def test_scenario_1_streaming_triggers_batch(hands: Hands) -> None:
    wf = Workflow("w")
    SignalOperator(wf, "job_2", streaming=True, command=X, autostart=True)
    SignalOperator(wf, "job_1", command=X).depends_on_signal("key_1", "value_1", action=RESTART)
    hands.define(wf.definition())
    for _ in range(3):
        hands.send("key_1", "value_1", "w.job_2")
        hands.end("w.job_1")
    hands.send("key_1", "other", "w.job_2")
    assert hands.began == ["w.job_2", *["w.job_1"] * 3]
    assert hands.states("w.job_2") == ["running"]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_scenario_2_batch_triggers_streaming(hands: Hands, order: tuple[int, int]) -> None:
    wf = Workflow("w")
    job = SignalOperator(wf, "job_1", streaming=True, command=X)
    job.depends_on_signal("key_1", "value_1").depends_on_signal("key_2", "value_2")
    hands.define(wf.definition())
    first, second = order
    hands.send(f"key_{first}", f"value_{first}")
    assert hands.began == []
    hands.send(f"key_{second}", f"value_{second}")
    assert hands.began == ["w.job_1"]
    hands.send(f"key_{first}", f"value_{first}")
    assert [action[2] for action in hands.actions()] == ["START"]


def test_scenario_4_hot_reload_by_listening(hands: Hands) -> None:
    wf = Workflow("w")
    wf.streaming("stream", command=X, autostart=True)
    wf.batch("batch", command=X, autostart=True)
    hands.define(wf.definition())
    assert sorted(hands.began) == ["w.batch", "w.stream"]
    actions = hands.actions()
    cursor = hands.call("SELECT pg_current_snapshot()::text")
    heard = []
    for number in range(5):
        hands.send("key_1", f"model {number}", "w.batch")
        found, cursor = in_job.signals_after(hands.connection, "default", "^key_1$", cursor)
        heard += [one.value for one in found]
    assert heard == [f'"model {number}"' for number in range(5)]
    assert hands.actions() == actions


def test_scenario_5_online_machine_learning(hands: Hands) -> None:
    wf = Workflow("w")
    wf.streaming("pre_processing", command=X, autostart=True)
    wf.streaming("predicting", command=X, autostart=True, reload=signal("model_deployed"))
    training = wf.batch("training", command=X, on_busy="skip", start=signal("data_prepared"))
    wf.batch("validating", command=X, start=training.succeeded())
    wf.batch("deploying", command=X, start=signal("model_validated"))
    hands.define(wf.definition())
    hands.send("data_prepared", sender="w.pre_processing")
    hands.send("data_prepared", sender="w.pre_processing")  # during the training
    hands.end("w.training")
    hands.send("model_validated", "/m/1", "w.validating")
    hands.end("w.validating")
    hands.send("model_deployed", "/m/1", "w.deploying")
    hands.end("w.deploying")
    assert hands.reloads() == [("w.predicting", ["/m/1"])]
    hands.send("data_prepared", sender="w.pre_processing")
    hands.end("w.training")
    hands.end("w.validating")  # a worse model: nothing is said of it
    assert set(hands.began[:2]) == {"w.predicting", "w.pre_processing"}
    assert hands.began[2:] == ["w.training", "w.validating", "w.deploying", "w.training", "w.validating"]
    assert hands.states("w.predicting") == ["running"]
    results = [result for operator, _, _, result, _ in hands.actions() if operator == "training"]
    assert results == ["recorded", "skipped", "recorded"]


def test_scenario_6_batch_training_streaming_prediction(hands: Hands) -> None:
    wf = Workflow("w")
    train = SignalOperator(wf, "train", command=X)
    train.depends_on_signal("data")
    validate, push = SignalOperator(wf, "validate", command=X), SignalOperator(wf, "push", command=X)
    predict = SignalOperator(wf, "predict", streaming=True, command=X)
    user_define_control_dependency(validate, train, "model_generated", action=RESTART)
    user_define_control_dependency(push, validate, "model_validated", action=RESTART)
    user_define_control_dependency(predict, push, "model_deployed", action=RESTART)
    hands.define(wf.definition())
    for number in range(2):
        hands.send("data")
        for operator, key in (
            ("train", "model_generated"),
            ("validate", "model_validated"),
            ("push", "model_deployed"),
        ):
            hands.send(key, f"model {number}", f"w.{operator}")
            hands.end(f"w.{operator}")
    assert hands.began == [f"w.{name}" for name in ("train", "validate", "push", "predict")] * 2
    assert hands.states("w.predict") == ["stopped", "running"]
    key = "SELECT key FROM pgsig.signals WHERE key IN ('run.w.predict.stopped', 'run.w.predict.running') ORDER BY id"
    moves = [row[0].rpartition(".")[2] for row in hands.connection.execute(key.encode())]
    assert moves == ["running", "stopped", "running"]  # the old one had stopped before the new one began
    before = hands.actions()
    hands.send("model_deployed", "model 3", "w.train")  # the wrong sender
    hands.send("model_deployed", "model 3", "w.push", namespace="other")
    assert hands.actions() == before


def test_scenario_10_stop_when_all_are_done(hands: Hands) -> None:
    wf = Workflow("w")
    one, two = (wf.batch(name, command=X, autostart=True) for name in ("t1", "t2"))
    wf.streaming("t3", command=X, autostart=True, stop=all_of(one.succeeded(), two.succeeded()))
    hands.define(wf.definition())
    assert sorted(hands.began) == ["w.t1", "w.t2", "w.t3"]
    hands.end("w.t2")
    assert hands.states("w.t3") == ["running"]
    hands.end("w.t1")
    assert hands.states("w.t3") == ["stopped"]


ONCE_AT_100 = """
CREATE SCHEMA ops;
CREATE FUNCTION ops.is_met(signal jsonb, INOUT state jsonb, OUT met boolean) LANGUAGE plpgsql AS $$
DECLARE before int := coalesce((state->>'total')::int, 0); after int := before + (signal->'value')::int;
BEGIN
    met := before < 100 AND after >= 100;
    state := jsonb_build_object('total', after);
END $$
"""


def test_scenario_11_accumulating_condition(hands: Hands) -> None:
    hands.connection.execute(ONCE_AT_100.encode())
    wf = Workflow("w")
    consumer = wf.batch("consumer", command=X, start=signal("num_event").met_by("ops.is_met"))
    producers = [f"w.producer_{number}" for number in range(3)]
    for name in producers:
        wf.streaming(name[2:], command=X, autostart=True, stop=consumer.succeeded())
    hands.define(wf.definition())
    for name in producers:
        hands.send("num_event", 30, name)
    assert "w.consumer" not in hands.began
    hands.restart_worker()
    hands.send("num_event", 10, producers[0])
    hands.send("num_event", 10, producers[1])
    assert hands.began.count("w.consumer") == 1
    hands.end("w.consumer")
    assert [hands.states(name) for name in producers] == [["stopped"]] * 3
    for _ in range(5):
        hands.send("num_event", 50)
    assert hands.began.count("w.consumer") == 1


def test_scenario_13_cross_workflow_trigger(hands: Hands) -> None:
    one, two = Workflow("w1"), Workflow("w2")
    one.batch("task", command=X, autostart=True)
    two.batch("task", command=X, start=signal("trigger_workflow"))
    hands.define(two.definition())
    hands.define(one.definition())
    hands.send("trigger_workflow", sender="w1.task")
    hands.end("w2.task")
    assert hands.began == ["w1.task", "w2.task"]
    hands.call("SELECT pgsig.pause('w2', 'drop')")
    hands.send("trigger_workflow", sender="w1.task")
    assert hands.began.count("w2.task") == 1
    hands.call("SELECT pgsig.resume('w2')")
    hands.work()
    hands.send("trigger_workflow", sender="w1.task")
    assert hands.began.count("w2.task") == 2
    hands.send("trigger_workflow", sender="w1.task", namespace="other")
    assert hands.began.count("w2.task") == 2


def test_scenario_14_periodic(hands: Hands) -> None:
    wf = Workflow("w")
    task_1 = wf.batch("task_1", command=X, restart=cron("* * * * *"))
    wf.batch("task_2", command=X, start=task_1.succeeded())
    wf.batch("interval", command=X, start=every("1m"))
    hands.define(wf.definition())
    first = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    moments = [first + timedelta(minutes=number) for number in range(3)]
    for moment in moments:
        hands.tick(moment, moment)  # two clocks: one tick
        hands.end("w.task_1")
        hands.end("w.task_2")
        hands.end("w.interval")
    assert {name: hands.began.count(name) for name in hands.began} == {"w.task_1": 3, "w.task_2": 3, "w.interval": 3}
    without = {"workflow": "w", "operators": {"task_2": {"batch": {"command": X}}}}
    hands.define(without)
    assert triggers.live(hands.connection) == []


def test_scenario_16_watermark(hands: Hands) -> None:
    wf = Workflow("w")
    wf.streaming("stream", command=X, autostart=True)
    wf.batch("train", command=X, on_busy="queue", start=signal("watermark"))
    hands.define(wf.definition())
    hands.send("watermark", "01:00", "w.stream")
    hands.end("w.train")
    for hour in ("02:00", "03:00", "04:00"):  # late, and at once
        hands.call("SELECT pgsig.emit('watermark', to_jsonb(%s::text))", hour)
    hands.work()
    for _ in range(3):
        hands.end("w.train")
    assert hands.began == ["w.stream", *["w.train"] * 4]
    evidence = [signals[0] for operator, _, _, _, signals in hands.actions() if operator == "train"]
    values = "SELECT array_agg(value->>0 ORDER BY id) FROM pgsig.signals WHERE id = ANY (%s)"
    assert hands.call(values, evidence) == ["01:00", "02:00", "03:00", "04:00"]
    assert triggers.live(hands.connection) == []  # no clock has a say
