"""Check params.yaml before any stage starts, and write what stages depend on to data/settings.

After an edit of params.yaml, only this stage and the stages that depend on the edited settings run
again: runs depend on their recipe's settings in data/settings, which change only if their meaning
does, a data set's division on its classes and counts, the pages on what they say of data sets, and
everything else on a file that never changes. So no name that a user gives a class is a key in
dvc.lock, where DVC breaks a long one over lines that no YAML reader takes.
"""

from transfer import cli, files, params, runs, settings
from transfer.training import cost
from transfer.training.check import check


def main() -> None:
    cli.arguments("params", __doc__)
    study = params.load()
    check(study)
    with files.replacing("data/settings") as folder:
        for name, text in settings.texts(study).items():
            files.write_text(folder / name, text)
        files.write_json(folder / "costs.json", cost.costs(study))
    gone = runs.clear(study)
    print(f"params.yaml: {study.runs} runs")
    if gone:
        print(f"removed {len(gone)} results of runs or data sets that are no longer in params.yaml")


if __name__ == "__main__":
    cli.run(main)
