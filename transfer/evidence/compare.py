"""From the runs' predictions on the test images to the evidence."""

from collections.abc import Iterable, Sequence
from itertools import product
from math import inf
from typing import Any, TypeVar

import numpy as np

from transfer.evidence import calibration, choices, claims, label_errors, scores, stats, trained
from transfer.evidence.found import (
    Claims,
    Estimate,
    Evidence,
    Freezing,
    Gain,
    Learning,
    Paired,
    Result,
    Row,
    Transfer,
    Unleaked,
)
from transfer.evidence.published import INITS, published
from transfer.evidence.results import About, Read, Results, Scored
from transfer.evidence.stats import Seeds
from transfer.params import QUADRANTS, Dataset, Grid
from transfer.runs import DEFAULT, Run, Setting, at_first_size, settings
from transfer.training.record import Record

BOTH = ("pretrained", "scratch")
VERDICTS = {1: "helps", -1: "hurts", 0: claims.CANNOT_TELL}


def compute(
    grid: Grid,
    datasets: dict[str, Dataset],
    about: dict[str, About],
    margin: float,
    read: Read,
    load: label_errors.Load,
    records: Iterable[Record] = (),
) -> Evidence:
    """Everything. Runs of several seeds are taken together, paired by seed. `about`: by data set.
    margin: see choices.of. `records`: of all runs."""
    results = Results(grid, about, read)
    there = [setting for name in grid.dataset for setting in settings(grid, name)]
    found = _corrected([row(setting, grid.init, results) for setting in there])
    sizes = claims.implied_sizes(published())
    chosen = {name: choices.rank(found, name, results, margin) for name in grid.dataset}
    implied = {size.table: size.implied or size.stated for size in sizes}
    doubted = {
        name: label_errors.find(own, grid.seed, load, about[name].measure)
        for name, own in chosen.items()
    }
    return Evidence(
        measures={name: about[name].measure for name in grid.dataset},
        rows=found,
        frozen_finetuned=_corrected(list(_frozen_finetuned(there, results))),
        transfer=list(_transfer(found, results)),
        choices=[choice for own in chosen.values() for choice in own],
        calibration={
            name: calibration.calibrate(
                [load(own[0].run(own[0].init, seed)) for seed in grid.seed], about[name].measure
            )
            for name, own in chosen.items()
        },
        gains=list(_gains(grid, results)),
        learning=list(_learning(found, results)),
        label_errors=[one for own in doubted.values() for one in own],
        implied_sizes=sizes,
        claims=Claims(
            published=claims.check(claims.published_study(published(), implied)),
            ours=claims.check(_study(grid, datasets, results)),
        ),
        mixed=trained.mixed(records),
    )


def summary(found: Evidence, grid: Grid, records: Iterable[Record]) -> dict[str, Any]:
    """Of all that was found, what `dvc metrics diff` compares.

    Of each data set's recommended setting its name, what it is chosen by (`measure`), and that
    on the test images at the epoch chosen (`chosen`). `rows`: data set → row → accuracy (and
    baseline) of the best test epoch, as in the paper's tables, with `test_images`: how many images
    those are of. `trained`: see trained.summary; with what is `mixed`, if anything is.
    """
    first = {choice.dataset: choice for choice in reversed(found.choices)}  # the recommended
    lines: dict[str, Any] = {name: {"test_images": first[name].n_test} for name in first}
    for row in found.rows:
        if row.images == grid.images[0]:
            best = {INITS[init].lower(): row.results[init].best for init in grid.init}
            lines[row.dataset][_name(row)] = best
    mixed = {"mixed": "; ".join(map(str, found.mixed))} if found.mixed else {}
    return {
        "chosen": {name: choice.chosen.mean for name, choice in first.items()},
        "setting": {name: f"{_name(choice)}-{choice.init}" for name, choice in first.items()},
        "measure": dict(found.measures),
        "rows": lines,
        "trained": trained.summary(records) | mixed,
    }


def _name(setting: Setting) -> str:
    return "-".join(map(str, setting.hyperparameters)).removesuffix(f"-{DEFAULT}")


def best(rows: list[Row], init: str) -> Row:
    """The row of the best setting with that start, by validation images where there are any."""
    return min(rows, key=lambda row: row.results[init].rank)


def best_run(grid: Grid, rows: list[Row]) -> Run:
    """The first run of the best setting at the first size: transfer, if the grid has any."""
    init = "pretrained" if "pretrained" in grid.init else grid.init[0]
    row = best([row for row in rows if row.images == grid.images[0]], init)
    return row.run(init, grid.seed[0])


def row(setting: Setting, inits: Sequence[str], results: Results) -> Row:
    """One line of a table: the measure from each of these starts, and transfer against baseline."""
    about = results.about[setting.dataset]
    first = results.runs(setting, inits[0])[0]
    found = {
        init: _result(results.runs(setting, init), results.seeds(setting, init), about)
        for init in inits
    }
    return Row(
        **dict(setting),
        n_test=len(first.name),
        results=found,
        paired=_paired(results, (setting, BOTH[0]), (setting, BOTH[1]))
        if len(inits) == 2
        else None,
        unleaked=_unleaked(setting, results, about.leaked) if about.leaked else None,
    )


def _result(runs: list[Scored], seeds: Seeds, about: About) -> Result:
    first = runs[0]
    low, high = stats.interval(seeds, scores.images(about.measure, first.labels))
    held = [float(run.held.mean()) for run in runs if run.held is not None]
    losses = [float(run.loss.mean()) for run in runs if run.loss is not None]
    inflation = [run.best - float(run.right[run.chosen].mean()) for run in runs]
    sd = None if seeds.sd is None else round(seeds.sd, 6)
    return Result(
        best=round(first.best, 6),
        chosen=Estimate(mean=round(seeds.value, 6), sd=sd, low=low, high=high),
        inflation=round(float(np.mean(inflation)), 6),
        n_validation=0 if first.held is None else len(first.held),
        validation=round(float(np.mean(held)), 6) if held else None,
        loss=round(float(np.mean(losses)), 6) if losses else None,
    )


def _unleaked(setting: Setting, results: Results, leaked: list[str]) -> Unleaked:
    first = results.runs(setting, results.grid.init[0])[0]
    kept, labels = ~np.isin(first.name, leaked), first.labels
    counts = {str(label): int((labels[kept] == label).sum()) for label in np.unique(labels)}
    recall = {}
    for init in results.grid.init:
        right = np.stack([run.right[run.chosen] for run in results.runs(setting, init)])
        recall[init] = _recall(right, labels), _recall(right[:, kept], labels[kept])
    return Unleaked(n=counts, recall=recall)


def _recall(right: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean over the classes of the share of their images that is right, bool [seeds, n]; None
    without images. Unlike accuracy it does not move when a class loses images at random."""
    shares = [right[:, labels == label].mean() for label in np.unique(labels)]
    return round(float(np.mean(shares)), 6) if shares else None


def _frozen_finetuned(there: list[Setting], results: Results) -> Iterable[Freezing]:
    if not ({"frozen", "finetuned"} <= set(results.grid.freezing) and BOTH[0] in results.grid.init):
        return
    for setting in there:
        if setting.freezing == "frozen":
            finetuned = setting.model_copy(update={"freezing": "finetuned"})
            paired = _paired(results, (setting, BOTH[0]), (finetuned, BOTH[0]))
            yield Freezing(**dict(setting), paired=paired)


def _transfer(rows: list[Row], results: Results) -> Iterable[Transfer]:
    """One for each data set, and then for each place but for its learning rate; none without
    validation images or without both starts."""
    if len(results.grid.init) < 2 or not rows[0].results[BOTH[1]].n_validation:
        return
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.images), []).append(row)
    for own in groups.values():
        yield _chosen_transfer(own, results, overall=True)
    groups = {}
    for row in rows:
        groups.setdefault(row.setting.model_copy(update={"lr": 0.0}), []).append(row)
    for own in groups.values():
        yield _chosen_transfer(own, results, overall=False)


def _chosen_transfer(rows: list[Row], results: Results, overall: bool) -> Transfer:
    first, second = (best(rows, init).setting for init in BOTH)
    difference = stats.compare(results.seeds(first, BOTH[0]), results.seeds(second, BOTH[1]))
    told = len(results.grid.seed) > 1
    return Transfer(
        **dict(first),
        baseline=second,
        overall=overall,
        difference=difference,
        verdict=VERDICTS[difference.sign] if told else claims.CANNOT_TELL,
    )


def _gains(grid: Grid, results: Results) -> Iterable[Gain]:
    if not set(BOTH) <= set(grid.init):
        return
    for dataset, images, backbone in product(grid.dataset, grid.images, grid.backbone):
        own = [p for p in settings(grid, dataset) if (p.images, p.backbone) == (images, backbone)]
        first, second = (stats.average([results.seeds(p, init) for p in own]) for init in BOTH)
        yield Gain(
            dataset=dataset,
            images=images,
            backbone=backbone,
            difference=stats.compare(first, second),
        )


def _learning(rows: list[Row], results: Results) -> Iterable[Learning]:
    sizes = sorted(results.grid.images, key=lambda n: inf if isinstance(n, str) else n)[-2:]
    init = BOTH[0] if BOTH[0] in results.grid.init else results.grid.init[0]
    for name in results.grid.dataset if len(sizes) > 1 else ():
        own = [[r for r in rows if (r.dataset, r.images) == (name, size)] for size in sizes]
        smaller, larger = (results.seeds(best(some, init).setting, init) for some in own)
        difference = stats.compare(larger, smaller)
        yield Learning(dataset=name, smaller=sizes[0], larger=sizes[1], difference=difference)


def _paired(results: Results, first: tuple[Setting, str], second: tuple[Setting, str]) -> Paired:
    one, other = (
        run.right[run.chosen] for run in (results.runs(*pair)[0] for pair in (first, second))
    )
    difference = stats.compare(results.seeds(*first), results.seeds(*second))
    alone = int((one & ~other).sum()), int((~one & other).sum())
    return Paired(difference=difference, alone=alone, p_holm=difference.p)


Compared = TypeVar("Compared", Row, Freezing)


def _corrected(compared: list[Compared]) -> list[Compared]:
    """With Holm's p-values: the rows are as many answers to one question."""
    p = iter(stats.holm([one.paired.difference.p for one in compared if one.paired]))
    return [
        one.model_copy(update={"paired": one.paired.model_copy(update={"p_holm": next(p)})})
        if one.paired
        else one
        for one in compared
    ]


def _study(grid: Grid, datasets: dict[str, Dataset], results: Results) -> claims.Study:
    """Our runs of the first size and recipe, by the quadrant that their data set stands for."""
    names = {
        QUADRANTS.index(datasets[name].quadrant) + 1: name
        for name in reversed(grid.dataset)
        if datasets[name].quadrant in QUADRANTS
    }
    runs: dict[int, dict[claims.Key, Seeds]] = {
        table: {
            (setting.backbone, setting.lr, setting.freezing, init): results.seeds(setting, init)
            for setting, init in product(at_first_size(grid, name), grid.init)
            if setting.recipe == grid.recipe[0]
        }
        for table, name in names.items()
    }

    def compared(table: int, a: claims.Key, b: claims.Key, among: int) -> stats.Difference:
        return stats.compare(runs[table][a], runs[table][b], among)

    return claims.Study(
        {table: {key: one.value for key, one in own.items()} for table, own in runs.items()},
        compared,
        {table: len(next(iter(own.values())).scores[0]) for table, own in runs.items()},
    )
