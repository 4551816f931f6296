"""The results of a run, as its run.json holds them, and the time that it took."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from transfer.files import Fields, Stored
from transfer.runs import CURVE, RECORD, Run


@dataclass(frozen=True)
class Epoch:
    """One row of a training curve.

    epoch: counted from 0. lr: its learning rate. Losses: means of the run's loss (the paper's is
    cross entropy, in nats). Accuracies: fractions. None: there are no validation images.
    """

    epoch: int
    lr: float
    train_loss: float | None
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float


class Best(Fields):
    """accuracy: the highest on the test images, a fraction. epoch: the first that reached it."""

    accuracy: float
    epoch: int


class Record(Run, Stored):
    """A run's run.json. Identical runs give identical files.

    best: the best epoch by test accuracy, which is an optimistic estimate.
    n: images in each part (`train`, `validation`, `test`). counts: part → class → images.
    data: sha256 of the packed pixels.
    device: the GPU's name, or cpu. arithmetic: on a GPU what convolutions computed in (TF32,
    float32 or bfloat16), and on a CPU the instruction set that PyTorch used, after `fixed` if
    train.arithmetic was.
    threads: the number that PyTorch used. versions: of torch, torchvision and numpy, and of timm
    for its networks. Python's is left out, so that every version of it gives the same files.
    """

    best: Best
    n: dict[str, int]
    counts: dict[str, dict[str, int]]
    data: str
    device: str
    arithmetic: str
    threads: int
    versions: dict[str, str]

    @classmethod
    def load(cls, run: Run) -> Self:
        """Read the run's run.json. Raises UserError if the run was not trained."""
        return cls.read(run.written(RECORD))


def curve(run: Run) -> list[Epoch]:
    """The run's epochs. Raises UserError if the run was not trained."""
    return curve_in(run.written(CURVE))


def curve_in(path: Path) -> list[Epoch]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = [{key: float(text) if text else None for key, text in row.items()} for row in rows]
    return [Epoch(**row | {"epoch": int(row["epoch"])}) for row in numbers]  # type: ignore


def chosen(curve: list[Epoch]) -> Epoch:
    """The epoch of the best validation accuracy (of equal ones the latest), or the last epoch where
    there are no validation images."""
    best = max(reversed(curve), key=lambda epoch: epoch.validation_accuracy or 0.0)
    return best if best.validation_accuracy is not None else curve[-1]


def computed_on(device: str, arithmetic: str, threads: int) -> str:
    """A Record's three fields in words."""
    count = f", {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else ""
    return f"{device} ({arithmetic}{count})"


class Time(Stored):
    """How long a run took, in a file that DVC does not track, since it differs between identical
    runs.

    seconds: of training and prediction, those before an interruption included. images_per_second:
    over all epochs, including images that are only predicted. host: the machine's name. of: sha256
    of the run's run.json, or the run's key while it is not finished. epochs: trained so far, None
    once it is finished.
    """

    seconds: float
    images_per_second: float
    host: str
    of: str
    epochs: int | None = None
