"""Models: a linear classifier as plain arrays, and the learner that makes them.

Files hold numbers only and are read with `allow_pickle=False`: a model file cannot run code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pgsig.demo.digits import BATCH, DARKEST, PIXELS, Digits, Floats, Ints
from pgsig.demo.folder import Folder

BATCHES = 20  # from one model to the next
STEP = 0.02  # of the gradient descent: small enough to learn, large enough to forget
CLASSES = np.arange(10)


@dataclass(frozen=True)
class Model:
    """weights: a row of 64 for each of the ten digits. batches: how many batches it has learned from."""

    name: str
    batches: int
    weights: Floats
    bias: Floats

    @property
    def samples(self) -> int:
        return self.batches * BATCH

    def predict(self, pixels: Floats) -> tuple[Ints, Floats]:
        """The digit that each row shows most likely, and how sure that is: 0 to 1."""
        scores = pixels @ self.weights.T + self.bias
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        answers: Ints = likely.argmax(axis=1).astype(np.int64)
        return answers, likely.max(axis=1)


def name_of(number: int) -> str:
    return f"m{number:04d}"


def save(folder: Folder, model: Model) -> None:
    """Write a model's file, at once or not at all."""
    folder.write(
        folder.model_file(model.name),
        lambda file: np.savez(file, weights=model.weights, bias=model.bias, batches=np.int64(model.batches)),
    )


def read(folder: Folder, name: str) -> Model:
    """Read a model's file. Raises OSError, and ValueError for a name or a file that is not a model's."""
    with np.load(folder.model_file(name), allow_pickle=False) as file:
        if "weights" not in file or file["weights"].shape != (10, PIXELS) or file["bias"].shape != (10,):
            raise ValueError(f"the file of {name} does not hold a model")
        return Model(name, int(file["batches"]), file["weights"].astype(np.float64), file["bias"].astype(np.float64))


def pixels_of(values: Any) -> Floats:
    """64 numbers from 0 to 16 as a row that a model reads. Raises ValueError."""
    numbers = isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != PIXELS or not all(0 <= v <= DARKEST for v in values):
        raise ValueError(f"pixels is a list of {PIXELS} numbers from 0 to {DARKEST:g}, line by line from the top")
    return np.array([values], dtype=np.float64) / DARKEST


class Learner:
    """Learns batch after batch of the stream. Where it goes on from a model, it becomes what it would have become without a break."""

    def __init__(self, digits: Digits, begin: Model | None = None) -> None:
        from sklearn.linear_model import SGDClassifier  # two seconds: only who learns pays for it

        self._digits = digits
        self.batches = 0
        self._classifier: Any = SGDClassifier(
            loss="log_loss", learning_rate="constant", eta0=STEP, alpha=1e-4, shuffle=False, random_state=0
        )
        if begin is not None:
            # One batch makes the arrays; then they are what they were.
            self._classifier.partial_fit(*digits.batch(1), classes=CLASSES)
            self._classifier.coef_[:], self._classifier.intercept_[:] = begin.weights, begin.bias
            self.batches = begin.batches

    def learn(self) -> None:
        """One batch."""
        self.batches += 1
        self._classifier.partial_fit(*self._digits.batch(self.batches), classes=CLASSES)

    def model(self) -> Model:
        """What it knows now."""
        name = name_of(self.batches // BATCHES)
        return Model(name, self.batches, self._classifier.coef_.copy(), self._classifier.intercept_.copy())
