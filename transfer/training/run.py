"""One run of the grid, from its images and weights to its results in metrics/runs/<run>/."""

import csv
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Self

import torch
from torch import nn

from transfer import arithmetic, cli, files
from transfer.images import packed
from transfer.params import Params
from transfer.runs import CURVE, PREDICTIONS, RECORD, Run
from transfer.training import models, predictions, run_cache
from transfer.training.checkpoint import Checkpoint
from transfer.training.engine import EpochResult, Protocol, finetune, pick_device, probe
from transfer.training.features import Pass
from transfer.training.progress import watched
from transfer.training.record import Best, Epoch, Record, Time, chosen, computed_on

LIVE = Path("metrics/live.csv")
"""The curve of the run that trains now or did last; `dvc plots` shows it."""


@dataclass(frozen=True)
class Job:
    """A run with its data, its protocol, the device that it is trained on, and what that computes
    with, as Record.arithmetic has it."""

    run: Run
    data: packed.Packed
    protocol: Protocol
    device: torch.device
    arithmetic: str

    @property
    def images(self) -> int:
        """How many an epoch takes, including those that are only predicted."""
        return sum(len(getattr(self.data, part)) for part in packed.PARTS)

    def build(self) -> nn.Module:
        """The network that training starts from."""
        return self.protocol.build(
            self.run.backbone, len(self.data.classes), run_cache.weights(self.run)
        )

    @classmethod
    def prepare(cls, run: Run, study: Params) -> Self:
        """Raises UserError for settings that would fail only after a whole epoch."""
        settings = study.trained_by(run.recipe)
        data = packed.load(f"data/packed/{run.dataset}", run.seed)
        if isinstance(run.images, int):
            data = replace(data, train=packed.fewer(data.train, run.images))
        # The last stage of a ResNet sees size/32 pixels; batch norm needs more than one value.
        last = len(data.train) % settings.batch_size or settings.batch_size
        if data.size <= 32 and last == 1:
            raise cli.UserError(
                f"params.yaml: train.batch_size {settings.batch_size} leaves a last batch of one "
                f"of {len(data.train)} images, too small for batch norm at pack.size {data.size}"
            )
        device = pick_device(settings.device)
        protocol = Protocol(lr=run.lr, seed=run.seed, **settings.protocol)
        try:
            protocol.loss_of(data, device)
        except ValueError as error:
            raise cli.UserError(f"params.yaml: train: {run.dataset}: {error}") from None
        numbers = arithmetic.apply(settings.arithmetic, settings.precision, device.type)
        return cls(run, data, protocol, device, numbers)


class Clock:
    """Counts a run's seconds, over interruptions too, in the run's file of its time."""

    def __init__(self, job: Job, key: str) -> None:
        """key: the run's, which says whether what is in the file is of this very run."""
        self.run, self.images, self.key = job.run, job.images, key
        before = Time.read(self.run.time) if self.run.time.is_file() else None
        self.seconds = before.seconds if before and before.of == key else 0.0
        self.last = time.perf_counter()

    def write(self, epochs: int, record: Path | None = None) -> None:
        """The time until now, of so many epochs. record: the run's, once it is finished."""
        now = time.perf_counter()
        self.seconds, self.last = self.seconds + now - self.last, now
        Time(
            seconds=self.seconds,
            images_per_second=epochs * self.images / self.seconds,
            host=socket.gethostname(),
            of=files.sha256(record) if record else self.key,
            epochs=None if record else epochs,
        ).write(self.run.time)

    def timed(self, results: Iterable[EpochResult]) -> Iterator[EpochResult]:
        """Pass the results on, with the time written before the first and at each."""
        self.write(0)
        for count, result in enumerate(results, 1):
            self.write(count)
            yield result


def train(run: Run, study: Params, key: str, every: float) -> None:
    """Train the run, from its checkpoint if there is one, and keep its results atomically.

    every: least seconds between checkpoints. Raises UserError for settings that cannot be trained.
    """
    job = Job.prepare(run, study)
    clock, device = Clock(job, key), device_name(job.device)
    say_where(computed_on(device, job.arithmetic, torch.get_num_threads()))
    checkpoint = Checkpoint(f"data/checkpoints/{run.name}.pt", f"{key} {device}", every)
    epochs = fit(job, job.build(), checkpoint, study.train.keep_features)
    epochs = clock.timed(shown(run, epochs))
    found = watched(run.name, job.protocol.epochs, job.images, epochs)
    predicted = predict(job.data, found)
    curve = [result.epoch for result in found]
    result = record(job, curve)
    kept = run_cache.kept(run, key)
    with files.replacing(kept) as folder:
        folder.mkdir()
        result.write(folder / RECORD)
        write_curve(folder / CURVE, curve)
        predictions.save(folder / PREDICTIONS, predicted)
    clock.write(len(curve), kept / RECORD)
    checkpoint.remove()
    print(f"{run.name}: {summary(curve)}, {cli.span(clock.seconds)}", flush=True)


@cache
def say_where(computed: str) -> None:
    """Once a process, which has one device for all its runs."""
    print(f"training on {computed}", flush=True)


def train_group(runs: list[Run], study: Params, every: float) -> None:
    """Train those whose results are not kept yet. Raises what keeps the first from being trained;
    what keeps another is told in one line, and left to its own stage to raise."""
    for run in runs:
        key = run_cache.key(run, study)
        if run_cache.kept(run, key).is_dir():
            continue
        try:
            train(run, study, key, every)
        except Exception as error:  # such as of a larger run's memory
            if run == runs[0]:
                raise
            print(f"{run.name}: left to its own stage: {cli.one_line(error)}", file=sys.stderr)


def fit(
    job: Job, model: nn.Module, checkpoint: Checkpoint | None = None, keep_features: bool = False
) -> Iterator[EpochResult]:
    """The run's epochs. A frozen run removes the model's head and trains it on the backbone's
    features, which are read from files, or stored there, if `keep_features`; but not where images
    are blended with their labels.

    Several runs may take turns by the epoch in one process, and give what they give alone.
    """
    run, data, protocol, device = job.run, job.data, job.protocol, job.device
    if run.freezing != "frozen" or protocol.mixes:
        return finetune(model, data, protocol, device, checkpoint, run.freezing)
    head, backbone = models.head(model).to(device), Pass(model, data, protocol, device)
    if not keep_features:
        return probe(head, backbone.compute(), data, protocol)
    key = run_cache.fingerprint(
        "stages.train",
        run_cache.inputs(run),
        backbone=[run.backbone, run.images, asdict(protocol.backbone_only())],
        device=[device_name(device), job.arithmetic],
    )
    folder = Path("data/features", f"{run.group}-{run.init}")
    return probe(head, backbone.kept(folder, key), data, protocol)


def shown(run: Run, results: Iterable[EpochResult]) -> Iterator[EpochResult]:
    """Pass the results on, each also written to LIVE, by epochs counted from 1."""
    lines = ["run,epoch,train_accuracy,test_accuracy"]
    for result in results:
        row = result.epoch
        accuracies = f"{row.train_accuracy:.6f},{row.test_accuracy:.6f}"
        lines.append(f"{run.name},{row.epoch + 1},{accuracies}")
        # In place: parallel runs share the file, and would remove each other's temporary file.
        LIVE.parent.mkdir(parents=True, exist_ok=True)
        LIVE.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield result


def predict(data: packed.Packed, results: list[EpochResult]) -> dict[str, predictions.Predictions]:
    """Predictions for the validation part, if there is one, and the test part."""
    found = {}
    for part in ("validation", "test"):
        if len(images := getattr(data, part)):
            outputs = torch.stack([result.outputs[part] for result in results])
            found[part] = predictions.from_probabilities(
                images.names, images.label, outputs.softmax(2).cpu().numpy()
            )
    return found


def record(job: Job, curve: list[Epoch]) -> Record:
    """The run's record, from its epochs."""
    data, best = job.data, max(curve, key=lambda epoch: epoch.test_accuracy)
    counts = {
        part: dict(zip(data.classes, getattr(data, part).count(data.classes), strict=True))
        for part in packed.PARTS
    }
    return Record(
        **dict(job.run),
        best=Best(accuracy=best.test_accuracy, epoch=best.epoch),
        n={part: sum(count.values()) for part, count in counts.items()},
        counts=counts,
        data=data.sha256,
        device=device_name(job.device),
        arithmetic=job.arithmetic,
        threads=torch.get_num_threads(),
        versions=versions(job.run.backbone),
    )


def versions(backbone: str) -> dict[str, str]:
    """Of the packages that decide the results of a run with that backbone."""
    names = ("torch", "torchvision", "numpy", *(("timm",) if models.is_timms(backbone) else ()))
    # PyTorch's own index marks its builds for CPUs, which compute as others do there.
    return {name: version(name).removesuffix("+cpu") for name in names}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def write_curve(path: Path, curve: list[Epoch]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [f.name for f in fields(Epoch)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in curve)


def summary(curve: list[Epoch]) -> str:
    best = max(curve, key=lambda epoch: epoch.test_accuracy)
    row = chosen(curve)
    by = "the last epoch"
    if row.validation_accuracy is not None:
        by = "the epoch of the best validation accuracy"
    return (
        f"test accuracy {row.test_accuracy:.4f} at {by} ({row.epoch + 1}), "
        f"{best.test_accuracy:.4f} at the best ({best.epoch + 1})"
    )
