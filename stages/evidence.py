"""Turn the runs' predictions into metrics/evidence.json, its summary, and data for `dvc plots`."""

from functools import cache

from transfer import cli, files, params
from transfer.evidence import compare, plots
from transfer.images.audit import Audit
from transfer.runs import PREDICTIONS, Run, all_runs
from transfer.training import predictions
from transfer.training.record import Record


def main() -> None:
    settings = params.load()
    grid = settings.grid
    found = compare.compute(grid, settings.datasets, leaked(grid), tested, load)
    with files.replacing("metrics/plots") as folder:
        plots.write(folder, grid, found.rows, tested, load)
    summary = compare.summary(found, grid, [Record.of(run) for run in all_runs(grid)])
    files.write_json("metrics/summary.json", summary)
    found.write("metrics/evidence.json")


def leaked(grid: params.Grid) -> compare.Leaked:
    audits = {name: Audit.read(f"metrics/data/{name}.json") for name in grid.dataset}
    return {name: [test for test, _ in audit.leaked] for name, audit in audits.items()}


@cache
def tested(run: Run) -> compare.Tested:
    return compare.tested(load(run))


def load(run: Run) -> dict[str, predictions.Predictions]:
    return predictions.load(run.written(PREDICTIONS))


if __name__ == "__main__":
    cli.run(main)
