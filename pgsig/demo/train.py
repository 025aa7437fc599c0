"""The operator `train`: learns from the stream without end, and saves a model every few seconds.

It may be killed anywhere. The next attempt goes on from the model that its checkpoint names; between two models everything
follows from the number of the batch, so a model that is made twice is the same one, and its event id makes its signal the same one.
"""

from __future__ import annotations

from pgsig import run
from pgsig.demo import digits
from pgsig.demo.folder import Folder
from pgsig.demo.model import BATCHES, Learner, name_of, read, save


def main() -> None:
    """Learn until asked to stop."""
    run.handle_stop()
    folder = Folder()
    folder.note_pid("train")
    every = float(run.params["every"])
    # A new run has no checkpoint: it goes on from the newest file.
    number = int((run.checkpoint_value or {}).get("model", 0)) or folder.newest_model()
    begin = read(folder, name_of(number)) if number and folder.model_file(name_of(number)).exists() else None
    learner = Learner(digits.load(folder), begin)
    print(f"learning goes on from {begin.name}" if begin else "learning begins", flush=True)
    while not run.stopping.is_set():
        learner.learn()
        if learner.batches % BATCHES == 0:
            publish(folder, learner)
        run.stopping.wait(every / BATCHES)
    print(f"asked to stop after {learner.batches} batches", flush=True)


def publish(folder: Folder, learner: Learner) -> None:
    """Save a model and say so. In this order: whoever hears of it finds the file."""
    model = learner.model()
    save(folder, model)
    value = {"model": model.name, "path": f"models/{model.name}.npz", "samples": model.samples}
    run.emit("model.trained", value, subject=model.name, event_id=f"{folder.series}-{model.name}")
    run.checkpoint({"model": learner.batches // BATCHES})
    run.progress(model.samples, text=f"{model.name} after {model.samples:,} digits")
    folder.prune()
    print(f"{model.name} after {model.samples:,} digits", flush=True)
