"""Turn the runs' predictions into metrics/evidence.json, its summary, and data for `dvc plots`."""

from functools import cache

from transfer import cli, files, params
from transfer.evidence import compare, plots
from transfer.evidence.results import About, Scored
from transfer.runs import PREDICTIONS, Run, all_runs, runs
from transfer.training import predictions
from transfer.training.record import Record


def main() -> None:
    cli.arguments("evidence", __doc__)
    settings = params.load()
    grid, rules = settings.grid, settings.evidence
    about = {name: About.from_run(runs(grid, name)[0], rules.select_by) for name in grid.dataset}
    read = cache(lambda run: Scored.from_predictions(load(run), about[run.dataset].measure))
    records = [Record.load(run) for run in all_runs(grid)]
    found = compare.compute(grid, settings.datasets, about, rules.margin, read, load, records)
    with files.replacing("metrics/plots") as folder:
        plots.write(folder, grid, found, read, load)
    files.write_json("metrics/summary.json", compare.summary(found, grid, records))
    found.write("metrics/evidence.json")


def load(run: Run) -> dict[str, predictions.Predictions]:
    return predictions.load(run.written(PREDICTIONS))


if __name__ == "__main__":
    cli.run(main)
