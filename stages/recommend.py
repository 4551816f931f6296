"""Say which setting to take for each data set, with its evidence and its cost.

The page is metrics/recommendation.md. Before it, times on this machine are printed: of the runs and
of an image. DVC does not track them, because they vary between identical runs.
"""

from transfer import cli, files, params
from transfer.evidence.found import Evidence
from transfer.evidence.measures import Similarity
from transfer.pages import recommendation
from transfer.pages.recommendation import Advice
from transfer.training.record import curve


def main() -> None:
    settings = params.load()
    grid, evidence = settings.grid, Evidence.read("metrics/evidence.json")
    known = files.read_json("data/settings/costs.json")
    advices, times = [], []
    for name in grid.dataset:
        choices = [choice for choice in evidence.choices if choice.dataset == name]
        runs = [choice.run(choice.start, grid.seed[0]) for choice in choices]
        operations = [recommendation.operations(run, known) for run in runs]
        cost = known[recommendation.cost_of(runs[0])]
        advices.append(
            Advice(
                dataset=settings.datasets[name],
                grid=grid,
                measure=evidence.measures[name],
                choices=choices,
                costs=[one / operations[0] for one in operations],
                margin=settings.evidence.margin,
                network=(cost["parameters"], cost["image"]),
                similar=[Similarity.of(name, backbone) for backbone in grid.backbone],
                curve=curve(runs[0]),
            )
        )
        times += [(run.name, took) for run in runs if (took := recommendation.seconds(run))]
    page = recommendation.write(advices)
    files.write_text("metrics/recommendation.md", page)
    print(recommendation.times(times), image_times(settings, evidence), page, sep="\n\n", end="")


def image_times(settings: params.Params, evidence: Evidence) -> str:
    from transfer.training import engine, estimate, run  # and PyTorch, which takes seconds

    first = {choice.dataset: choice for choice in reversed(evidence.choices)}.values()
    auto = settings.train.model_copy(update={"device": "auto"})  # the study's may be elsewhere
    here = settings.model_copy(update={"train": auto})
    networks = {choice.backbone: len(choice.recall) for choice in first}
    device = engine.pick_device("auto")
    many = 64 if device.type == "cuda" else 8  # a CPU takes no less with more
    took = {
        name: (estimate.predicting(name, here, n, 1), estimate.predicting(name, here, n, many))
        for name, n in networks.items()
    }
    return recommendation.image_times(took, many, run.device_name(device))


if __name__ == "__main__":
    cli.run(main)
