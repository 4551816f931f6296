"""Turn the runs of the grid into metrics/tables.md."""

from transfer import cli, files, params
from transfer.pages import tables
from transfer.training.record import Record


def main() -> None:
    cli.arguments("tables", __doc__)
    settings = params.load()
    grid = settings.grid
    results = {name: tables.collect(grid, name, Record.load) for name in grid.dataset}
    always = {name: tables.majority(grid, name, Record.load) for name in grid.dataset}
    files.write_text("metrics/tables.md", tables.page(grid, settings.datasets, results, always))


if __name__ == "__main__":
    cli.run(main)
