"""The data: 1,797 handwritten digits that come with scikit-learn, some held out for judging, the others as an endless stream.

The mix of the stream drifts. At any time a few neighbouring digits are common and the others rare, and the common ones move on:
0 1 2, then 1 2 3, around to 9 0 1. So a model that is good now is not good for ever. Everything follows from the number of the
batch: who starts again at batch 400 sees what he would have seen.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsig.demo.folder import Folder
from pgsig.errors import PgsigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED = 20230717
HELD_OUT = 500
BATCH = 16  # digits
PERIOD = 600  # batches until the mix comes around
WIDTH = 2.0  # how many digits to either side are common
RARE = 0.02
PIXELS = 64
DARKEST = 16.0  # pixels are 0 to 16


@dataclass(frozen=True)
class Digits:
    """pixels: 0 to 1, a row for each digit. truth: what each shows. learn, held: rows to learn from, and rows to judge by."""

    pixels: Floats
    truth: Ints
    learn: Ints
    held: Ints

    def batch(self, number: int) -> tuple[Floats, Ints]:
        """Pixels and truth of a batch of the stream."""
        weights = mix(number)[self.truth[self.learn]]
        rows = np.random.default_rng([SEED, number]).choice(self.learn, BATCH, p=weights / weights.sum())
        return self.pixels[rows], self.truth[rows]

    def judge(self, answers: Ints, number: int | None = None) -> float:
        """Share of right answers for the held-out digits: in the mix of a batch, or each digit counting alike."""
        weights = np.ones(len(self.held)) if number is None else mix(number)[self.truth[self.held]]
        return float((answers == self.truth[self.held]) @ weights / weights.sum())

    def picture(self, row: int) -> list[str]:
        """A digit as eight lines of text."""
        shades = " .:-=+*#%@"
        lines = (self.pixels[row].reshape(8, 8) * (len(shades) - 1)).round().astype(int)
        return ["".join(shades[shade] * 2 for shade in line) for line in lines]


def mix(number: int) -> Floats:
    """How common each of the ten digits is in a batch; the sum is 1."""
    away = np.abs(np.arange(10) - number / PERIOD * 10 % 10)
    away = np.minimum(away, 10 - away)
    weights = np.exp(-((away / WIDTH) ** 2) / 2) + RARE
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def load(folder: Folder) -> Digits:
    """Read the data; the first time it is taken from scikit-learn. Raises PgsigError where that is not installed."""
    if not folder.digits.exists():
        pixels, truth = _from_package()
        folder.write(folder.digits, lambda file: np.savez_compressed(file, pixels=pixels, truth=truth))
    with np.load(folder.digits, allow_pickle=False) as file:
        pixels, truth = file["pixels"] / DARKEST, file["truth"].astype(np.int64)
    rows = np.random.default_rng(SEED).permutation(len(truth))
    return Digits(pixels, truth, learn=rows[HELD_OUT:], held=rows[:HELD_OUT])


def _from_package() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise PgsigError(
            f"the demonstration learns with scikit-learn: {error}", code="PS820", fix="pip install 'pgsig[demo]'"
        ) from error
    pixels, truth = load_digits(return_X_y=True)
    return pixels.astype(np.uint8), truth.astype(np.uint8)


if __name__ == "__main__":
    # A process of its own: scikit-learn takes two seconds to import, and whoever shows progress has other things to do.
    found = load(Folder(sys.argv[1]))
    print(len(found.truth), len(found.learn), len(found.held))
