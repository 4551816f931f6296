"""Check params.yaml before any stage starts, and write what stages depend on to data/settings.

After an edit of params.yaml, only this stage and the stages that depend on the edited settings run
again: runs depend on their recipe's settings in data/settings, which change only if their meaning
does, and everything else on a file that never changes.
"""

from itertools import product

from transfer import cli, files, params, runs
from transfer.training import cost
from transfer.training.check import check


def main() -> None:
    cli.arguments("params", __doc__)
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
    gone = runs.clear(study)
    print(f"params.yaml: {study.runs} runs")
    if gone:
        print(f"removed {len(gone)} results of runs or data sets that are no longer in params.yaml")


if __name__ == "__main__":
    cli.run(main)
