"""The runs as the statistics take them: their scores, and what they were trained on and with."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from transfer.evidence import scores
from transfer.evidence.records import Alike
from transfer.evidence.scores import Criterion, Measure
from transfer.evidence.stats import Seeds
from transfer.images.audit import Audit
from transfer.params import Grid
from transfer.runs import Run, Setting
from transfer.training.predictions import Predictions
from transfer.training.record import Record, computed_on


@dataclass(frozen=True)
class Scored:
    """A run on its n test images.

    name: str [n], <class>/<file>. labels: str [n]. predicted: str [n], the class predicted at the
    chosen epoch. right: bool [epochs, n]. scores: [epochs, n], see transfer.evidence.scores.
    always: [n], the scores of always answering the most frequent class. chosen: the epoch to
    report, see scores.chosen_epoch. validation: [v], the scores of the validation images at that
    epoch; penalty: [v], what settings are chosen by, see scores.penalty; validation_name: str [v];
    all None without such images.
    """

    name: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    right: np.ndarray
    scores: np.ndarray
    always: np.ndarray
    chosen: int
    validation: np.ndarray | None = None
    penalty: np.ndarray | None = None
    validation_name: np.ndarray | None = None

    @property
    def best(self) -> float:
        """The best epoch's test accuracy, as the paper gives it."""
        return float(self.right.mean(1).max())

    @classmethod
    def from_predictions(
        cls, parts: dict[str, Predictions], measure: Measure, criterion: Criterion = "brier"
    ) -> "Scored":
        test, validation = parts["test"], parts.get("validation")
        chosen = scores.chosen_epoch(parts, measure)
        return cls(
            test.name,
            test.labels,
            test.predicted_labels(chosen),
            test.right,
            scores.score(measure, test),
            scores.score(measure, scores.always(test))[0],
            chosen,
            None if validation is None else scores.score(measure, validation)[chosen],
            None if validation is None else scores.penalty(criterion, validation, chosen),
            None if validation is None else validation.name,
        )


@dataclass(frozen=True)
class DataInfo:
    """A data set. measure: what its settings are judged by. leaked: names of the test images that
    also occur in training. resplit: whether each seed has its own test images. criterion: what
    settings are chosen by."""

    measure: Measure
    leaked: list[str]
    resplit: bool = False
    criterion: Criterion = "brier"

    @classmethod
    def from_run(cls, run: Run, select_by: str) -> Self:
        """That of the run's data set. Raises UserError if the run was not trained."""
        audit = Audit.load(run.dataset)
        counts = Record.load(run).counts["train"]
        return cls(
            measure=scores.measure(select_by, counts),
            criterion=scores.criterion(select_by, counts),
            leaked=[test for test, _ in audit.leaked],
            resplit=audit.redrawn is not None and audit.redrawn.test > 0,
        )


Read = Callable[[Run], Scored]


@dataclass(frozen=True)
class Results:
    """All runs of the grid. data: by data set."""

    grid: Grid
    data: dict[str, DataInfo]
    read: Read

    def runs(self, setting: Setting, init: str) -> list[Scored]:
        return [self.read(setting.run(init, seed)) for seed in self.grid.seed]

    def seeds(self, setting: Setting, init: str) -> Seeds:
        """Their scores, each at its own chosen epoch."""
        runs = self.runs(setting, init)
        return self._seeds(setting, runs, [run.scores[run.chosen] for run in runs])

    def always(self, setting: Setting, init: str) -> Seeds:
        """The scores of always answering the most frequent class."""
        runs = self.runs(setting, init)
        return self._seeds(setting, runs, [run.always for run in runs])

    def _seeds(self, setting: Setting, runs: list[Scored], scores: list[np.ndarray]) -> Seeds:
        resplit = self.data[setting.dataset].resplit
        return Seeds(scores, [run.name for run in runs] if resplit else None)


def mixed(records: Iterable[Record]) -> list[Alike]:
    """The runs by device and package versions, the most frequent first; [] if all runs agree.

    A package that only some runs use, such as timm, is compared among those. A GPU's arithmetic is
    left out, since recipes choose it.
    """
    origins = [
        {"device": _device(run) if run.device == "cpu" else run.device, **run.versions}
        for run in records
    ]
    names = sorted({name for origin in origins for name in origin})
    differ = [name for name in names if len({origin.get(name) for origin in origins} - {None}) > 1]
    counts = Counter(tuple((name, o[name]) for name in differ if name in o) for o in origins)
    return [Alike(runs=n, how=_words(dict(origin))) for origin, n in counts.most_common() if origin]


def mixed_warning(mixed: list[Alike]) -> str:
    """What a page says about runs that were not trained alike; '' if all were."""
    if not mixed:
        return ""
    return (
        f"Not all runs were trained alike: {'; '.join(map(str, mixed))}. Differences between "
        "settings may also come from that. `dvc repro -f` trains all runs again."
    )


def trained_with(records: Iterable[Record]) -> dict[str, str]:
    """Every `device` and all `packages` that occur, in words."""
    runs = list(records)
    packages = {", ".join(" ".join(pair) for pair in sorted(run.versions.items())) for run in runs}
    devices = {_device(run) for run in runs}
    return {"device": "; ".join(sorted(devices)), "packages": "; ".join(sorted(packages))}


def _device(run: Record) -> str:
    return computed_on(run.device, run.arithmetic, run.threads)


def _words(origin: dict[str, str]) -> str:
    words = [f"on {origin.pop('device')}"] if "device" in origin else []
    packages = ", ".join(" ".join(pair) for pair in origin.items())
    return " ".join([*words, f"with {packages}"] if packages else words)
