"""What the runs' predictions on the test images allow one to say."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any

import numpy as np

from transfer.evidence import claims, stats
from transfer.evidence.published import STARTS, published
from transfer.params import QUADRANTS, Dataset, Grid
from transfer.runs import DEFAULT, Run, Setting, rows, setting_of
from transfer.training import predictions


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
Row = dict[str, Any]
Leaked = dict[str, list[str]]
"""Data set → names of the test images that stand in training too."""

PLACE = ("dataset", "images", "backbone", "lr", "freezing", "recipe")


def tested(parts: dict[str, predictions.Predictions]) -> Tested:
    chosen, held = predictions.chosen_epoch(parts), parts.get("validation")
    seen = (len(held.label), float(held.right[chosen].mean())) if held else ()
    return Tested(parts["test"].name, parts["test"].right, chosen, *seen)


def compute(grid: Grid, datasets: dict[str, Dataset], leaked: Leaked, read: Read) -> dict[str, Any]:
    """Everything, as JSON takes it. Runs of several seeds are taken together, paired by seed.

    The rigorous accuracy is that of an epoch not chosen on the test images. The best epoch's,
    which the report gives, is the first seed's.
    """
    arms = _Arms(grid, read)
    places = list(product(grid.dataset, grid.images, rows(grid)))
    found = [_row(*place, arms, leaked.get(place[0], [])) for place in places]
    pairs = [
        _frozen_finetuned(*place, arms)
        for place in product(grid.dataset, grid.images, grid.backbone, grid.lr, grid.recipe)
        if {"frozen", "finetuned"} <= set(grid.freezing) and "pretrained" in grid.start
    ]
    _correct(found)
    _correct(pairs)
    sizes = claims.implied_sizes(published())
    implied = {size.table: size.implied for size in sizes}
    return {
        "rows": found,
        "frozen_finetuned": pairs,
        "transfer": _transfer(found, arms),
        "choices": [choice for name in grid.dataset for choice in _choices(found, name, arms)],
        "gains": _gains(grid, arms),
        "implied_sizes": [asdict(size) for size in sizes],
        "claims": {
            "published": _claims(claims.published_study(published(), implied)),
            "ours": _claims(_study(grid, datasets, arms)),
        },
    }


def summary(found: dict[str, Any], grid: Grid) -> dict[str, Any]:
    """Of all that was found, what `dvc metrics diff` compares. Of each data set's recommended
    setting its name and its accuracy (`chosen`, at the epoch chosen); and `rows`: data set → row →
    accuracy (and baseline) of the best test epoch, as in the report's tables, with `test_images`:
    how many images those are of."""
    first = {choice["dataset"]: choice for choice in reversed(found["choices"])}  # the best
    rows: dict[str, Any] = {name: {"test_images": first[name]["n_test"]} for name in first}
    for row in found["rows"]:
        if row["images"] == grid.images[0]:
            accuracies = {STARTS[start].lower(): row[start]["best"] for start in grid.start}
            rows[row["dataset"]][_name(row)] = accuracies
    return {
        "chosen": {name: choice["chosen"]["mean"] for name, choice in first.items()},
        "setting": {name: f"{_name(choice)}-{choice['start']}" for name, choice in first.items()},
        "rows": rows,
    }


def _name(row: Row) -> str:
    return "-".join(map(str, setting_of(row))).removesuffix(f"-{DEFAULT}")


def trained_with(records: list[dict[str, Any]]) -> dict[str, str]:
    """On what the runs were trained, and with which packages: of each, all that occur."""
    return {name: "; ".join(sorted({kind(run) for run in records})) for name, kind in MADE.items()}


def _device(run: dict[str, Any]) -> str:
    threads = "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"
    cpu = f"cpu ({run['arithmetic']}, {threads})"
    return cpu if run["device"] == "cpu" else run["device"]


MADE = {
    "device": _device,
    "packages": lambda run: ", ".join(" ".join(pair) for pair in sorted(run["versions"].items())),
}


def best(rows: list[Row], start: str) -> Row:
    """The row of the best setting with that start: by validation accuracy, where there is one."""
    return max(rows, key=lambda row: _score(row[start]))


def run_of(choice: Row, grid: Grid) -> Run:
    """The choice's run of the first seed."""
    axes = {field.name: choice[field.name] for field in fields(Run) if field.name != "seed"}
    return Run(**axes, seed=grid.seed[0])


def _score(found: Row) -> float:
    return found["chosen"]["mean"] if found["validation"] is None else found["validation"]


def best_run(grid: Grid, rows: list[Row]) -> Run:
    """The first run of the best setting at the first size: transfer, if the grid has any."""
    start = "pretrained" if "pretrained" in grid.start else grid.start[0]
    row = best([row for row in rows if row["images"] == grid.images[0]], start)
    return Run(*(row[key] for key in PLACE), start, grid.seed[0])


@dataclass(frozen=True)
class _Arms:
    """One setting and start, over the seeds."""

    grid: Grid
    read: Read

    def runs(self, dataset: str, images: int | str, setting: Setting, start: str) -> list[Tested]:
        seeds = self.grid.seed
        return [self.read(Run(dataset, images, *setting, start, seed)) for seed in seeds]

    def right(self, *arm) -> np.ndarray:
        """bool [seeds, n], each at its own chosen epoch."""
        return np.stack([run.right[run.chosen] for run in self.runs(*arm)])


def _row(dataset: str, images: int | str, setting: Setting, arms: _Arms, leaked: list[str]) -> Row:
    """One line of a table: each start's accuracies, and transfer against baseline."""
    runs = {start: arms.runs(dataset, images, setting, start) for start in arms.grid.start}
    name = next(iter(runs.values()))[0].name
    out = dict(zip(PLACE, (dataset, images, *setting), strict=True)) | {"n_test": len(name)}
    out |= {start: _accuracies(found) for start, found in runs.items()}
    rights = {start: arms.right(dataset, images, setting, start) for start in runs}
    if len(runs) == 2:
        out |= _paired(rights["pretrained"], rights["scratch"])
    if leaked:
        kept, labels = ~np.isin(name, leaked), _labels(name)
        counts = {str(label): int((labels[kept] == label).sum()) for label in np.unique(labels)}
        out["unleaked"] = {"n": counts} | {
            start: [_recall(right, labels), _recall(right[:, kept], labels[kept])]
            for start, right in rights.items()
        }
    return out


def _labels(name: np.ndarray) -> np.ndarray:
    return np.array([str(n).split("/")[0] for n in name])


def _recall(right: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean over the classes of the share of their images that is right, bool [seeds, n]; None
    without images. Unlike accuracy it does not move when a class loses images at random."""
    shares = [right[:, labels == label].mean() for label in np.unique(labels)]
    return round(float(np.mean(shares)), 6) if shares else None


def _accuracies(runs: list[Tested]) -> dict[str, Any]:
    """Best and chosen epoch, and by how much the first exceeds the second."""
    chosen = np.array([run.right[run.chosen].mean() for run in runs])
    best = np.array([run.best for run in runs])
    mean = float(chosen.mean())
    low, high = stats.wilson(mean, runs[0].right.shape[1])
    sd = round(float(chosen.std(ddof=1)), 6) if len(runs) > 1 else None
    validation = [run.validation for run in runs]
    return {
        "best": round(float(best[0]), 6),
        "chosen": {"mean": round(mean, 6), "sd": sd, "low": low, "high": high},
        "inflation": round(float((best - chosen).mean()), 6),
        "n_validation": runs[0].n_validation,
        "validation": None if None in validation else round(float(np.mean(validation)), 6),
    }


def _frozen_finetuned(
    dataset: str, images: int | str, backbone: str, lr: float, recipe: str, arms: _Arms
) -> Row:
    rights = (
        arms.right(dataset, images, (backbone, lr, freezing, recipe), "pretrained")
        for freezing in ("frozen", "finetuned")
    )
    place = {"dataset": dataset, "images": images, "backbone": backbone, "lr": lr, "recipe": recipe}
    return place | _paired(*rights)


def _transfer(rows: list[Row], arms: _Arms) -> list[Row]:
    """Transfer against baseline, each at the learning rate that its validation accuracy chose.

    One for each data set, size, backbone, freezing and recipe; none without validation images or
    without both starts. `verdict` is helps, hurts (negative transfer) or cannot tell, by the
    interval.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        key = tuple(row[k] for k in PLACE if k != "lr")
        groups.setdefault(key, []).append(row)
    found = []
    for key, group in groups.items():
        starts = ("pretrained", "scratch")
        if not all(
            start in group[0] and group[0][start]["validation"] is not None for start in starts
        ):
            continue
        dataset, images, backbone, freezing, recipe = key
        rates = {start: best(group, start)["lr"] for start in starts}
        rights = [
            arms.right(dataset, images, (backbone, rates[start], freezing, recipe), start)
            for start in starts
        ]
        difference = stats.bootstrap(*rights)
        verdict = {1: "helps", -1: "hurts", 0: claims.CANNOT_TELL}[difference.sign]
        place = dict(zip((k for k in PLACE if k != "lr"), key, strict=True))
        found.append(place | {"lr": rates, "difference": asdict(difference), "verdict": verdict})
    return found


def _choices(rows: list[Row], dataset: str, arms: _Arms) -> list[Row]:
    """Every setting and start of the data set at the first size, the best first, each with its
    difference from that. The order is by validation accuracy, where there is one."""
    size, starts = arms.grid.images[0], arms.grid.start
    rows = [row for row in rows if (row["dataset"], row["images"]) == (dataset, size)]
    order = sorted(product(starts, rows), key=lambda pair: -_score(pair[1][pair[0]]))
    rights = [arms.right(dataset, size, setting_of(row), start) for start, row in order]
    return [
        {key: row[key] for key in PLACE}
        | {key: row[start][key] for key in ("validation", "n_validation", "chosen")}
        | {"start": start, "n_test": row["n_test"]}
        | {"difference": asdict(stats.bootstrap(right, rights[0]))}
        for (start, row), right in zip(order, rights, strict=True)
    ]


def _gains(grid: Grid, arms: _Arms) -> list[Row]:
    """What transfer gains on a data set with a backbone, mean over the other settings."""
    if not {"pretrained", "scratch"} <= set(grid.start):
        return []
    gains = []
    for dataset, images, backbone in product(grid.dataset, grid.images, grid.backbone):
        first, second = (
            np.mean(
                [
                    arms.right(dataset, images, setting, start)
                    for setting in rows(grid)
                    if setting[0] == backbone
                ],
                axis=0,
            )
            for start in ("pretrained", "scratch")
        )
        place = {"dataset": dataset, "images": images, "backbone": backbone}
        gains.append(place | asdict(stats.bootstrap(first, second)))
    return gains


def _paired(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """bool [seeds, n] each. The interval is over all seeds, the test on the first one's images."""
    test = stats.exact_mcnemar(first[0], second[0])
    return {
        "difference": asdict(stats.bootstrap(first, second)),
        "mcnemar": {**asdict(test), "decidable": test.decidable},
    }


def _correct(compared: list[Row]) -> None:
    """Add Holm's p-values: the rows are as many answers to one question."""
    tests = [row["mcnemar"] for row in compared if "mcnemar" in row]
    for test, p in zip(tests, stats.holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p


def _study(grid: Grid, datasets: dict[str, Dataset], arms: _Arms) -> claims.Study:
    """Our runs of the first size and recipe, by the quadrant that their data set stands for."""
    names = {
        QUADRANTS.index(datasets[name].quadrant) + 1: name
        for name in reversed(grid.dataset)
        if datasets[name].quadrant in QUADRANTS
    }
    keys = list(product(grid.backbone, grid.lr, grid.freezing, grid.start))
    right = {
        table: {
            key: arms.right(name, grid.images[0], (*key[:3], grid.recipe[0]), key[3])
            for key in keys
        }
        for table, name in names.items()
    }
    return claims.Study(
        {table: {key: float(r.mean()) for key, r in runs.items()} for table, runs in right.items()},
        lambda table, a, b: stats.bootstrap(right[table][a], right[table][b]),
        {table: next(iter(runs.values())).shape[1] for table, runs in right.items()},
    )


def _claims(study: claims.Study) -> list[dict[str, str]]:
    return [asdict(claim) for claim in claims.check(study)]
