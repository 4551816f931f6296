"""One run of the grid, from its images and weights to its results in metrics/runs/<run>/."""

import csv
import platform
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path

import torch

from transfer import cli, files, params
from transfer.images import packed
from transfer.runs import CURVE, PREDICTIONS, RECORD, Run
from transfer.training import engine, features, models, predictions
from transfer.training.checkpoint import Checkpoint, fingerprint
from transfer.training.progress import watched
from transfer.training.record import Best, Epoch, Record, Time, finite

LIVE = Path("metrics/live.csv")
"""The curve of the run that trains now or did last; `dvc plots` shows it."""
LOSSES = ("train_loss", "validation_loss", "test_loss")


def train(run: Run, study: params.Params, every: float) -> None:
    """Train it, going on from its checkpoint if there is one, and write its folder, whole.

    every: least seconds between checkpoints. Raises UserError for what it could not train.
    """
    settings = study.trained_by(run.recipe)
    data = images(run)
    device = check(settings, data)
    protocol = engine.Protocol(lr=run.lr, seed=run.seed, **settings.protocol)
    started = time.perf_counter()
    checkpoint = Checkpoint(f"data/checkpoints/{run.name}.pt", key(run, protocol, device), every)
    outcomes = shown(run, fit(run, settings, data, protocol, device, checkpoint))
    size = len(data.train) + len(data.validation) + len(data.test)
    outcomes = watched(run.name, protocol.epochs, size, outcomes)
    seconds = time.perf_counter() - started
    predicted = {part: predict(part, data, outcomes) for part in ("validation", "test")}
    predicted = {part: found for part, found in predicted.items() if found.name.size}
    curve, chosen = [epoch for epoch, _ in outcomes], predictions.chosen_epoch(predicted)
    outcome = record(run, curve, chosen, data, device)
    with files.replacing(run.folder) as folder:
        folder.mkdir()
        outcome.write(folder / RECORD)
        write_curve(folder / CURVE, curve)
        predictions.save(folder / PREDICTIONS, predicted)
    write_time(run, seconds, len(curve) * size)
    checkpoint.remove()
    print(f"{run.name}: {summary(outcome)}, {cli.span(seconds)}")


def images(run: Run) -> packed.Packed:
    data = packed.load(f"data/packed/{run.dataset}")
    if run.images != "all":
        data = replace(data, train=packed.fewer(data.train, run.images))
    return data


def check(settings: params.Train, data: packed.Packed) -> torch.device:
    """The device to train on. Raises UserError for what would fail after a whole epoch."""
    # The last stage of a ResNet sees size/32 pixels; batch norm needs more than one value.
    last = len(data.train) % settings.batch_size or settings.batch_size
    if data.size <= 32 and last == 1:
        raise cli.UserError(
            f"params.yaml: train.batch_size {settings.batch_size} leaves a last batch of one of "
            f"{len(data.train)} images, too small for batch norm at pack.size {data.size}"
        )
    try:
        return engine.pick_device(settings.device)
    except ValueError as error:
        raise cli.UserError(f"params.yaml: train.device: {error}") from None


def key(run: Run, protocol: engine.Protocol, device: torch.device) -> str:
    """What the weights and features on the way depend on."""
    bound = [Path(f"data/packed/{run.dataset}/index.json"), weights(run)]
    depends = {"images": run.images, "backbone": run.backbone, "device": device_name(device)}
    return fingerprint("stages.train", bound, protocol=asdict(protocol), **depends)


def weights(run: Run) -> Path:
    return Path(f"data/weights/{run.backbone}-{run.start}.pth")


def fit(run, settings, data, protocol, device, checkpoint) -> Iterator[engine.Outcome]:
    """The run's epochs. A frozen run's backbone pass is taken from its file, or kept there."""
    model = protocol.build(run.backbone, len(data.classes), weights(run))
    if run.freezing != "frozen":
        return engine.finetune(model, data, protocol, device, checkpoint, run.freezing)
    head = models.head(model).to(device)
    if settings.keep_features:
        bound = key(run, protocol.backbone_only(), device)
        name = f"{run.dataset}-{run.images}-{run.backbone}-{run.recipe}-{run.start}-{run.seed}"
        folder = Path("data/features")
        epochs = features.kept(folder, name, bound, model, data, protocol, device)
    else:
        epochs = features.compute(model, data, protocol, device)
    return engine.probe(head, epochs, data, protocol)


def shown(run: Run, outcomes: Iterable[engine.Outcome]) -> Iterator[engine.Outcome]:
    """The outcomes, each written to LIVE as it comes."""
    lines = ["run,epoch,train_accuracy,test_accuracy"]
    for outcome in outcomes:
        row = outcome.epoch
        lines.append(f"{run.name},{row.epoch},{row.train_accuracy:.6f},{row.test_accuracy:.6f}")
        # In place: runs side by side share it, and would take away each other's part.
        LIVE.parent.mkdir(parents=True, exist_ok=True)
        LIVE.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield outcome


def predict(part, data: packed.Packed, outcomes: list[engine.Outcome]) -> predictions.Predictions:
    outputs = torch.stack([outputs[part] for _, outputs in outcomes])
    images = getattr(data, part)
    return predictions.of(images.names, images.label, outputs.softmax(2).cpu().numpy())


def record(run, curve, chosen, data, device) -> Record:
    """What the run came to, equal for equal runs."""
    best = max(curve, key=lambda epoch: epoch.test_accuracy)
    row = curve[chosen]
    losses = {name: finite(getattr(row, name)) for name in LOSSES}
    counts = {
        part: dict(zip(data.classes, getattr(data, part).count(data.classes), strict=True))
        for part in packed.PARTS
    }
    return Record(
        **asdict(run),
        best=Best(accuracy=best.test_accuracy, epoch=best.epoch),
        chosen=replace(row, **losses),
        chosen_by="validation" if len(data.validation) else "last",
        n={part: sum(count.values()) for part, count in counts.items()},
        counts=counts,
        data=data.sha256,
        device=device_name(device),
        arithmetic=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        versions={name: version(name) for name in ("torch", "torchvision", "numpy")}
        # Patch releases would make equal runs differ.
        | {"python": ".".join(platform.python_version_tuple()[:2])},
    )


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def write_curve(path: Path, curve: list[Epoch]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [f.name for f in fields(Epoch)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in curve)


def write_time(run: Run, seconds: float, images: int) -> None:
    time = Time(
        seconds=seconds,
        images_per_second=images / seconds,
        host=socket.gethostname(),
        of=files.sha256(run.folder / RECORD),
    )
    time.write(run.time)


def summary(outcome: Record) -> str:
    best, row = outcome.best, outcome.chosen
    by = "the epoch that validation chose" if outcome.n["validation"] else "the last epoch"
    return (
        f"test accuracy {row.test_accuracy:.4f} at {by} ({row.epoch}), "
        f"{best.accuracy:.4f} at the best ({best.epoch})"
    )
