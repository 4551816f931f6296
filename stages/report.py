"""Turn evidence, similarity and audits into metrics/report.md and its pictures."""

from itertools import product
from pathlib import Path

from transfer import cli, files, params
from transfer.evidence.found import Evidence
from transfer.evidence.measures import Similarity
from transfer.images.audit import Audit
from transfer.pages import pictures, report
from transfer.runs import all_runs
from transfer.training.record import Record


def main() -> None:
    study = params.load()
    grid = study.grid
    evidence = Evidence.read("metrics/evidence.json")
    audits = {name: Audit.of(name) for name in grid.dataset}
    similar = [Similarity.of(*place) for place in product(grid.dataset, grid.backbone)]
    records = [Record.of(run) for run in all_runs(grid)]
    costs = files.read_json("data/settings/costs.json")
    shown = pictures.draw(Path("metrics/figures"), study, evidence, similar, audits, costs)
    datasets = {name: study.datasets[name] for name in grid.dataset}
    page = report.write(datasets, evidence, similar, audits, records, shown, bool(study.draw))
    files.write_text("metrics/report.md", page)


if __name__ == "__main__":
    cli.run(main)
