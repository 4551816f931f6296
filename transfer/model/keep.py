"""Train a data set's best run once more, to the epoch chosen, and keep the network."""

import argparse
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from transfer import cli, files, params
from transfer.evidence import stats
from transfer.evidence.compare import run_of
from transfer.images import packed
from transfer.model import exported, saved
from transfer.runs import PREDICTIONS, Run, known
from transfer.training import engine, features, models, predictions
from transfer.training import run as training
from transfer.training.progress import watched
from transfer.training.record import Epoch, Record

CLOSE = 1e-3
"""Confidences this near are the same: twice the steps of the float16 that they are kept in."""
EXPORTED = 64
"""Test images that an exported network is tried on."""


def main() -> None:
    given = parse()
    settings = params.load()
    run = choose(settings.grid, given.dataset, given.run)
    output = Path(given.output or f"models/{run.dataset}.safetensors")
    check_files(output, given.onnx)
    data = load(run, settings.pack)
    keep(run, settings, data, output)
    if given.onnx:
        card, model = saved.load(output)
        exported.export(model, card, test_images(data)[:EXPORTED], given.onnx)
        print(f"{given.onnx}: the same to {exported.TOLERANCE:g}, {size(given.onnx)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer keep", description=__doc__)
    parser.add_argument("dataset")
    help = "the run to take, as in metrics/runs (default: the one recommended)"
    parser.add_argument("--run", metavar="NAME", help=help)
    help = "the file to write (default: models/DATASET.safetensors)"
    parser.add_argument("--output", metavar="FILE", help=help)
    help = "write the whole network to this ONNX file too: normalised images to probabilities"
    parser.add_argument("--onnx", metavar="FILE", help=help)
    return parser.parse_args()


def choose(grid: params.Grid, dataset: str, name: str | None) -> Run:
    """The run of that name, or the best. Raises UserError for what the grid does not have."""
    if name or dataset not in grid.dataset:  # which known() refuses
        return known(grid, dataset, name or "")
    choices = files.read_json("metrics/evidence.json")["choices"]
    try:
        first = next(choice for choice in choices if choice["dataset"] == dataset)
        return known(grid, dataset, run_of(first, grid).name)
    except (cli.UserError, KeyError, StopIteration):
        raise cli.UserError(
            "metrics/evidence.json: of another grid than params.yaml's; run `dvc repro evidence`"
        ) from None


def check_files(output: Path, onnx: str | None) -> None:
    """Raise UserError for what could not be written, before anything is trained."""
    for path in filter(None, (output, onnx)):
        if Path(path).is_dir():
            raise cli.UserError(f"{path}: a folder; give the name of a file")
    if onnx:
        exported.check_installed()


def load(run: Run, pack: params.Pack) -> packed.Packed:
    """The run's images. Raises UserError if they are not those that it was trained on."""
    data = training.images(run)
    if Record.of(run).data != data.sha256 or data.size != pack.size:
        raise cli.UserError(
            f"{run.name}: trained on other images than data/packed/{run.dataset} and params.yaml "
            "have; `dvc repro` first"
        )
    return data


def keep(run: Run, settings: params.Params, data: packed.Packed, output: Path) -> None:
    """Train, compare with the run's own predictions, and write the model."""
    trained_by = settings.trained_by(run.recipe)
    device = training.check(trained_by, data)
    protocol = engine.Protocol(lr=run.lr, seed=run.seed, **trained_by.protocol)
    before = predictions.load(run.written(PREDICTIONS))
    if len(before["test"].predicted) != protocol.epochs:
        raise cli.UserError(
            f"{run.name}: trained with another train.epochs than params.yaml's; `dvc repro` first"
        )
    chosen = predictions.chosen_epoch(before)
    model, curve = trained(run, data, protocol, device, chosen + 1)
    record = training.record(run, curve, chosen, data, device)
    found = saved.probabilities(model, test_images(data))
    compare(run, before["test"], chosen, found, record)
    state, needed = stored(run, model)
    card = describe(run, settings, data, record, found, needed)
    saved.save(output, card, state)
    print(
        f"{output}: {run.name}, epoch {chosen}, accuracy {card.accuracy:.4f} "
        f"[{card.low:.4f}, {card.high:.4f}] on {card.n} test images, {size(output)}"
        + (f", with {card.start}" if needed else "")
    )


def trained(
    run: Run, data: packed.Packed, protocol: engine.Protocol, device: torch.device, epochs: int
) -> tuple[nn.Module, list[Epoch]]:
    """The network as it stood after so many epochs, in eval(), and its curve.

    A kept backbone pass (run.fit) would be faster and leave the batch-norm statistics out.
    """
    model = protocol.build(run.backbone, len(data.classes), training.weights(run))
    name, head = models.head_name(model), models.head(model)
    if run.freezing == "frozen":
        passes = features.compute(model, data, protocol, device)
        outcomes = engine.probe(head.to(device), passes, data, protocol)
    else:
        outcomes = engine.finetune(model, data, protocol, device, freezing=run.freezing)
    images = len(data.train) + len(data.validation) + len(data.test)
    # Both change the network only when asked for another epoch.
    seen = watched(run.name, epochs, images, islice(outcomes, epochs))
    if run.freezing == "frozen":
        model.set_submodule(name, head)
    return model.eval(), [outcome.epoch for outcome in seen]


def test_images(data: packed.Packed) -> torch.Tensor:
    """uint8 [m, size, size, 3], prepared."""
    return data.prepared_images()[len(data.validation) :]


def compare(
    run: Run, before: predictions.Predictions, chosen: int, found: np.ndarray, record: Record
) -> None:
    """Warn of test images that the run predicted otherwise (found: float32 [m, classes])."""
    classes = before.predicted[chosen] != found.argmax(1)
    apart = np.abs(before.confidence[chosen].astype(np.float32) - found.max(1)) > CLOSE
    if not (differ := int((classes | apart).sum())):
        return
    made = (Record.of(run), record)
    on = [f"{one.device} with torch {one.versions['torch']}" for one in made]
    print(
        f"warning: {differ} of {len(found)} test images are predicted otherwise than by the run, "
        f"{int(classes.sum())} of them as another class; that was trained on {on[0]}, this on "
        f"{on[1]} (rounding depends on the number of threads too); the accuracy is this model's",
        file=sys.stderr,
    )


def stored(run: Run, model: nn.Module) -> tuple[saved.State, bool]:
    """The tensors to keep, on the CPU, and whether they are less than the whole network."""
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if run.freezing in ("finetuned", "lpft"):
        return state, False
    kept = saved.differing(state, models.load_checkpoint(training.weights(run)))
    return kept, len(kept) < len(state)


def describe(
    run: Run,
    settings: params.Params,
    data: packed.Packed,
    record: Record,
    found: np.ndarray,
    needed: bool,
) -> saved.Card:
    trained_by, start = settings.trained_by(run.recipe), training.weights(run)
    accuracy = float((found.argmax(1) == data.test.label).mean())
    low, high = stats.wilson(accuracy, len(found))
    return saved.Card(
        backbone=run.backbone,
        labels=data.classes,
        resize=settings.pack.resize,
        size=settings.pack.size,
        activation=trained_by.activation,
        pooling=trained_by.pooling,
        run=run.name,
        seed=run.seed,
        epoch=record.chosen.epoch,
        accuracy=accuracy,
        low=low,
        high=high,
        n=len(found),
        start=start.as_posix(),
        start_sha256=files.sha256(start),
        start_source=public_source(run, settings),
        start_needed=needed,
        data_sha256=data.sha256,
        versions=record.versions,
        device=record.device,
        commit=commit(),
    )


def public_source(run: Run, settings: params.Params) -> str:
    """Where all find the starting checkpoint; a local path would say nothing elsewhere."""
    if run.start == "scratch" or not settings.weights:
        return ""
    weights = settings.weights[run.backbone]
    return f"torchvision's {weights.source}" if weights.published else ""


def commit() -> str:
    """That of the working folder, with -dirty if tracked files differ; '' without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def size(path: str | Path) -> str:
    return f"{Path(path).stat().st_size / 1e6:.2f} MB"
