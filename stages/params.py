"""Check params.yaml before any stage starts, and write what stages depend on to data/settings.

After an edit of params.yaml, only this stage and the stages that depend on the edited settings run
again: runs depend on their recipe's settings in data/settings, which change only if their meaning
does, a data set's division on its classes and counts, the pages on what they say of data sets, and
everything else on a file that never changes. So no name that a user gives a class is a key in
dvc.lock, where DVC breaks a long one over lines that no YAML reader takes.
"""

from itertools import product
from typing import Any

from transfer import cli, files, params, runs
from transfer.training import cost
from transfer.training.check import check


def main() -> None:
    study = params.load()
    check(study)
    with files.replacing("data/settings") as folder:
        files.write_text(folder / "checked", "params.yaml was checked\n")
        # What clear() goes by: where this is of another commit, DVC runs the stage again.
        files.write_json(folder / "study.json", [study.grid.model_dump(), list(study.datasets)])
        files.write_json(folder / "costs.json", cost.costs(study))
        for recipe, freezing in product(study.grid.recipe, study.grid.freezing):
            settings = study.trained_by(recipe).deciding(freezing)
            files.write_json(folder / f"{recipe}-{freezing}.json", settings)
        files.write_json(folder / "datasets.json", of_datasets(study, "title", "table", "quadrant"))
        for name, settings in of_datasets(study, "folders", "count").items():
            files.write_json(folder / f"split/{name}.json", settings)
    gone = runs.clear(study)
    print(f"params.yaml: {study.runs} runs")
    if gone:
        print(f"removed {len(gone)} results of runs or data sets that are no longer in params.yaml")


def of_datasets(study: params.Params, *keys: str) -> dict[str, dict[str, Any]]:
    """These settings of each data set, as JSON takes them."""
    sets = study.datasets.items()
    return {name: one.model_dump(mode="json", include=set(keys)) for name, one in sets}


if __name__ == "__main__":
    cli.run(main)
