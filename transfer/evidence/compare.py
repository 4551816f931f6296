"""From the runs' predictions on the test images to the evidence."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np

from transfer.evidence import claims, stats, suspects
from transfer.evidence.found import (
    Accuracy,
    Arm,
    Choice,
    Claims,
    Evidence,
    Freezing,
    Gain,
    Paired,
    Recall,
    Row,
    Transfer,
    Unleaked,
)
from transfer.evidence.published import STARTS, published
from transfer.params import QUADRANTS, Dataset, Grid
from transfer.runs import DEFAULT, Place, Run, at_first_size, places
from transfer.training import predictions
from transfer.training.record import Record, computed_on

BOTH = ("pretrained", "scratch")
VERDICTS = {1: "helps", -1: "hurts", 0: claims.CANNOT_TELL}


@dataclass(frozen=True)
class Tested:
    """A run on its n test images.

    name: str [n], <class>/<file>. right: bool [epochs, n]. chosen: the epoch to report, see
    predictions.chosen_epoch. n_validation: validation images, which may be none. validation: the
    accuracy on them at the chosen epoch.
    """

    name: np.ndarray
    right: np.ndarray
    chosen: int
    n_validation: int = 0
    validation: float | None = None

    @property
    def best(self) -> float:
        """The best epoch's test accuracy, as the report gives it."""
        return float(self.right.mean(1).max())


Read = Callable[[Run], Tested]
Leaked = dict[str, list[str]]
"""Data set → names of the test images that stand in training too."""


def tested(parts: dict[str, predictions.Predictions]) -> Tested:
    chosen, held = predictions.chosen_epoch(parts), parts.get("validation")
    test = parts["test"]
    if held is None:
        return Tested(test.name, test.right, chosen)
    return Tested(test.name, test.right, chosen, len(held.label), float(held.right[chosen].mean()))


def compute(
    grid: Grid, datasets: dict[str, Dataset], leaked: Leaked, read: Read, load: suspects.Load
) -> Evidence:
    """Everything. Runs of several seeds are taken together, paired by seed."""
    arms = _Arms(grid, read)
    there = [place for name in grid.dataset for place in places(grid, name)]
    found = _corrected([_row(place, arms, leaked.get(place.dataset, [])) for place in there])
    sizes = claims.implied_sizes(published())
    choices = {name: _choices(found, name, arms) for name in grid.dataset}
    implied = {size.table: size.implied or size.stated for size in sizes}
    return Evidence(
        rows=found,
        frozen_finetuned=_corrected(list(_frozen_finetuned(there, arms))),
        transfer=list(_transfer(found, arms)),
        choices=[choice for own in choices.values() for choice in own],
        gains=list(_gains(grid, arms)),
        suspects=[one for own in choices.values() for one in suspects.find(own, grid.seed, load)],
        implied_sizes=sizes,
        claims=Claims(
            published=claims.check(claims.published_study(published(), implied)),
            ours=claims.check(_study(grid, datasets, arms)),
        ),
    )


def summary(found: Evidence, grid: Grid, records: Iterable[Record]) -> dict[str, Any]:
    """Of all that was found, what `dvc metrics diff` compares.

    Of each data set's recommended setting its name and its accuracy (`chosen`, at the epoch
    chosen); `rows`: data set → row → accuracy (and baseline) of the best test epoch, as in the
    report's tables, with `test_images`: how many images those are of; and `trained`, see there.
    """
    first = {choice.dataset: choice for choice in reversed(found.choices)}  # the recommended
    lines: dict[str, Any] = {name: {"test_images": first[name].n_test} for name in first}
    for row in found.rows:
        if row.images == grid.images[0]:
            best = {STARTS[start].lower(): row.arms[start].best for start in grid.start}
            lines[row.dataset][_name(row)] = best
    return {
        "chosen": {name: choice.chosen.mean for name, choice in first.items()},
        "setting": {name: f"{_name(choice)}-{choice.start}" for name, choice in first.items()},
        "rows": lines,
        "trained": trained_with(records),
    }


def _name(place: Place) -> str:
    return "-".join(map(str, place.setting)).removesuffix(f"-{DEFAULT}")


def trained_with(records: Iterable[Record]) -> dict[str, str]:
    """On what the runs were trained, and with which packages: of each, all that occur."""
    devices, packages = set(), set()
    for run in records:
        devices.add(computed_on(run.device, run.arithmetic, run.threads))
        packages.add(", ".join(" ".join(pair) for pair in sorted(run.versions.items())))
    return {"device": "; ".join(sorted(devices)), "packages": "; ".join(sorted(packages))}


def best(rows: list[Row], start: str) -> Row:
    """The row of the best setting with that start: by validation accuracy, where there is one."""
    return max(rows, key=lambda row: row.arms[start].score)


def best_run(grid: Grid, rows: list[Row]) -> Run:
    """The first run of the best setting at the first size: transfer, if the grid has any."""
    start = "pretrained" if "pretrained" in grid.start else grid.start[0]
    row = best([row for row in rows if row.images == grid.images[0]], start)
    return row.run(start, grid.seed[0])


@dataclass(frozen=True)
class _Arms:
    """The runs of a setting and start, over the seeds."""

    grid: Grid
    read: Read

    def runs(self, place: Place, start: str) -> list[Tested]:
        return [self.read(place.run(start, seed)) for seed in self.grid.seed]

    def right(self, place: Place, start: str) -> np.ndarray:
        """bool [seeds, n], each at its own chosen epoch."""
        return np.stack([run.right[run.chosen] for run in self.runs(place, start)])


def _labels(name: np.ndarray) -> np.ndarray:
    """Of test images by name: str [n]."""
    return np.array([str(one).split("/")[0] for one in name])


def _row(place: Place, arms: _Arms, leaked: list[str]) -> Row:
    """One line of a table: each start's accuracies, and transfer against baseline."""
    runs = {start: arms.runs(place, start) for start in arms.grid.start}
    name = next(iter(runs.values()))[0].name
    rights: dict[str, np.ndarray] = {start: arms.right(place, start) for start in runs}
    return Row(
        **dict(place),
        n_test=len(name),
        arms={start: _arm(found) for start, found in runs.items()},
        paired=_paired(rights["pretrained"], rights["scratch"]) if len(runs) == 2 else None,
        unleaked=_unleaked(name, rights, leaked) if leaked else None,
    )


def _arm(runs: list[Tested]) -> Arm:
    chosen = np.array([run.right[run.chosen].mean() for run in runs])
    best = np.array([run.best for run in runs])
    mean = float(chosen.mean())
    low, high = stats.wilson(mean, runs[0].right.shape[1])
    sd = round(float(chosen.std(ddof=1)), 6) if len(runs) > 1 else None
    validation = [run.validation for run in runs if run.validation is not None]
    return Arm(
        best=round(float(best[0]), 6),
        chosen=Accuracy(mean=round(mean, 6), sd=sd, low=low, high=high),
        inflation=round(float((best - chosen).mean()), 6),
        n_validation=runs[0].n_validation,
        validation=round(float(np.mean(validation)), 6) if validation else None,
    )


def _unleaked(name: np.ndarray, rights: dict[str, np.ndarray], leaked: list[str]) -> Unleaked:
    kept, labels = ~np.isin(name, leaked), _labels(name)
    counts = {str(label): int((labels[kept] == label).sum()) for label in np.unique(labels)}
    return Unleaked(
        n=counts,
        recall={
            start: (_recall(right, labels), _recall(right[:, kept], labels[kept]))
            for start, right in rights.items()
        },
    )


def _recall(right: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean over the classes of the share of their images that is right, bool [seeds, n]; None
    without images. Unlike accuracy it does not move when a class loses images at random."""
    shares = [right[:, labels == label].mean() for label in np.unique(labels)]
    return round(float(np.mean(shares)), 6) if shares else None


def _frozen_finetuned(there: list[Place], arms: _Arms) -> Iterable[Freezing]:
    if not ({"frozen", "finetuned"} <= set(arms.grid.freezing) and "pretrained" in arms.grid.start):
        return
    for place in there:
        if place.freezing == "frozen":
            twin = place.model_copy(update={"freezing": "finetuned"})
            rights = [arms.right(one, "pretrained") for one in (place, twin)]
            yield Freezing(**dict(place), paired=_paired(*rights))


def _transfer(rows: list[Row], arms: _Arms) -> Iterable[Transfer]:
    """One for each place but for its learning rate; none without validation images or without both
    starts."""
    groups: dict[Place, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.place.model_copy(update={"lr": 0.0}), []).append(row)
    for group in groups.values():
        if len(group[0].arms) < 2 or not group[0].arms["scratch"].n_validation:
            continue
        first, second = (best(group, start) for start in BOTH)
        difference = stats.bootstrap(arms.right(first, BOTH[0]), arms.right(second, BOTH[1]))
        yield Transfer(
            **dict(first.place),
            baseline_lr=second.lr,
            difference=difference,
            verdict=VERDICTS[difference.sign],
        )


def _choices(rows: list[Row], dataset: str, arms: _Arms) -> list[Choice]:
    """Every setting and start of the data set at the first size, the best first: in the order of
    validation accuracy, where there is one."""
    size = arms.grid.images[0]
    own = [row for row in rows if (row.dataset, row.images) == (dataset, size)]
    order = sorted(product(arms.grid.start, own), key=lambda pair: -pair[1].arms[pair[0]].score)
    rights = [arms.right(row, start) for start, row in order]
    return [
        Choice(
            **dict(row.place),
            **row.arms[start].model_dump(include={"validation", "n_validation", "chosen"}),
            start=start,
            n_test=row.n_test,
            difference=stats.bootstrap(right, rights[0]),
            **_by_class(right, _labels(arms.runs(row, start)[0].name)),
        )
        for (start, row), right in zip(order, rights, strict=True)
    ]


def _by_class(right: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What a Choice says of the classes; bool [seeds, n], and str [n]."""
    names, counts = np.unique(labels, return_counts=True)
    most = int(counts.argmax())
    always = np.broadcast_to(labels == names[most], right.shape)
    shares = [float(right[:, labels == name].mean()) for name in names]
    return {
        "majority": str(names[most]),
        "share": float(counts[most] / len(labels)),
        "above": _paired(right, always),
        "recall": [
            Recall(label=str(name), n=int(n), mean=share, low=low, high=high)
            for name, n, share in zip(names, counts, shares, strict=True)
            for low, high in [stats.wilson(share, int(n))]
        ],
    }


def _gains(grid: Grid, arms: _Arms) -> Iterable[Gain]:
    if not set(BOTH) <= set(grid.start):
        return
    for dataset, images, backbone in product(grid.dataset, grid.images, grid.backbone):
        own = [p for p in places(grid, dataset) if (p.images, p.backbone) == (images, backbone)]
        first, second = (np.mean([arms.right(p, start) for p in own], axis=0) for start in BOTH)
        yield Gain(
            dataset=dataset,
            images=images,
            backbone=backbone,
            difference=stats.bootstrap(first, second),
        )


def _paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """bool [seeds, n] each."""
    test = stats.exact_mcnemar(first[0], second[0])
    return Paired(difference=stats.bootstrap(first, second), mcnemar=test, p_holm=test.p)


Compared = TypeVar("Compared", Row, Freezing)


def _corrected(compared: list[Compared]) -> list[Compared]:
    """With Holm's p-values: the rows are as many answers to one question."""
    p = iter(stats.holm([one.paired.mcnemar.p for one in compared if one.paired]))
    return [
        one.model_copy(update={"paired": one.paired.model_copy(update={"p_holm": next(p)})})
        if one.paired
        else one
        for one in compared
    ]


def _study(grid: Grid, datasets: dict[str, Dataset], arms: _Arms) -> claims.Study:
    """Our runs of the first size and recipe, by the quadrant that their data set stands for."""
    names = {
        QUADRANTS.index(datasets[name].quadrant) + 1: name
        for name in reversed(grid.dataset)
        if datasets[name].quadrant in QUADRANTS
    }
    right: dict[int, dict[claims.Key, np.ndarray]] = {
        table: {
            (place.backbone, place.lr, place.freezing, start): arms.right(place, start)
            for place, start in product(at_first_size(grid, name), grid.start)
            if place.recipe == grid.recipe[0]
        }
        for table, name in names.items()
    }
    return claims.Study(
        {table: {key: float(r.mean()) for key, r in runs.items()} for table, runs in right.items()},
        lambda table, a, b: stats.bootstrap(right[table][a], right[table][b]),
        {table: next(iter(runs.values())).shape[1] for table, runs in right.items()},
    )
