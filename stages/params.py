"""Check params.yaml before any stage starts, and write what stages depend on to data/settings.

After an edit of params.yaml this stage runs again, and of the others only those that depend on the
edited settings: a run on its recipe's settings, a data set's division on its classes and counts,
the pages on titles and costs, and all others on a file that never changes. DVC could depend on keys
of params.yaml itself, but breaks a long key, such as a class's name, over lines of dvc.lock that no
YAML reader takes.
"""

from transfer import cli, files, params, runs, settings
from transfer.training import preflight


def main() -> None:
    cli.arguments("params", __doc__)
    study = params.load()
    preflight.check(study)
    with files.replacing("data/settings") as folder:
        for name, text in settings.texts(study).items():
            files.write_text(folder / name, text)
        files.write_json(folder / "costs.json", preflight.costs(study))
    gone = runs.clear(study)
    print(f"params.yaml: {study.runs} runs")
    if gone:
        print(f"removed {len(gone)} results of runs or data sets that are no longer in params.yaml")


if __name__ == "__main__":
    cli.run(main)
