"""Say which setting to take for each data set, with its evidence and what it costs.

The text is printed and kept in metrics/recommendation.md, which DVC does not track: the time that
runs took here would make the results of equal runs differ.
"""

from pathlib import Path
from typing import Any

from transfer import cli, files, params, recommend
from transfer.runs import Run


def main() -> None:
    settings = params.load()
    grid, choices = settings.grid, files.read_json("metrics/evidence.json")["choices"]
    sections = ["# Which setting for my images?"]
    for name in grid.dataset:
        own = [choice for choice in choices if choice["dataset"] == name]
        timed = [choice | {"seconds": seconds(choice, grid)} for choice in own]
        similar = [
            files.read_json(f"metrics/similarity/{name}-{backbone}.json")
            for backbone in grid.backbone
        ]
        dataset = settings.datasets[name]
        sections.append(recommend.write(dataset, timed, similar, dataset.folders.classes))
    text = "\n\n".join(sections) + "\n"
    files.write_text("metrics/recommendation.md", text)
    print(text, end="")


def seconds(choice: dict[str, Any], grid: params.Grid) -> float | None:
    """What a run took; of frozen runs, which share a pass of the backbone, with that pass."""
    rates = grid.lr if choice["freezing"] == "frozen" else [choice["lr"]]
    axes = ("dataset", "images", "backbone", "freezing", "recipe", "start")
    runs = [Run(**{key: choice[key] for key in axes}, lr=lr, seed=grid.seed[0]) for lr in rates]
    paths = [Path(run.path("timing")) for run in runs]
    found = [files.read_json(path)["seconds"] for path in paths if path.is_file()]
    return max(found, default=None)


if __name__ == "__main__":
    cli.run(main)
