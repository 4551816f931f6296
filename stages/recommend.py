"""Say which setting to take for each data set, with its evidence and its cost.

The page is metrics/recommendation.md. Before it, the times of the runs on this machine are printed.
DVC does not track them, because they vary between identical runs.
"""

from transfer import cli, files, params
from transfer.evidence.measures import Similarity
from transfer.evidence.records import Evidence
from transfer.pages import recommendation
from transfer.pages.recommendation import Advice


def main() -> None:
    cli.arguments("recommend", __doc__)
    study, evidence = params.load(), Evidence.read("metrics/evidence.json")
    costs = files.read_json("data/settings/costs.json")
    advices, times = [], []
    for name in study.grid.dataset:
        choices = evidence.ranking(name)
        runs = [choice.run(choice.init, study.grid.seed[0]) for choice in choices]
        similar = [Similarity.load(name, backbone) for backbone in study.grid.backbone]
        by = evidence.measures[name], evidence.criteria[name]
        calibration = evidence.calibration[name]
        advices.append(Advice.from_choices(choices, *by, study, costs, similar, calibration))
        times += [(run.name, took) for run in runs if (took := recommendation.seconds(run))]
    page = recommendation.write(advices, evidence.mixed)
    files.write_text("metrics/recommendation.md", page)
    print(recommendation.times(times), page, sep="\n\n", end="")


if __name__ == "__main__":
    cli.run(main)
