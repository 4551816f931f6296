"""Train one configuration by the report's protocol and write down how it went."""

import argparse
import csv
import math
import platform
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer import cli, engine, features, files, models, packed, params, predictions
from transfer.progress import watched
from transfer.runs import Run


def main() -> None:
    run = parse()
    settings = params.load().train
    data = packed.load(f"data/packed/{run.dataset}")
    device = check(settings, data)
    protocol = engine.Protocol(lr=run.lr, **settings.protocol)
    started = time.perf_counter()
    outcomes = watched(run.name, protocol.epochs, fit(run, settings, data, protocol, device))
    seconds = time.perf_counter() - started
    predictions.save(run.path("predictions", "npz"), {"test": predicted(data, outcomes)})
    write(run, [epoch for epoch, _ in outcomes], data, protocol.seed, device, seconds)


def fit(run, settings, data, protocol, device) -> Iterator[engine.Outcome]:
    """The run's epochs. A frozen run's backbone pass is taken from its file, or kept there."""
    checkpoint = Path(f"data/weights/{run.backbone}-{run.start}.pth")
    model = models.build(run.backbone, len(data.classes), checkpoint, protocol.seed)
    if run.freezing == "finetuned":
        return engine.finetune(model, data, protocol, device)
    head = getattr(model, models.HEAD).to(device)
    epochs = features.compute(model, data, protocol, device)
    if settings.keep_features:
        index = Path(f"data/packed/{run.dataset}/index.json")
        key = features.fingerprint(index, checkpoint, run.backbone, protocol, device_name(device))
        name = f"{run.dataset}-{run.backbone}-{run.start}"
        epochs = features.kept(Path("data/features"), name, key, epochs, protocol, data, device)
    return engine.probe(head, epochs, data, protocol)


def parse() -> Run:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("backbone")
    parser.add_argument("lr", type=float)
    parser.add_argument("freezing", choices=["frozen", "finetuned"])
    parser.add_argument("start", choices=["pretrained", "scratch"])
    return Run(**vars(parser.parse_args()))


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


def predicted(data: packed.Packed, outcomes: list[engine.Outcome]) -> predictions.Predictions:
    outputs = torch.stack([outputs for _, outputs in outcomes])
    return predictions.of(data.test.names, data.test.label, outputs.softmax(2).cpu().numpy())


def write(run, curve, data, seed, device, seconds) -> None:
    """The run's metrics, curve and timing; what differs between equal runs is in the last."""
    outcome = record(run, curve, data, seed, device)
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
    best, last = outcome["best"], outcome["last"]
    print(
        f"{run.name}: best {best['accuracy']:.4f} (epoch {best['epoch']}), "
        f"last {last['test_accuracy']:.4f}, {seconds:.1f} s"
    )


def record(run, curve, data, seed, device) -> dict[str, Any]:
    """What the run came to, equal for equal runs."""
    best = max(curve, key=lambda epoch: epoch.test_accuracy)
    counts = {
        part: dict(zip(data.classes, np.bincount(getattr(data, part).label).tolist(), strict=True))
        for part in ("train", "test")
    }
    return {
        **asdict(run),
        "best": {"accuracy": best.test_accuracy, "epoch": best.epoch},
        "last": {key: finite(value) for key, value in asdict(curve[-1]).items()},
        "n": {part: sum(count.values()) for part, count in counts.items()},
        "images": counts,
        "data": data.sha256,
        "seed": seed,
        "device": device_name(device),
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")}
        # Patch releases would make equal runs differ.
        | {"python": ".".join(platform.python_version_tuple()[:2])},
    }


def finite(value: float) -> float | None:
    """A diverged run's loss has no number in JSON."""
    return value if math.isfinite(value) else None


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    cli.run(main)
