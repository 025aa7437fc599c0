"""The demonstration's learner, judge and report, on the real digits."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from pgsig.definition import load as load_definition
from pgsig.demo import digits
from pgsig.demo.digits import Digits
from pgsig.demo.evaluate import in_service, judge
from pgsig.demo.folder import MODELS_KEPT, Folder, Verdict
from pgsig.demo.model import BATCHES, Learner, Model, name_of, pixels_of, read, save
from pgsig.demo.report import page, table
from pgsig.demo.serve import configured


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return digits.load(Folder(tmp_path_factory.mktemp("digits")))


def learned(data: Digits, models: int, begin: Model | None = None) -> list[Model]:
    learner = Learner(data, begin)
    found = []
    for _ in range(models):
        for _ in range(BATCHES):
            learner.learn()
        found.append(learner.model())
    return found


@pytest.fixture(scope="module")
def models(data: Digits) -> list[Model]:
    """What is learned without a break: many tests look at parts of it."""
    return learned(data, 40)


def test_nothing_is_both_learned_and_judged_by(data: Digits) -> None:
    assert len(data.truth) == 1797
    assert not set(data.learn) & set(data.held)
    assert len(data.learn) + len(data.held) == 1797
    assert set(data.truth[data.held]) == set(range(10))


def test_mix_drifts_and_comes_around() -> None:
    assert digits.mix(0).argmax() == 0
    assert digits.mix(digits.PERIOD // 2).argmax() == 5
    assert np.allclose(digits.mix(7), digits.mix(7 + digits.PERIOD))
    assert np.isclose(digits.mix(123).sum(), 1)


def test_learning_is_real_and_what_comes_in_matters(data: Digits, models: list[Model]) -> None:
    served: Model | None = None
    verdicts = []
    for model in models[:12]:
        verdicts.append(judge(data, model, served))
        if verdicts[-1].verdict == "passed":
            served = model
    # From one in two to nine in ten, without ever having seen the digits that it is judged by.
    assert verdicts[0].verdict == "passed"
    assert verdicts[-1].accuracy > 0.85 > verdicts[0].accuracy
    # A mix that consists of some digits only leaves the others unknown.
    assert verdicts[-1].accuracy > verdicts[-1].overall
    assert sum(one.verdict == "passed" for one in verdicts[:3]) >= 2


def test_quality_moves_up_and_down(data: Digits, models: list[Model]) -> None:
    served: Model | None = None
    found: list[Verdict] = []
    for model in models:
        found.append(judge(data, model, served))
        served = model if found[-1].verdict == "passed" else served
    told = [one.verdict for one in found]
    assert 10 <= told.count("passed") <= 36
    assert max(one.overall for one in found[10:]) - min(one.overall for one in found[10:]) > 0.05
    # The model in service grows old while the mix moves on.
    assert any(b.served == a.served and b.served_accuracy < a.served_accuracy for a, b in pairwise(found))


def test_learner_that_was_killed_goes_on_as_if_nothing_had_been(
    data: Digits, models: list[Model], tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    whole = models[:5]
    save(folder, whole[1])
    rest = learned(data, 3, begin=read(folder, "m0002"))
    assert [model.name for model in rest] == ["m0003", "m0004", "m0005"]
    assert np.array_equal(rest[-1].weights, whole[-1].weights)
    assert np.array_equal(rest[-1].bias, whole[-1].bias)


def test_model_file_holds_numbers_only(data: Digits, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    model = learned(data, 1)[0]
    save(folder, model)
    back = read(folder, "m0001")
    assert (back.batches, back.samples) == (20, 320)
    assert np.array_equal(back.weights, model.weights)
    np.savez(folder.model_file("m0002"), weights=np.array([object()], dtype=object), bias=np.zeros(10), batches=1)
    with pytest.raises(ValueError, match="allow_pickle"):
        read(folder, "m0002")
    np.savez(folder.model_file("m0003"), weights=np.zeros((2, 2)), bias=np.zeros(10), batches=1)
    with pytest.raises(ValueError, match="does not hold a model"):
        read(folder, "m0003")


@pytest.mark.parametrize("name", ["../../etc/passwd", "m1", "m0001.npz", "", "M0001", "m0001\n"])
def test_only_names_of_models_become_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a model"):
        Folder(tmp_path).model_file(name)


def test_model_in_service_survives_pruning_and_damage(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    model = Model("m0001", 20, np.zeros((10, 64)), np.zeros(10))
    for number in range(1, MODELS_KEPT + 4):
        save(folder, Model(name_of(number), number * 20, model.weights, model.bias))
    folder.served = "m0002"
    folder.prune()
    assert folder.newest_model() == MODELS_KEPT + 3
    assert not folder.model_file("m0001").exists()
    assert in_service(folder) is not None
    folder.model_file("m0002").write_bytes(b"not a model")
    assert in_service(folder) is None


@pytest.mark.parametrize(
    "values", [None, [], [1] * 63, ["1"] * 64, [True] * 64, [17] * 64, [-1] * 64, [float("nan")] * 64]
)
def test_pixels_are_checked(values: object) -> None:
    with pytest.raises(ValueError, match="64 numbers"):
        pixels_of(values)


def test_prediction_of_a_real_digit(data: Digits, models: list[Model]) -> None:
    model = models[11]
    row = next(int(row) for row in data.held if data.truth[row] == 4)  # common at that time
    answers, sure = model.predict(pixels_of((data.pixels[row] * 16).tolist()))
    assert answers[0] == 4
    assert 0.1 < sure[0] <= 1
    assert len(data.picture(row)) == 8


@pytest.mark.parametrize(
    ("change", "config"),
    [
        ({"min_confidence": 0.8}, {"min_confidence": 0.8}),
        ({"min_confidence": 2}, {"min_confidence": 0.0}),
        ({"min_confidence": "x", "port": 1}, {"min_confidence": 0.0}),
        (None, {"min_confidence": 0.0}),
        ([1], {"min_confidence": 0.0}),
    ],
)
def test_configuration_takes_what_it_knows(change: object, config: dict[str, float]) -> None:
    assert configured({"min_confidence": 0.0}, change) == config


def test_report_is_a_page_and_a_table() -> None:
    verdicts = [
        Verdict("m0001", 320, 0.7, 0.5, "", 0.0, "passed"),
        Verdict("m0002", 640, 0.6, 0.6, "m0001", 0.7, "failed"),
    ]
    shown = page(verdicts, "m0001", datetime(2026, 1, 1, tzinfo=UTC))
    assert "1 of 2 passed" in shown
    assert shown.count("<circle") == 2
    lines = table(verdicts, "m0001").splitlines()
    assert lines[1].endswith("passed (served)")
    assert lines[2].split() == ["m0002", "640", "60.0%", "60.0%", "m0001", "70.0%", "failed"]
    assert "No model was judged yet" in page([], "", datetime(2026, 1, 1, tzinfo=UTC))


def test_verdict_of_a_repeated_evaluation_counts_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for verdict in ("passed", "failed"):
        folder.add_verdict(Verdict("m0001", 320, 0.7, 0.5, "", 0.0, verdict))
    assert [one.verdict for one in folder.verdicts()] == ["failed"]


def test_workflow_is_a_definition() -> None:
    import pgsig.demo

    definition = load_definition(Path(pgsig.demo.__file__).with_name("workflow.yaml"))
    assert [operator.name for operator in definition.operators] == ["train", "evaluate", "serve", "canary", "report"]
    rules = {f"{o.name}.{r.name}": r.by for o in definition.operators for r in o.rules}
    # One instance each, however many models there are; the ticks of a report have no subject.
    assert {name for name, by in rules.items() if by != "none"} == {"report.start"}
