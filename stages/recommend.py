"""Say which setting to take for each data set, with its evidence and its cost.

The page is metrics/recommendation.md. How long the runs took on this machine is printed before it,
and kept out of all that DVC tracks, since it differs between identical runs.
"""

from transfer import cli, files, params
from transfer.evidence import compare
from transfer.pages import recommendation


def main() -> None:
    settings = params.load()
    grid, choices = settings.grid, files.read_json("metrics/evidence.json")["choices"]
    known = files.read_json("data/settings/costs.json")
    sections, times = ["# Which setting for my images?"], []
    for name in grid.dataset:
        own = [choice for choice in choices if choice["dataset"] == name]
        runs = [compare.run_of(choice, grid) for choice in own]
        costs = [recommendation.operations(run, known) for run in runs]
        similar = [
            files.read_json(f"metrics/similarity/{name}-{backbone}.json")
            for backbone in grid.backbone
        ]
        dataset = settings.datasets[name]
        sections.append(recommendation.write(dataset, own, costs, similar))
        times += [(run.name, seconds) for run in runs if (seconds := recommendation.seconds(run))]
    text = "\n\n".join(sections) + "\n"
    files.write_text("metrics/recommendation.md", text)
    print(recommendation.times(times), text, sep="\n\n", end="")


if __name__ == "__main__":
    cli.run(main)
