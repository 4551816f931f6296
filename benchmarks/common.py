"""Measuring two things in turn, so that a noisy machine is noisy for both."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from ruamel.yaml import YAML

from tests.study import by_hand
from transfer.images import packed
from transfer.training import models

ROOT = Path(__file__).parents[1]


def alternate(
    contestants: dict[str, Callable[[int], float]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """One measurement of each per round, in turn; those of the first `warm_up` are left out."""
    results: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + warm_up):
        for name, measure in contestants.items():
            value = measure(number)
            if number >= warm_up:
                results[name].append(value)
    return results


def show(title: str, results: dict[str, list[float]], unit: str) -> None:
    """Print the medians, their ranges and the ratio ours ÷ peer (for seconds, peer ÷ ours)."""
    (peer, theirs), (_, ours) = results.items()
    ratio = median(ours) / median(theirs)
    for name, values in results.items():
        spread = f"{min(values):.4g} to {max(values):.4g}"
        print(f"{title}: {name} {median(values):.4g} {unit} ({spread}, n={len(values)})")
    better = 1 / ratio if unit == "s" else ratio
    print(f"{title}: {better:.2f} × the {peer} [{hardware()}]")


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{len(os.sched_getaffinity(0))} cores, {processor()}, torch {torch.__version__}"


def processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Study:
    """A study folder with one data set, `ab`, and what the `train` stage needs, nothing more."""

    def __init__(self, folder: str | Path, split: Path, checkpoint: Path | None, **train) -> None:
        self.folder, self.split = Path(folder), split.resolve()
        settings = YAML().load(ROOT / "params.yaml")
        by_hand(settings, backbone=["resnet18", "resnet50"], lr=[1e-3, 1e-4, 3e-4])
        settings["train"].update(train)
        YAML().dump(settings, self.folder / "params.yaml")
        packed.write(self.split, self.folder / "data/packed/ab", resize=256, size=224, short_side=0)
        weights = self.folder / "data/weights"
        weights.mkdir(parents=True)
        for backbone in ("resnet18", "resnet50"):
            models.save_scratch(weights / f"{backbone}-scratch.pth")
            if checkpoint:
                link = weights / f"{backbone}-pretrained.pth"
                link.symlink_to(checkpoint.resolve())

    def ours(self, backbone: str, lr: float, freezing: str, init: str) -> float:
        """Seconds of one `train` stage, as a process."""
        run = ["ab", "all", backbone, lr, freezing, "default", init, 0]
        return self._seconds(["-m", "stages.train", *run, "--alone"])

    def tutorial(self, backbone: str, lr: float, freezing: str, init: str, epochs: int) -> float:
        """Seconds of the peer's process for the same run."""
        weights = self.folder / f"data/weights/{backbone}-{init}.pth"
        command = [ROOT / "benchmarks/tutorial.py", self.split, backbone, lr, freezing]
        command += [weights] if init == "pretrained" else []
        return self._seconds([*command, "--epochs", epochs])

    def _seconds(self, command: list) -> float:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - started
