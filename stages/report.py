"""Turn evidence, similarity and audits into metrics/report.md, its pictures, and report.html."""

from itertools import product
from pathlib import Path

from transfer import cli, files, params
from transfer.evidence.measures import Similarity
from transfer.evidence.records import Evidence
from transfer.images.audit import Audit
from transfer.pages import browser, pictures, report
from transfer.runs import all_runs
from transfer.training.record import Record


def main() -> None:
    cli.arguments("report", __doc__)
    study = params.load()
    grid = study.grid
    evidence = Evidence.read("metrics/evidence.json")
    audits = {name: Audit.load(name) for name in grid.dataset}
    similar = [Similarity.load(*pair) for pair in product(grid.dataset, grid.backbone)]
    records = [Record.load(run) for run in all_runs(grid)]
    costs = files.read_json("data/settings/costs.json")
    figures = pictures.draw(study, evidence, similar, audits, costs)
    pictures.save(Path("metrics/figures"), figures)
    datasets = {name: study.datasets[name] for name in grid.dataset}
    drawn = bool(study.draw)
    page = report.write(datasets, evidence, similar, audits, records, list(figures), drawn)
    files.write_text("metrics/report.md", page)
    parts = [browser.Part.collect(name, study, evidence, audits[name], costs) for name in datasets]
    files.write_text("metrics/report.html", browser.write(page, parts, figures))


if __name__ == "__main__":
    cli.run(main)
