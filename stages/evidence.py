"""Turn the runs' predictions into metrics/evidence.json, its summary, and data for `dvc plots`."""

from functools import cache

from transfer import cli, files, params
from transfer.evidence import claims, compare, plots
from transfer.evidence.results import DataInfo, Scored
from transfer.runs import PREDICTIONS, Run, all_runs, runs
from transfer.training import predictions
from transfer.training.record import Record


def main() -> None:
    cli.arguments("evidence", __doc__)
    study = params.load()
    grid, rules = study.grid, study.evidence
    data = {name: DataInfo.from_run(runs(grid, name)[0], rules.select_by) for name in grid.dataset}

    @cache
    def read(run: Run) -> Scored:
        info = data[run.dataset]
        return Scored.from_predictions(load(run), info.measure, info.criterion)

    records = [Record.load(run) for run in all_runs(grid)]
    costs = files.read_json("data/settings/costs.json")
    any_run = f"{grid.recipe[0]}-{grid.freezing[0]}"
    sizes = {name: costs[f"{name}-{any_run}"]["parameters"] for name in grid.backbone}
    stand_ins = claims.stand_ins(sizes)
    evidence = compare.compute(
        grid, study.datasets, data, rules.margin, read, load, records, stand_ins
    )
    with files.replacing("metrics/plots") as folder:
        plots.write(folder, grid, evidence, read, load)
    files.write_json("metrics/summary.json", compare.summary(evidence, grid, records))
    evidence.write("metrics/evidence.json")


def load(run: Run) -> dict[str, predictions.Predictions]:
    return predictions.load(run.written(PREDICTIONS))


if __name__ == "__main__":
    cli.run(main)
