"""Train a data set's recommended run again, up to its chosen epoch, and save the network."""

import argparse
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer import cli, files, params
from transfer.evidence import calibration, scores, stats
from transfer.evidence.calibration import Answers
from transfer.evidence.found import Evidence
from transfer.evidence.scores import Measure
from transfer.images import packed
from transfer.model import (
    about,
    exported,
    hub,
    out_of_distribution,
    outputs,
    predict,
    registry,
    saved,
)
from transfer.runs import PREDICTIONS, Run, known
from transfer.training import models, predictions
from transfer.training.engine import Job, autocast
from transfer.training.loader import CHUNK
from transfer.training.record import Record
from transfer.training.run import device_name, fit, prepare, versions, watched

CLOSE = {"default": 1e-3, "float32": 1e-3, "bfloat16": 1e-2}
"""Confidences that differ by less count as equal, by train.precision: two steps of the float16 that
they are stored in; or of bfloat16, in which a frozen run's head is computed here but not there."""
WHOLE = 200e6
"""Bytes below which a file holds the whole network, even if the backbone stayed frozen."""
EXPORTED = 64
"""Number of images on which an exported network is compared with PyTorch's."""


def main() -> None:
    given = parse()
    study = params.load()
    run = choose(study.grid, given.dataset, given.run)
    output = given.output or Path(f"models/{run.dataset}.safetensors")
    if given.onnx:
        exported.check_installed()
    outputs.check(output, given.onnx, given.hub)
    if given.register:
        registry.check(output)
    job = load(run, study)
    if given.hub:
        hub.check(given.hub, run.backbone, job.settings.activation, job.settings.pooling)
    page = keep(job, study, output, given.small, given.risk)
    if given.onnx or given.hub:
        card, model = saved.load(output)
    if given.onnx:
        exported.export(model, card, originals(job.data), given.onnx)
        print(
            f"{given.onnx}: from training images as they are and in other shapes, the pixels are "
            f"Pillow's to one grey level and the answers PyTorch's to {exported.TOLERANCE:g}, "
            f"{size(given.onnx)}"
        )
    if given.hub:
        images = test_images(job.data)[:EXPORTED]
        hub.export(model, card, images, page.read_text(encoding="utf-8"), given.hub)
        print(f"{given.hub}: timm.create_model('local-dir:{given.hub}', pretrained=True)")
    if given.register:
        print(registry.register(output, study.datasets[run.dataset].title))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer keep", description=__doc__)
    parser.add_argument("dataset", help="a value of grid.dataset in params.yaml")
    help = "the run to take, as in metrics/runs (default: the one recommended)"
    parser.add_argument("--run", metavar="NAME", help=help)
    help = "the .safetensors file to write (default: models/DATASET.safetensors)"
    parser.add_argument("--output", metavar="FILE", type=Path, help=help)
    help = "store only what training changed; `predict` then needs the starting checkpoint too"
    parser.add_argument("--small", action="store_true", help=help)
    help = "share of wrong answers above which `predict` says that it is unsure (default 0.02)"
    parser.add_argument("--risk", type=share, default=0.02, help=help)
    help = "also write the whole network to this .onnx file, from images of any size"
    parser.add_argument("--onnx", metavar="FILE", type=Path, help=help)
    help = "also write a folder that timm loads, in the layout of Hugging Face's hub"
    parser.add_argument("--hub", metavar="FOLDER", type=Path, help=help)
    help = "declare the file as an artifact, for `dvc artifacts get` and gto"
    parser.add_argument("--register", action="store_true", help=help)
    return parser.parse_args()


def share(text: str) -> float:
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError("give a share from 0 to below 1, such as 0.02")
    return float(text)


def choose(grid: params.Grid, dataset: str, name: str | None) -> Run:
    """The run of that name, or the recommended one. Raises UserError if it is not in the grid."""
    if name or dataset not in grid.dataset:  # which known() refuses
        return known(grid, dataset, name or "")
    evidence = Evidence.read("metrics/evidence.json")
    try:
        first = next(choice for choice in evidence.choices if choice.dataset == dataset)
        return known(grid, dataset, first.run(first.init, grid.seed[0]).name)
    except (cli.UserError, StopIteration):
        raise cli.UserError(
            "metrics/evidence.json: of another grid than params.yaml's; run `dvc repro evidence`"
        ) from None


def load(run: Run, study: params.Params) -> Job:
    """Raises UserError if the run's images are not those that it was trained on."""
    job = prepare(run, study)
    if Record.load(run).data != job.data.sha256 or job.data.size != study.pack.size:
        raise cli.UserError(
            f"{run.name}: trained on other images than data/packed/{run.dataset} and params.yaml "
            "have; `dvc repro` first"
        )
    return job


def keep(job: Job, study: params.Params, output: Path, small: bool, risk: float) -> Path:
    """Train, compare with the run's own predictions, and write the model and a page about it, whose
    path it returns."""
    run = job.run
    before = predictions.load(run.written(PREDICTIONS))
    if len(before["test"].predicted) != job.settings.epochs:
        raise cli.UserError(
            f"{run.name}: trained with another train.epochs than params.yaml's; `dvc repro` first"
        )
    measure = scores.measure(study.evidence.select_by, Record.load(run).counts["train"])
    chosen = scores.chosen_epoch(before, measure)
    model = trained(job, chosen + 1)
    models.check_finite(model.state_dict(), run.name)
    images = test_images(job.data)
    with autocast(job.device, job.settings.precision):
        compare(job, before["test"], chosen, saved.probabilities(model, images))
    # Without, as `predict` and other programs compute.
    found = saved.probabilities(model, images)
    state, needed = stored(run, model, small)
    seen, trust = trusted(job, study, model, measure, risk)
    if not small:
        tensors = map(torch.from_numpy, (seen.mean, seen.precision))
        state |= dict(zip(saved.KNOWN, tensors, strict=True))
    card = describe(job, study, chosen, found, needed).model_copy(update=trust)
    saved.save(output, card, state)
    print(
        f"{output}: {run.name}, epoch {chosen + 1}, accuracy {card.accuracy:.4f} "
        f"[{card.low:.4f}, {card.high:.4f}] on {card.n} test images, {size(output)}"
        + (f", with {card.start}" if needed else "")
    )
    if card.temperature == 1:
        print("its confidence is as trained: too few validation images, or wrong answers on them")
    predicted = Answers(before["test"].name, job.data.test.label, found.astype(float))
    answers = predict.answers(card, model, seen, images)
    dataset, predicted = study.datasets[run.dataset], predicted.at(card.temperature)
    _, picture = about.beside(output)
    looks = about.looks(picture, card, model, images, predicted)
    page = about.write(output, card, dataset, Record.load(run), predicted, answers, looks)
    print(f"{page}: what it can do and where it comes from, with some lines for you to fill in")
    return page


def trained(job: Job, epochs: int) -> nn.Module:
    """The network after that many epochs, in eval().

    It does not use stored features, which would leave the batch-norm statistics out.
    """
    model = job.build(job.run.weights)
    name, head = models.head_name(model), models.head(model)
    # Both kinds of training change the network only when asked for another epoch.
    watched(job, epochs, islice(fit(job, model), epochs))
    model.set_submodule(name, head)  # a frozen run removes it
    models.merge_low_rank(model)
    return model.eval()


def test_images(data: packed.Packed) -> torch.Tensor:
    """uint8 [m, size, size, 3], prepared."""
    return data.prepared_images(len(data.validation))


def originals(data: packed.Packed) -> list[np.ndarray]:
    """Some training images in their own sizes, uint8 [height, width, 3]."""
    places = out_of_distribution.some(len(data.train))[:EXPORTED]
    return [data.image(data.train, int(i)).numpy() for i in places]


def compare(job: Job, before: predictions.Predictions, chosen: int, found: np.ndarray) -> None:
    """Warn if the run's own predictions differ from `found`, float32 [m, classes]."""
    classes, close = before.predicted[chosen] != found.argmax(1), CLOSE[job.settings.precision]
    apart = np.abs(before.confidence[chosen].astype(np.float32) - found.max(1)) > close
    if not (differ := int((classes | apart).sum())):
        return
    then = Record.load(job.run)
    print(
        f"warning: {differ} of {len(found)} test images are predicted otherwise than by the run, "
        f"{int(classes.sum())} of them as another class; that was trained on {then.device} with "
        f"torch {then.versions['torch']}, this on {device_name(job.device)} with torch "
        f"{torch.__version__} (rounding depends on the number of threads too); the accuracy is "
        "this model's",
        file=sys.stderr,
    )


def stored(run: Run, model: nn.Module, small: bool) -> tuple[models.State, bool]:
    """The tensors to keep, on the CPU, and whether they are only a part of the network."""
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if not small and sum(value.nbytes for value in state.values()) < WHOLE:
        return state, False
    kept = saved.differing(state, models.load_checkpoint(run.weights))
    return kept, len(kept) < len(state)


def describe(
    job: Job, study: params.Params, chosen: int, found: np.ndarray, needed: bool
) -> saved.Card:
    """`chosen`: the epoch. `found`: the test images' probabilities. `needed`: whether the starting
    checkpoint is."""
    run, data, start = job.run, job.data, job.run.weights
    accuracy = float((found.argmax(1) == data.test.label).mean())
    low, high = stats.wilson(accuracy, len(found))
    return saved.Card(
        backbone=run.backbone,
        labels=data.classes,
        decoding=data.decoding,
        resize=study.pack.resize,
        size=study.pack.size,
        activation=job.settings.activation,
        pooling=job.settings.pooling,
        run=run.name,
        seed=run.seed,
        epoch=chosen,
        accuracy=accuracy,
        low=low,
        high=high,
        n=len(found),
        start=start.as_posix(),
        start_sha256=files.sha256(start),
        start_source=public_source(run, study),
        start_needed=needed,
        data_sha256=data.sha256,
        versions=versions(run.backbone),
        device=device_name(job.device),
        commit=commit(),
    )


def trusted(
    job: Job, study: params.Params, model: nn.Module, measure: Measure, risk: float
) -> tuple[out_of_distribution.Known, dict[str, Any]]:
    """What training images look like to the network, and the fields of the card that say when to
    take an answer: by the validation images of the run's setting with all seeds that were trained,
    and, where it goes by this network's features, by those of its own seed."""
    run, data = job.run, job.data
    seeds = [run.model_copy(update={"seed": seed}) for seed in study.grid.seed]
    runs = [predictions.load(one.folder / PREDICTIONS) for one in seeds if one.folder.is_dir()]
    held = Answers.from_runs(runs, "validation", measure)
    temperature = calibration.fit(held)
    own = (
        data.prepared_image(data.train, int(i)) for i in out_of_distribution.some(len(data.train))
    )
    batches = iter(lambda: list(islice(own, CHUNK)), [])
    features = [saved.seen(model, torch.from_numpy(np.stack(few)))[1] for few in batches]
    known, ood_distance = out_of_distribution.Known.fit(np.concatenate(features)), None
    if count := len(data.validation):
        ood_distance = out_of_distribution.ood_distance(
            known.distances(saved.seen(model, data.prepared_images(0, count))[1])
        )
    confidence_threshold = calibration.confidence_threshold(held.at(temperature), risk)
    return known, {
        "temperature": temperature,
        "risk": risk,
        "confidence_threshold": confidence_threshold,
        "ood_distance": ood_distance,
    }


def public_source(run: Run, study: params.Params) -> str:
    """Where anyone can find the starting checkpoint; '' for a local file."""
    found = study.weights.get(run.backbone) if run.init == "pretrained" else None
    library = "timm" if models.is_timms(run.backbone) else "torchvision"
    return f"{library}'s {found.source}" if found and found.published else ""


def commit() -> str:
    """The working folder's commit, with -dirty if tracked files differ; '' without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
