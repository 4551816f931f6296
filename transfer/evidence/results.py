"""A setting's runs from one start, over the seeds, on their test images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from transfer.evidence import scores
from transfer.evidence.scores import Measure
from transfer.evidence.stats import Seeds
from transfer.images.audit import Audit
from transfer.params import Grid
from transfer.runs import Run, Setting
from transfer.training.predictions import Predictions
from transfer.training.record import Record

DIVERGED = 100.0
"""Nats: more than any loss that float16 probabilities allow."""


@dataclass(frozen=True)
class Scored:
    """A run on its n test images.

    name: str [n], <class>/<file>. labels: str [n], the class that it has, and `predicted` that
    predicted at the epoch to report. right: bool [epochs, n]. scores: [epochs, n], see
    transfer.evidence.scores. always: [n], those of always answering the most frequent class.
    chosen: the epoch to report, see scores.chosen_epoch. held: [v], the scores of the validation
    images at that epoch, and `loss` their cross entropies in nats, DIVERGED for a run without
    numbers; None where there are no such images.
    """

    name: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    right: np.ndarray
    scores: np.ndarray
    always: np.ndarray
    chosen: int
    held: np.ndarray | None = None
    loss: np.ndarray | None = None

    @property
    def best(self) -> float:
        """The best epoch's test accuracy, as the paper gives it."""
        return float(self.right.mean(1).max())

    @classmethod
    def from_predictions(cls, parts: dict[str, Predictions], measure: Measure) -> "Scored":
        test, held = parts["test"], parts.get("validation")
        chosen = scores.chosen_epoch(parts, measure)
        return cls(
            test.name,
            test.labels,
            test.predicted_labels(chosen),
            test.right,
            scores.score(measure, test),
            scores.score(measure, scores.always(test))[0],
            chosen,
            None if held is None else scores.score(measure, held)[chosen],
            None if held is None else np.nan_to_num(held.loss[chosen], nan=DIVERGED),
        )


class About(NamedTuple):
    """A data set. measure: what its settings are chosen by. leaked: names of the test images that
    stand in training too. ratio: see stats.Seeds."""

    measure: Measure
    leaked: list[str]
    ratio: float = 0.0

    @classmethod
    def from_run(cls, run: Run, select_by: str) -> Self:
        """Of the run's data set. Raises UserError if the run was not trained."""
        audit = Audit.load(run.dataset)
        return cls(
            measure=scores.measure(select_by, Record.load(run).counts["train"]),
            leaked=[test for test, _ in audit.leaked],
            ratio=audit.redrawn.ratio if audit.redrawn else 0.0,
        )


Read = Callable[[Run], Scored]


@dataclass(frozen=True)
class Results:
    """All runs of the grid. `about`: by data set."""

    grid: Grid
    about: dict[str, About]
    read: Read

    def runs(self, setting: Setting, init: str) -> list[Scored]:
        return [self.read(setting.run(init, seed)) for seed in self.grid.seed]

    def seeds(self, setting: Setting, init: str) -> Seeds:
        """Each at its own chosen epoch."""
        runs = self.runs(setting, init)
        return Seeds([run.scores[run.chosen] for run in runs], self.about[setting.dataset].ratio)

    def always(self, setting: Setting, init: str) -> Seeds:
        """Of always answering the most frequent class."""
        runs = self.runs(setting, init)
        return Seeds([run.always for run in runs], self.about[setting.dataset].ratio)
