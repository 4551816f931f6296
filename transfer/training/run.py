"""One run of the grid, from its images and weights to its results in metrics/runs/<run>/."""

import csv
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from transfer import arithmetic, cli, files
from transfer.images import packed
from transfer.params import Params
from transfer.runs import CURVE, PREDICTIONS, RECORD, Run
from transfer.training import models, predictions, run_cache
from transfer.training.engine import Checkpoint, EpochResult, Job, finetune, pick_device, probe
from transfer.training.features import Pass
from transfer.training.record import Best, Epoch, Record, Time, chosen, computed_on

LIVE = Path("metrics/live.csv")
"""The curve of the run that is training, or that trained last; `dvc plots` shows it."""
EVERY = 30.0  # seconds between lines of progress
# Without the run's name, which DVC has just shown, so that it fits into 80 columns.
BAR = "epoch {n_fmt}/{total_fmt} |{bar}| {remaining} to go{postfix}"


def prepare(run: Run, study: Params) -> Job:
    """The run with its settings, images and device. Raises UserError for settings that would fail
    only after a whole epoch."""
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
    numbers = arithmetic.apply(settings.arithmetic, settings.precision, device.type)
    job = Job(run, settings, data, device, numbers)
    try:
        job.loss()
    except ValueError as error:
        raise cli.UserError(f"params.yaml: train: {run.dataset}: {error}") from None
    return job


class Clock:
    """Counts a run's seconds in its file data/times, over interruptions too."""

    def __init__(self, job: Job, key: str) -> None:
        """key: the run's; a time of another key is not continued."""
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
    """Train the run, from its checkpoint if there is one, and put its results into the run cache.

    every: least seconds between checkpoints. Raises UserError for settings that cannot be trained.
    """
    job = prepare(run, study)
    clock, device = Clock(job, key), device_name(job.device)
    say_where(computed_on(device, job.arithmetic, torch.get_num_threads()))
    checkpoint = Checkpoint(f"data/checkpoints/{run.name}.pt", f"{key} {device}", every)
    epochs = fit(job, job.build(run.weights), checkpoint, job.settings.keep_features)
    results = watched(job, job.settings.epochs, clock.timed(shown(run, epochs)))
    curve = [result.epoch for result in results]
    kept = run_cache.kept(run, key)
    with files.replacing(kept) as folder:
        folder.mkdir()
        record(job, curve).write(folder / RECORD)
        write_curve(folder / CURVE, curve)
        predictions.save(folder / PREDICTIONS, predict(job.data, results))
    clock.write(len(curve), kept / RECORD)
    checkpoint.remove()
    print(f"{run.name}: {summary(curve)}, {cli.span(clock.seconds)}", flush=True)


@cache
def say_where(computed: str) -> None:
    """Print it once a process, which has one device for all its runs."""
    print(f"training on {computed}", flush=True)


def train_group(runs: list[Run], study: Params, every: float) -> None:
    """Train the runs that are not in the run cache yet. Raises the first run's error; another run's
    is printed in one line, and its own stage trains it again and reports the error."""
    for run in runs:
        key = run_cache.key(run, study)
        if run_cache.kept(run, key).is_dir():
            continue
        try:
            train(run, study, key, every)
        except Exception as error:  # such as too little memory for a larger run
            if run == runs[0]:
                raise
            print(f"{run.name}: left to its own stage: {cli.one_line(error)}", file=sys.stderr)


def fit(
    job: Job, model: nn.Module, checkpoint: Checkpoint | None = None, keep_features: bool = False
) -> Iterator[EpochResult]:
    """The run's epochs.

    A frozen run removes the model's head and trains it on the backbone's features; these are read
    from files, or stored there, if `keep_features`. Where images are blended with their labels, it
    trains the head with the backbone. Several runs may take turns by the epoch in one process, and
    give what they give alone.
    """
    run = job.run
    if run.freezing != "frozen" or job.blends:
        return finetune(job, model, checkpoint)
    head, backbone = models.head(model).to(job.device), Pass(job, model)
    if not keep_features:
        return probe(job, head, backbone.compute())
    key = run_cache.fingerprint(
        "stages.train",
        run_cache.inputs(run),
        backbone=[run.backbone, run.images, run.seed, job.settings.of_backbone()],
        device=[device_name(job.device), job.arithmetic],
    )
    return probe(job, head, backbone.kept(Path("data/features", f"{run.group}-{run.init}"), key))


def shown(run: Run, results: Iterable[EpochResult]) -> Iterator[EpochResult]:
    """Pass the results on, and write them to LIVE, with epochs counted from 1."""
    lines = ["run,epoch,train_accuracy,test_accuracy"]
    for result in results:
        row = result.epoch
        accuracies = f"{row.train_accuracy:.6f},{row.test_accuracy:.6f}"
        lines.append(f"{run.name},{row.epoch + 1},{accuracies}")
        # In place: parallel runs share the file, and would remove each other's temporary file.
        LIVE.parent.mkdir(parents=True, exist_ok=True)
        LIVE.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield result


def watched(
    job: Job, epochs: int, results: Iterable[EpochResult], every: float = EVERY
) -> list[EpochResult]:
    """The results as a list. Shows on stderr how far training is: a bar on a terminal, else a line
    at least `every` seconds apart. epochs: how many there will be."""
    seen: list[EpochResult] = []
    began = said = last = time.monotonic()
    with tqdm(total=epochs, bar_format=BAR, leave=False, disable=None) as bar:
        for result in results:
            seen.append(result)
            row, now = result.epoch, time.monotonic()
            rate, last = job.images / max(now - last, 1e-9), now
            state = f"loss {row.train_loss:.3f}, test {row.test_accuracy:.3f}, {rate:.0f} images/s"
            bar.set_postfix_str(state)
            bar.update()
            if bar.disable and now - said >= every and len(seen) < epochs:
                left = (now - began) / len(seen) * (epochs - len(seen))
                line = (
                    f"{job.run.name}: epoch {len(seen)}/{epochs}, {state}, {cli.span(left)} to go"
                )
                print(line, file=sys.stderr, flush=True)
                said = now
    return seen


def predict(data: packed.Packed, epochs: list[EpochResult]) -> dict[str, predictions.Predictions]:
    """Predictions for the validation part, if there is one, and the test part."""
    result = {}
    for part in ("validation", "test"):
        if len(images := getattr(data, part)):
            outputs = torch.stack([epoch.outputs[part] for epoch in epochs])
            result[part] = predictions.from_probabilities(
                images.names, images.label, outputs.softmax(2).cpu().numpy()
            )
    return result


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
    """Package → version, of those that the results of a run with that backbone depend on."""
    names = ("torch", "torchvision", "numpy", *(("timm",) if models.is_timms(backbone) else ()))
    # +cpu marks the builds of PyTorch's own index, which give the same results on a CPU.
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
