"""The demonstration's folder: what its jobs share with each other, as files. Jobs find it as their current folder.

digits.npz       the data set          models/m0001.npz   what `train` has saved
served           the model in service  verdicts.jsonl     what `evaluate` has found, a line for each model
config.json      of the service        port               where the service listens
pids/train …     for `kill -9`         report.html        what `report` has written
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

MODEL = re.compile(r"m(\d{4,12})")
MODELS_KEPT = 60
DEFAULT_CONFIG: dict[str, Any] = {"min_confidence": 0.0}


@dataclass(frozen=True)
class Verdict:
    """What an evaluation has found. accuracy: share of right answers on what comes in now; overall: on all digits alike.
    served, served_accuracy: the model that it was compared with, on the same digits ("" and 0 when there was none)."""

    model: str
    samples: int
    accuracy: float
    overall: float
    served: str
    served_accuracy: float
    verdict: str  # passed or failed


class Folder:
    """See the module. Every file is written whole under its final name: a reader never meets half of one."""

    def __init__(self, path: Path | str = ".") -> None:
        self.path = Path(path)
        self.digits = self.path / "digits.npz"
        self.models = self.path / "models"
        self.report = self.path / "report.html"

    def write(self, path: Path, fill: Callable[[BinaryIO], object]) -> None:
        """Replace a file by what `fill` writes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("wb") as file:
            fill(file)
        draft.replace(path)

    def write_text(self, path: Path, text: str) -> None:
        self.write(path, lambda file: file.write(text.encode()))

    def read(self, name: str, default: str = "") -> str:
        """A small file's text without its last newline; `default` where there is none."""
        try:
            return (self.path / name).read_text(encoding="utf-8").rstrip("\n")
        except FileNotFoundError:
            return default

    # ── models ──

    def model_file(self, model: str) -> Path:
        """Where a model lies. Raises ValueError for anything but the name of one."""
        if not MODEL.fullmatch(model):
            raise ValueError(f"{model!r} is not the name of a model")
        return self.models / f"{model}.npz"

    def newest_model(self) -> int:
        """The number of the last model that was saved; 0 if there is none."""
        found = (MODEL.fullmatch(path.stem) for path in self.models.glob("m*.npz"))
        return max((int(match[1]) for match in found if match), default=0)

    def prune(self) -> None:
        """Remove old models, but never the one in service."""
        served = self.served
        for path in sorted(self.models.glob("m*.npz"), key=lambda path: (len(path.stem), path.stem))[:-MODELS_KEPT]:
            if path.stem != served:
                path.unlink(missing_ok=True)

    @property
    def series(self) -> str:
        """A random name for this folder's models: with it an event id is right for any database that the folder is used with."""
        found = self.read("series")
        if not found:
            found = secrets.token_hex(4)
            self.write_text(self.path / "series", found)
        return found

    # ── the service ──

    @property
    def served(self) -> str:
        """The model in service, "" if there is none."""
        return self.read("served")

    @served.setter
    def served(self, model: str) -> None:
        self.write_text(self.path / "served", model)

    @property
    def config(self) -> dict[str, Any]:
        return {**DEFAULT_CONFIG, **json.loads(self.read("config.json", "{}"))}

    @config.setter
    def config(self, config: dict[str, Any]) -> None:
        self.write_text(self.path / "config.json", json.dumps(config))

    @property
    def port(self) -> int:
        """Where the service listens. 0: at any port."""
        return int(self.read("port", "0"))

    @port.setter
    def port(self, port: int) -> None:
        self.write_text(self.path / "port", str(port))

    def note_pid(self, operator: str) -> None:
        """Leave this process's id, for people who want to kill it."""
        self.write_text(self.path / "pids" / operator, str(os.getpid()))

    # ── verdicts ──

    def add_verdict(self, verdict: Verdict) -> None:
        with (self.path / "verdicts.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")

    def verdicts(self) -> Iterator[Verdict]:
        """In their order; each model once, with what was found last."""
        found: dict[str, Verdict] = {}
        for line in self.read("verdicts.jsonl").splitlines():
            verdict = Verdict(**json.loads(line))
            found[verdict.model] = verdict
        yield from found.values()
