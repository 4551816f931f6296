"""What one setting at a time does on the drawn study.

ResNet-18, finetuned from pretrained weights at 0.0001, on the two small data sets, with three
seeds; against it, runs that differ in one setting, made by `dvc exp run --set-param`. The table
gives test accuracies at the epoch that validation chose, and the differences, paired by image and
seed.

`PYTHONPATH=. python benchmarks/factors.py CLONE`, in whose sample/ `dvc repro` has run.
"""

import argparse
import subprocess
from pathlib import Path

from tabulate import tabulate

from transfer.evidence import stats
from transfer.evidence.results import Scored
from transfer.evidence.stats import Seeds
from transfer.runs import DEFAULT, PREDICTIONS, Setting
from transfer.training import predictions

DATASETS, SEEDS = ("hearts_drops", "scans"), (0, 1, 2)
PAPER = {"backbone": "miniresnet10", "freezing": "finetuned", "recipe": DEFAULT}
RECIPES = {
    "gelu": "{activation: GELU}",
    "maxpool": "{pooling: AdaptiveMaxPool2d}",
    "smooth": "{loss: {CrossEntropyLoss: {label_smoothing: 0.1}}}",
    "margin": "{loss: MultiMarginLoss}",
    "trivial": "{augmentation: [TrivialAugmentWide]}",
    "plain": "{augmentation: []}",
    "sgd": "{optimizer: {SGD: {momentum: 0.9}}}",
    "adamw": "{optimizer: AdamW}",
    "cosine": "{schedule: CosineAnnealingLR}",
}
BACKBONES = ["regnetx_004", "mobilenetv3_small_100"]
# Axis → its other values, and what else has to be set for them.
AXES = {
    "recipe": (list(RECIPES), [f"+recipes.{name}={value}" for name, value in RECIPES.items()]),
    "freezing": (["frozen", "last1", "last2", "lpft"], []),
    "backbone": (
        BACKBONES,
        [
            f"+pretrain.{name}={{source: things, lr: 0.001, epochs: 10, batch_size: 32, "
            "schedule: {StepLR: {step_size: 7, gamma: 0.1}}, seed: 0}"
            for name in BACKBONES
        ],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    args = parser.parse_args()
    folder, datasets, lines = args.clone / "sample", args.datasets, []
    for axis, (values, needed) in ((axis, AXES[axis]) for axis in args.axes):
        experiment(folder, datasets, axis, [PAPER[axis], *values], needed)
        own = {name: right(folder, name, **PAPER) for name in datasets}
        if not lines:
            lines.append(["the paper's", "", *(f"{own[name].value:.3f}" for name in datasets)])
        for value in values:
            other = {name: right(folder, name, **{**PAPER, axis: value}) for name in datasets}
            cells = [f"{other[n].value:.3f}, {stats.compare(other[n], own[n])}" for n in datasets]
            lines.append([axis, RECIPES.get(value, value), *cells])
    print(tabulate(lines, ["", "", *datasets], tablefmt="github", disable_numparse=True))


def experiment(
    folder: Path, datasets: list[str], axis: str, values: list[str], needed: list[str]
) -> None:
    grid = {key: [value] for key, value in PAPER.items()} | {axis: values}
    grid |= {"dataset": datasets, "lr": [0.0001], "init": ["pretrained"], "seed": SEEDS}
    listed = [f"grid.{key}=[{','.join(map(str, values))}]" for key, values in grid.items()]
    settings = [word for setting in needed + listed for word in ("-S", setting)]
    subprocess.run(["git", "checkout", "-q", "HEAD", "--", "."], cwd=folder, check=True)
    subprocess.run(["dvc", "exp", "run", "evidence", *settings], cwd=folder, check=True)


def right(folder: Path, dataset: str, backbone: str, freezing: str, recipe: str) -> Seeds:
    hyperparameters = {"backbone": backbone, "lr": 0.0001, "freezing": freezing, "recipe": recipe}
    setting = Setting(dataset=dataset, images="all", **hyperparameters)
    runs = [setting.run("pretrained", seed) for seed in SEEDS]
    paths = [folder / run.folder / PREDICTIONS for run in runs]
    found = [Scored.from_predictions(predictions.load(path), "accuracy") for path in paths]
    return Seeds([one.right[one.chosen] for one in found])


if __name__ == "__main__":
    main()
