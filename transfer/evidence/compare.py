"""From the runs' predictions on the test images to the evidence."""

from collections.abc import Iterable, Iterator
from itertools import product
from math import inf
from typing import Any, TypeVar

import numpy as np

from transfer.evidence import choices, claims, scores, stats
from transfer.evidence.calibration import calibrate
from transfer.evidence.choices import Load
from transfer.evidence.published import COLUMNS, published
from transfer.evidence.records import (
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
from transfer.evidence.results import DataInfo, Read, Results, Scored, mixed, trained_with
from transfer.evidence.stats import Seeds
from transfer.params import QUADRANTS, Dataset, Grid
from transfer.runs import DEFAULT, Run, Setting, at_first_size, settings
from transfer.training.record import Record

TRANSFER, BASELINE = "pretrained", "scratch"
VERDICTS = {1: "helps", -1: "hurts", 0: claims.CANNOT_TELL}


def compute(
    grid: Grid,
    datasets: dict[str, Dataset],
    data: dict[str, DataInfo],
    margin: float,
    read: Read,
    load: Load,
    records: Iterable[Record] = (),
    stand_ins: dict[str, str] | None = None,
) -> Evidence:
    """All evidence. Runs of several seeds are taken together, paired by seed. data: by data set.
    margin: see choices.rank. records: of all runs. stand_ins: see claims.stand_ins."""
    results = Results(grid, data, read)
    all_settings = [setting for name in grid.dataset for setting in settings(grid, name)]
    rows = _corrected([_row(setting, results) for setting in all_settings])
    ranked = {name: choices.rank(rows, name, results, margin) for name in grid.dataset}
    return Evidence(
        measures={name: data[name].measure for name in grid.dataset},
        criteria={name: data[name].criterion for name in grid.dataset},
        rows=rows,
        frozen_finetuned=_corrected(list(_frozen_finetuned(all_settings, results))),
        transfer=list(_transfer(rows, results)),
        choices=[choice for ranking in ranked.values() for choice in ranking],
        calibration={
            name: calibrate([load(run) for run in ranking[0].runs(grid.seed)], data[name].measure)
            for name, ranking in ranked.items()
        },
        gains=list(_gains(grid, results)),
        learning=list(_learning(rows, results)),
        label_errors=[
            error
            for name, ranking in ranked.items()
            for error in choices.label_errors(ranking, grid.seed, load, data[name].measure)
        ],
        implied_sizes=claims.implied_sizes(published()),
        claims=_claims(grid, datasets, results, stand_ins or {}),
        mixed=mixed(records),
    )


def summary(evidence: Evidence, grid: Grid, records: Iterable[Record]) -> dict[str, Any]:
    """The evidence that `dvc metrics diff` compares.

    By data set: the recommended `setting`, what it is chosen by (`chosen_by`) and judged by
    (`measure`), and that measure on the test images at the chosen epoch (`chosen`). rows: data set
    → setting → accuracy (and baseline) of the best test epoch, as in the paper's tables, and the
    number of `test_images`.
    trained: see results.trained_with; `mixed` is in it if not all runs were trained alike.
    """
    first = {name: evidence.ranking(name)[0] for name in grid.dataset}  # the recommended
    lines: dict[str, Any] = {name: {"test_images": first[name].n_test} for name in first}
    for row in evidence.rows:
        if row.images == grid.images[0]:
            best = {COLUMNS[init].lower(): row.results[init].best for init in grid.init}
            lines[row.dataset][_name(row)] = best
    trained = trained_with(records)
    if evidence.mixed:
        trained["mixed"] = "; ".join(map(str, evidence.mixed))
    return {
        "chosen": {name: choice.chosen.mean for name, choice in first.items()},
        "setting": {name: f"{_name(choice)}-{choice.init}" for name, choice in first.items()},
        "measure": dict(evidence.measures),
        "chosen_by": dict(evidence.criteria),
        "rows": lines,
        "trained": trained,
    }


def _name(setting: Setting) -> str:
    return "-".join(map(str, setting.hyperparameters)).removesuffix(f"-{DEFAULT}")


def best(rows: list[Row], init: str) -> Row:
    """The row of the best setting with that init, by validation images if there are any."""
    return min(rows, key=lambda row: row.results[init].rank)


def best_run(grid: Grid, rows: list[Row]) -> Run:
    """The first run of the best setting at the first size: transfer, if the grid has any."""
    init = TRANSFER if TRANSFER in grid.init else grid.init[0]
    row = best([row for row in rows if row.images == grid.images[0]], init)
    return row.run(init, grid.seed[0])


def _row(setting: Setting, results: Results) -> Row:
    inits, info = results.grid.init, results.data[setting.dataset]
    both = len(inits) == 2
    return Row(
        **dict(setting),
        n_test=len(results.runs(setting, inits[0])[0].name),
        results={
            init: _result(results.runs(setting, init), results.seeds(setting, init), info)
            for init in inits
        },
        paired=_paired(results, (setting, TRANSFER), (setting, BASELINE)) if both else None,
        unleaked=_unleaked(setting, results, info.leaked) if info.leaked else None,
    )


def _result(runs: list[Scored], seeds: Seeds, info: DataInfo) -> Result:
    first = runs[0]
    low, high = stats.interval(seeds, scores.effective_images(info.measure, first.labels))
    validation = [float(run.validation.mean()) for run in runs if run.validation is not None]
    penalties = [float(run.penalty.mean()) for run in runs if run.penalty is not None]
    inflation = [run.best - float(run.right[run.chosen].mean()) for run in runs]
    sd = None if seeds.sd is None else round(seeds.sd, 6)
    return Result(
        best=round(first.best, 6),
        chosen=Estimate(mean=round(seeds.value, 6), sd=sd, low=low, high=high),
        inflation=round(float(np.mean(inflation)), 6),
        n_validation=0 if first.validation is None else len(first.validation),
        validation=round(float(np.mean(validation)), 6) if validation else None,
        penalty=round(float(np.mean(penalties)), 6) if penalties else None,
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
    """Mean recall over the classes, right: bool [seeds, n]; None without images. Unlike accuracy it
    does not change if a class loses images at random."""
    shares = [right[:, labels == label].mean() for label in np.unique(labels)]
    return round(float(np.mean(shares)), 6) if shares else None


def _frozen_finetuned(all_settings: list[Setting], results: Results) -> Iterator[Freezing]:
    grid = results.grid
    if not ({"frozen", "finetuned"} <= set(grid.freezing) and TRANSFER in grid.init):
        return
    for setting in all_settings:
        if setting.freezing == "frozen":
            finetuned = setting.model_copy(update={"freezing": "finetuned"})
            paired = _paired(results, (setting, TRANSFER), (finetuned, TRANSFER))
            yield Freezing(**dict(setting), paired=paired)


def _transfer(rows: list[Row], results: Results) -> Iterator[Transfer]:
    """First one for each data set and size, then one for each setting without its learning rate;
    none without validation images or without both inits."""
    if len(results.grid.init) < 2 or not rows[0].results[BASELINE].n_validation:
        return
    by_data: dict[Any, list[Row]] = {}
    by_setting: dict[Any, list[Row]] = {}
    for row in rows:
        by_data.setdefault((row.dataset, row.images), []).append(row)
        by_setting.setdefault(row.setting.model_copy(update={"lr": 0.0}), []).append(row)
    overall = [_chosen_transfer(group, results, overall=True) for group in by_data.values()]
    corrected = stats.holm([transfer.difference.p for transfer in overall])
    for transfer, p in zip(overall, corrected, strict=True):
        certain = p <= stats.LEVEL and len(results.grid.seed) > 1
        verdict = VERDICTS[transfer.difference.sign if certain else 0]
        yield transfer.model_copy(update={"verdict": verdict})
    for group in by_setting.values():
        yield _chosen_transfer(group, results, overall=False)


def _chosen_transfer(rows: list[Row], results: Results, overall: bool) -> Transfer:
    first, second = (best(rows, init).setting for init in (TRANSFER, BASELINE))
    difference = stats.compare(results.seeds(first, TRANSFER), results.seeds(second, BASELINE))
    return Transfer(**dict(first), baseline=second, overall=overall, difference=difference)


def _gains(grid: Grid, results: Results) -> Iterator[Gain]:
    if not {TRANSFER, BASELINE} <= set(grid.init):
        return
    for dataset, images, backbone in product(grid.dataset, grid.images, grid.backbone):
        averaged = [
            setting
            for setting in settings(grid, dataset)
            if (setting.images, setting.backbone) == (images, backbone)
        ]
        transfer, baseline = (
            stats.average([results.seeds(setting, init) for setting in averaged])
            for init in (TRANSFER, BASELINE)
        )
        difference = stats.compare(transfer, baseline)
        yield Gain(dataset=dataset, images=images, backbone=backbone, difference=difference)


def _learning(rows: list[Row], results: Results) -> Iterator[Learning]:
    sizes = sorted(results.grid.images, key=lambda n: inf if isinstance(n, str) else n)[-2:]
    init = TRANSFER if TRANSFER in results.grid.init else results.grid.init[0]
    for name in results.grid.dataset if len(sizes) > 1 else ():
        by_size = [[r for r in rows if (r.dataset, r.images) == (name, size)] for size in sizes]
        smaller, larger = (results.seeds(best(group, init).setting, init) for group in by_size)
        difference = stats.compare(larger, smaller)
        yield Learning(dataset=name, smaller=sizes[0], larger=sizes[1], difference=difference)


def _paired(results: Results, first: tuple[Setting, str], second: tuple[Setting, str]) -> Paired:
    runs = (results.runs(*pair)[0] for pair in (first, second))
    right, other = (run.right[run.chosen] for run in runs)
    difference = stats.compare(results.seeds(*first), results.seeds(*second))
    alone = int((right & ~other).sum()), int((~right & other).sum())
    return Paired(difference=difference, alone=alone, p_holm=difference.p)


Compared = TypeVar("Compared", Row, Freezing)


def _corrected(rows: list[Compared]) -> list[Compared]:
    """With p-values that are corrected for the number of rows by Holm's method."""
    p = iter(stats.holm([row.paired.difference.p for row in rows if row.paired]))
    return [
        row.model_copy(update={"paired": row.paired.model_copy(update={"p_holm": next(p)})})
        if row.paired
        else row
        for row in rows
    ]


def _claims(
    grid: Grid, datasets: dict[str, Dataset], results: Results, stand_ins: dict[str, str]
) -> Claims:
    printed = published()
    sizes = {size.table: size.implied or size.stated for size in claims.implied_sizes(printed)}
    return Claims(
        published=claims.check(claims.published_study(printed, sizes)),
        ours=claims.check(_study(grid, datasets, results, stand_ins)),
        stand_ins=stand_ins,
    )


def _study(
    grid: Grid, datasets: dict[str, Dataset], results: Results, stand_ins: dict[str, str]
) -> claims.Study:
    """Our runs of the first size and recipe, by the quadrant that their data set stands for."""
    paper_names = {ours: papers for papers, ours in stand_ins.items()}
    names = {
        QUADRANTS.index(datasets[name].quadrant) + 1: name
        for name in reversed(grid.dataset)
        if datasets[name].quadrant in QUADRANTS
    }
    runs: dict[int, dict[claims.Key, Seeds]] = {table: {} for table in names}
    for table, name in names.items():
        for setting, init in product(at_first_size(grid, name), grid.init):
            if setting.recipe == grid.recipe[0]:
                backbone = paper_names.get(setting.backbone, setting.backbone)
                key = backbone, setting.lr, setting.freezing, init
                runs[table][key] = results.seeds(setting, init)

    def compared(table: int, a: claims.Key, b: claims.Key, among: int) -> stats.Difference:
        return stats.compare(runs[table][a], runs[table][b], among)

    return claims.Study(
        {
            table: {key: seeds.value for key, seeds in by_key.items()}
            for table, by_key in runs.items()
        },
        compared,
        {table: len(next(iter(by_key.values())).scores[0]) for table, by_key in runs.items()},
    )
