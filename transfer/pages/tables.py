"""metrics/tables.md: the paper's tables, from our runs. The words are in tables.md.j2."""

from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from transfer import templates
from transfer.evidence.published import COLUMNS, Published, published
from transfer.params import Dataset, Grid
from transfer.runs import Hyperparameters, Run, at_first_size, short
from transfer.training.record import Record

Results = dict[Hyperparameters, dict[str, float]]

FREEZING = {"frozen": "Y", "finetuned": "N"}


def collect(grid: Grid, dataset: str, read: Callable[[Run], Record]) -> Results:
    """Best test accuracy of a data set's runs by setting and init, at the grid's first size and
    seed."""
    return {
        setting.hyperparameters: {
            init: read(setting.run(init, grid.seed[0])).best.accuracy for init in grid.init
        }
        for setting in at_first_size(grid, dataset)
    }


def majority(grid: Grid, dataset: str, read: Callable[[Run], Record]) -> tuple[str, float]:
    """The most frequent class of a data set's test images, and its share of them."""
    record = read(at_first_size(grid, dataset)[0].run(grid.init[0], grid.seed[0]))
    label, count = max(record.counts["test"].items(), key=lambda pair: pair[1])
    return label, count / record.n["test"]


def table(results: Results, printed: Published | None) -> Markup:
    """Markdown in the paper's columns and order, with its numbers and ours minus its."""
    inits = list(next(iter(results.values())))
    recipes = len({recipe for *_, recipe in results}) > 1
    header = ["Freezing", "Backbone", "LR", *["Recipe"] * recipes]
    header += [COLUMNS[init] for init in inits]
    if printed:
        for init in inits:
            header += [f"Paper's {COLUMNS[init].lower()}", f"{COLUMNS[init]} less paper's"]
    body = []
    for (backbone, lr, freezing, recipe), accuracy in results.items():
        line = [FREEZING.get(freezing, freezing), short(backbone), lr, *[recipe] * recipes]
        line += [f"{accuracy[init]:.4f}" for init in inits]
        if printed:
            pair = printed.get((backbone, lr, freezing))
            papers = dict(zip(COLUMNS, pair, strict=True)) if pair else {}
            for init in inits:
                line += _paper_cells(accuracy[init], papers.get(init))
        body.append(line)
    align = ["left", "left", *["right"] * (len(header) - 2)]
    return templates.table(header, body, align)


def page(
    grid: Grid,
    datasets: dict[str, Dataset],
    results: dict[str, Results],
    always: dict[str, tuple[str, float]],
) -> str:
    """All tables as one markdown page. always: data set → the most frequent class of its test
    images, and how frequent it is."""
    printed = published()
    sections = [
        (data := datasets[name], *always[name], table(results[name], printed.get(data.table)))
        for name in grid.dataset
    ]
    return templates.render(Path(__file__).with_name("tables.md.j2"), sections=sections)


def _paper_cells(ours: float, papers: float | None) -> list[str]:
    return ["", ""] if papers is None else [f"{papers:.4f}", f"{ours - papers:+.4f}"]
