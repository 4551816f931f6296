"""Train one configuration by the report's protocol and write down how it went."""

import argparse
import csv
import math
import platform
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from transfer import cli, files, params
from transfer.progress import watched
from transfer.runs import Run
from transfer.training import engine, features, models, packed, predictions
from transfer.training.checkpoint import Checkpoint, alone, fingerprint


def main() -> None:
    run, every = parse()
    with alone(f"data/checkpoints/.{run.name}.lock", run.name):
        train(run, every)


def train(run: Run, every: float) -> None:
    settings = params.load().trained_by(run.recipe)
    data = packed.load(f"data/packed/{run.dataset}")
    if run.images != "all":
        data = replace(data, train=packed.fewer(data.train, run.images))
    device = check(settings, data)
    protocol = engine.Protocol(lr=run.lr, seed=run.seed, **settings.protocol)
    started = time.perf_counter()
    checkpoint = Checkpoint(f"data/checkpoints/{run.name}.pt", key(run, protocol, device), every)
    outcomes = fit(run, settings, data, protocol, device, checkpoint)
    images = len(data.train) + len(data.validation) + len(data.test)
    outcomes = watched(run.name, protocol.epochs, images, outcomes)
    seconds = time.perf_counter() - started
    predicted = {part: predict(part, data, outcomes) for part in ("validation", "test")}
    predicted = {part: found for part, found in predicted.items() if found.name.size}
    predictions.save(run.path("predictions", "npz"), predicted)
    chosen = predictions.chosen_epoch(predicted)
    write(run, [epoch for epoch, _ in outcomes], chosen, data, device, seconds)
    checkpoint.remove()


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


def weights(run: Run) -> Path:
    return Path(f"data/weights/{run.backbone}-{run.start}.pth")


def key(run: Run, protocol: engine.Protocol, device: torch.device) -> str:
    """What the weights and features on the way depend on."""
    files = [Path(f"data/packed/{run.dataset}/index.json"), weights(run)]
    depends = {"images": run.images, "backbone": run.backbone, "device": device_name(device)}
    return fingerprint(files, protocol=asdict(protocol), **depends)


def parse() -> tuple[Run, float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("images", type=lambda text: text if text == "all" else int(text))
    parser.add_argument("backbone")
    parser.add_argument("lr", type=float)
    parser.add_argument("freezing")
    parser.add_argument("recipe")
    parser.add_argument("start", choices=["pretrained", "scratch"])
    parser.add_argument("seed", type=int)
    help = "least seconds between checkpoints (default %(default)s)"
    parser.add_argument("--checkpoint-every", type=float, default=60.0, help=help)
    given = vars(parser.parse_args())
    every = given.pop("checkpoint_every")
    return Run(**given), every


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


def predict(part, data: packed.Packed, outcomes: list[engine.Outcome]) -> predictions.Predictions:
    outputs = torch.stack([outputs[part] for _, outputs in outcomes])
    images = getattr(data, part)
    return predictions.of(images.names, images.label, outputs.softmax(2).cpu().numpy())


def write(run, curve, chosen, data, device, seconds) -> None:
    """The run's metrics, curve and timing; what differs between equal runs is in the last."""
    outcome = record(run, curve, chosen, data, device)
    files.write_json(run.path("runs"), outcome)
    with files.replacing(run.path("curves", "csv")) as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, [f.name for f in fields(engine.Epoch)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(epoch) for epoch in curve)
    images = len(curve) * sum(outcome["n"].values())
    files.write_json(
        run.path("timing"),
        {"seconds": seconds, "images_per_second": images / seconds, "host": socket.gethostname()},
    )
    best, row = outcome["best"], outcome["chosen"]
    by = "the epoch that validation chose" if data.validation else "the last epoch"
    print(
        f"{run.name}: test accuracy {row['test_accuracy']:.4f} at {by} ({row['epoch']}), "
        f"{best['accuracy']:.4f} at the best ({best['epoch']}), {cli.span(seconds)}"
    )


def record(run, curve, chosen, data, device) -> dict[str, Any]:
    """What the run came to, equal for equal runs."""
    best = max(curve, key=lambda epoch: epoch.test_accuracy)
    counts = {
        part: dict(zip(data.classes, getattr(data, part).count(data.classes), strict=True))
        for part in packed.PARTS
    }
    return {
        **asdict(run),
        "best": {"accuracy": best.test_accuracy, "epoch": best.epoch},
        "chosen": {key: finite(value) for key, value in asdict(curve[chosen]).items()},
        "chosen_by": "validation" if len(data.validation) else "last",
        "n": {part: sum(count.values()) for part, count in counts.items()},
        "counts": counts,
        "data": data.sha256,
        "device": device_name(device),
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")}
        # Patch releases would make equal runs differ.
        | {"python": ".".join(platform.python_version_tuple()[:2])},
    }


def finite(value: float | None) -> float | None:
    """A diverged run's loss has no number in JSON."""
    return value if value is None or math.isfinite(value) else None


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    cli.run(main)
