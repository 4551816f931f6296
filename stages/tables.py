"""Turn the runs of the grid into metrics/tables.md."""

from typing import Any

from transfer import cli, files, params
from transfer.pages import tables
from transfer.runs import RECORD, Run


def main() -> None:
    settings = params.load()
    results = {
        dataset: tables.collect(settings.grid, dataset, read) for dataset in settings.grid.dataset
    }
    files.write_text("metrics/tables.md", tables.page(settings.grid, settings.datasets, results))


def read(run: Run) -> dict[str, Any]:
    """A run's metrics. Raises UserError when it has not been trained."""
    return files.read_json(run.written(RECORD))


if __name__ == "__main__":
    cli.run(main)
