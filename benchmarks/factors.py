"""What one setting at a time does on the drawn study.

ResNet-18, finetuned from pretrained weights at 0.0001, on the two small data sets, with three
seeds; against it, runs that differ in one setting, made by `dvc exp run --set-param`. The table
gives test accuracies at the epoch that validation chose, and the differences, paired by image and
seed.

`PYTHONPATH=. python benchmarks/factors.py CLONE`, where `dvc repro sample/dvc.yaml` has run.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np
from tabulate import tabulate

from transfer import evidence
from transfer.runs import DEFAULT, Run
from transfer.stats import bootstrap
from transfer.training import predictions

DATASETS, SEEDS = ("hearts_drops", "scans"), (0, 1, 2)
REPORT = {"backbone": "resnet18", "freezing": "finetuned", "recipe": DEFAULT}
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
# Axis → its other values, and what else has to be set for them.
AXES = {
    "recipe": (list(RECIPES), [f"+recipes.{name}={value}" for name, value in RECIPES.items()]),
    "freezing": (["frozen", "last1", "last2", "lpft"], []),
    "backbone": (
        ["regnet_x_400mf", "mobilenet_v3_small"],
        ["pretrain.backbone=[resnet18,regnet_x_400mf,mobilenet_v3_small]"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clone", type=Path)
    folder = parser.parse_args().clone
    lines = []
    for axis, (values, needed) in AXES.items():
        experiment(folder, axis, [REPORT[axis], *values], needed)
        own = {name: right(folder, name, **REPORT) for name in DATASETS}
        if not lines:
            lines.append(["the report's", "", *(f"{own[name].mean():.3f}" for name in DATASETS)])
        for value in values:
            other = {name: right(folder, name, **{**REPORT, axis: value}) for name in DATASETS}
            cells = [f"{other[n].mean():.3f}, {bootstrap(other[n], own[n])}" for n in DATASETS]
            lines.append([axis, RECIPES.get(value, value), *cells])
    print(tabulate(lines, ["", "", *DATASETS], tablefmt="github", disable_numparse=True))


def experiment(folder: Path, axis: str, values: list[str], needed: list[str]) -> None:
    grid = {key: [value] for key, value in REPORT.items()} | {axis: values}
    grid |= {"dataset": DATASETS, "lr": [0.0001], "start": ["pretrained"], "seed": SEEDS}
    listed = [f"grid.{key}=[{','.join(map(str, values))}]" for key, values in grid.items()]
    settings = [
        word for setting in needed + listed for word in ("-S", f"sample/params.yaml:{setting}")
    ]
    subprocess.run(["git", "checkout", "-q", "HEAD", "--", "."], cwd=folder, check=True)
    command = ["dvc", "exp", "run", "sample/dvc.yaml:evidence", *settings]
    subprocess.run(command, cwd=folder, check=True)


def right(folder: Path, dataset: str, backbone: str, freezing: str, recipe: str) -> np.ndarray:
    """bool [seeds, test images]"""
    runs = [Run(dataset, "all", backbone, 0.0001, freezing, recipe, "pretrained", s) for s in SEEDS]
    paths = [folder / "sample" / run.path("predictions", "npz") for run in runs]
    found = [evidence.tested(predictions.load(path)) for path in paths]
    return np.stack([one.right[one.chosen] for one in found])


if __name__ == "__main__":
    main()
