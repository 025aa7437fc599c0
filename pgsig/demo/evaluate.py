"""The operator `evaluate`: judges one model. It passes when it is better than the one in service, at the digits that come in now."""

from __future__ import annotations

from dataclasses import asdict

from pgsig import run
from pgsig.demo import digits
from pgsig.demo.digits import Digits
from pgsig.demo.folder import Folder, Verdict
from pgsig.demo.model import Model, read
from pgsig.errors import Conflict


def main() -> None:
    """Judge the model that started this run."""
    folder = Folder()
    signal = next(one for one in reversed(run.cause) if one.key == "model.trained")
    model = read(folder, signal.value["model"])
    found = judge(digits.load(folder), model, in_service(folder))
    folder.add_verdict(found)
    run.result(asdict(found))
    try:
        run.emit("model.validated", asdict(found), subject=model.name, event_id=f"{folder.series}-{model.name}")
    except Conflict:
        # Another attempt came so far, and what is served has changed since: its word stands.
        print(f"{model.name} was judged by an earlier attempt")
    against = f"{found.served} has {found.served_accuracy:.1%}" if found.served else "nothing is served yet"
    print(f"{model.name} {found.verdict}: right for {found.accuracy:.1%} of what comes in now, {against}")


def in_service(folder: Folder) -> Model | None:
    """The model that is served, if there is one that can be read."""
    try:
        return read(folder, folder.served) if folder.served else None
    except (OSError, ValueError):
        return None


def judge(data: Digits, model: Model, served: Model | None) -> Verdict:
    """Compare a model with the one in service on the held-out digits, in the mix that the model's last batch had."""
    pixels = data.pixels[data.held]
    answers, _ = model.predict(pixels)
    accuracy = data.judge(answers, model.batches)
    rival = data.judge(served.predict(pixels)[0], model.batches) if served else 0.0
    return Verdict(
        model=model.name,
        samples=model.samples,
        accuracy=round(accuracy, 4),
        overall=round(data.judge(answers), 4),
        served=served.name if served else "",
        served_accuracy=round(rival, 4),
        verdict="passed" if accuracy > rival else "failed",
    )
