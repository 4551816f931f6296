"""Turn the runs' predictions into metrics/evidence.json, its summary, and data for `dvc plots`."""

from functools import cache

from transfer import cli, files, params
from transfer.evidence import compare, plots, scores
from transfer.evidence.arms import About, Scored
from transfer.images.audit import Audit
from transfer.runs import PREDICTIONS, Run, all_runs, runs
from transfer.training import predictions
from transfer.training.record import Record


def main() -> None:
    settings = params.load()
    grid, rules = settings.grid, settings.evidence
    about = {name: known(grid, name, rules.select_by) for name in grid.dataset}
    read = cache(lambda run: Scored.of(load(run), about[run.dataset].measure))
    found = compare.compute(grid, settings.datasets, about, rules.margin, read, load)
    with files.replacing("metrics/plots") as folder:
        plots.write(folder, grid, found, read, load)
    summary = compare.summary(found, grid, [Record.of(run) for run in all_runs(grid)])
    files.write_json("metrics/summary.json", summary)
    found.write("metrics/evidence.json")


def known(grid: params.Grid, dataset: str, select_by: str) -> About:
    audit, first = Audit.of(dataset), Record.of(runs(grid, dataset)[0])
    return About(
        measure=scores.measure(select_by, first.counts["train"]),
        leaked=[test for test, _ in audit.leaked],
        ratio=audit.redrawn.ratio if audit.redrawn else 0.0,
    )


def load(run: Run) -> dict[str, predictions.Predictions]:
    return predictions.load(run.written(PREDICTIONS))


if __name__ == "__main__":
    cli.run(main)
