"""Train a data set's recommended run again, up to its chosen epoch, and save the network."""

import argparse
from pathlib import Path

import numpy as np

from transfer import cli, params
from transfer.evidence.calibration import Answers
from transfer.evidence.records import Evidence
from transfer.images.packed import Packed
from transfer.model import (
    about,
    describe,
    exported,
    hub,
    out_of_distribution,
    outputs,
    predict,
    retrain,
    saved,
)
from transfer.model.retrain import Original
from transfer.runs import Run, known

EXPORTED = 64
"""Images on which an exported network is compared with PyTorch's."""


def main() -> None:
    args = parse()
    study = params.load()
    run = choose(study.grid, args.dataset, args.run)
    output = args.output or Path(f"models/{run.dataset}.safetensors")
    if args.onnx:
        exported.check_installed()
    outputs.check(output, args.onnx, args.hub)
    original = Original.load(run, study)
    if args.hub:
        settings = original.job.settings
        own = settings.activation, settings.pooling
        hub.check(args.hub, run.backbone, *own, original.job.data.fit)
    print(plan(original, study), flush=True)
    risk = describe.Risk(args.risk, args.guarantee)
    page = keep(original, study, output, args.small, risk)
    export(original, output, page, args.onnx, args.hub)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer keep", description=__doc__)
    parser.add_argument("dataset", help="a value of grid.dataset in params.yaml")
    help = "the run to save, by its name in metrics/runs (default: the recommended one)"
    parser.add_argument("--run", metavar="NAME", help=help)
    help = "the .safetensors file to write (default: models/DATASET.safetensors)"
    parser.add_argument("--output", metavar="FILE", type=Path, help=help)
    help = "save only what training changed; `predict` then needs the starting checkpoint, too"
    parser.add_argument("--small", action="store_true", help=help)
    help = "error rate above which `predict` says that it is unsure (default: 0.02)"
    parser.add_argument("--risk", type=share, default=0.02, help=help)
    help = "choose the threshold so that other images keep the error rate, with 95 %% probability"
    parser.add_argument("--guarantee", action="store_true", help=help)
    help = "also write the whole network to this .onnx file, which takes images of any size"
    parser.add_argument("--onnx", metavar="FILE", type=Path, help=help)
    help = "also write a folder that timm loads, in the layout of the Hugging Face Hub"
    parser.add_argument("--hub", metavar="FOLDER", type=Path, help=help)
    return parser.parse_args()


def share(text: str) -> float:
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError("give a share from 0 to below 1, such as 0.02")
    return float(text)


def choose(grid: params.Grid, dataset: str, name: str | None) -> Run:
    """The run of that name, or the recommended one. Raises UserError if it is not in the grid."""
    if name or dataset not in grid.dataset:  # known() refuses another data set
        return known(grid, dataset, name or "")
    evidence = Evidence.read("metrics/evidence.json")
    try:
        first = next(choice for choice in evidence.choices if choice.dataset == dataset)
        return known(grid, dataset, first.run(first.init, grid.seed[0]).name)
    except (cli.UserError, StopIteration):
        raise cli.UserError(
            "metrics/evidence.json: of another grid than params.yaml's; run `dvc repro evidence`"
        ) from None


def plan(original: Original, study: params.Params) -> str:
    """What is trained now, how long that should take, and what other seeds gave."""
    time = retrain.seconds(original, study)
    duration = f", about {cli.span(time)}" if time else ""
    text = f"{original.run.name}: training epochs 1 to {original.epoch + 1} again{duration}"
    if len(original.by_seed) > 1:
        accuracies = [f"{seed}: {value:.4f}" for seed, value in original.accuracies.items()]
        text += (
            f"\ntest accuracy by seed: {', '.join(accuracies)}; seed {original.run.seed} is saved, "
            "since choosing by test accuracy would inflate it (--run saves another)"
        )
    return text


def keep(
    original: Original, study: params.Params, output: Path, small: bool, risk: describe.Risk
) -> Path:
    """Train the network, and write its file and its page. Returns the page's path."""
    job, images = original.job, original.test_images
    model = retrain.train(job, original.epoch + 1)
    logits, features = saved.outputs(model, images)
    probabilities = saved.softmax(logits, 1)
    retrain.warn_if_different(original, model, probabilities)
    distribution = describe.feature_distribution(model, job.data)
    state, start_needed = saved.stored_tensors(model, job.run.weights, distribution, small)
    ood_distance = describe.ood_distance(model, job.data, distribution)
    card = describe.card(original, study, probabilities, risk, ood_distance, start_needed)
    saved.save(output, card, state)
    print(
        f"{output}: {job.run.name}, epoch {card.epoch + 1}, accuracy {card.accuracy:.4f} "
        f"[{card.low:.4f}, {card.high:.4f}] on {card.n} test images, {size(output)}"
        + (f", with {card.start}" if start_needed else "")
    )
    if card.temperature == 1:
        print("its confidence is not calibrated: too few mistakes on validation images, or no help")
    if risk.guarantee and card.confidence_threshold is None:
        print(f"no confidence guarantees an error rate of {risk.rate:g}: {risk.needs}")
    test = original.by_seed[job.run.seed]["test"].name, job.data.test.label
    predicted = Answers(*test, probabilities.astype(float)).at(card.temperature)
    answers = predict.answers(card, distribution, logits, features)
    examples = about.draw_examples(output.with_suffix(".png"), card, model, images, predicted)
    dataset = study.datasets[job.run.dataset]
    page = about.write(output, card, dataset, original.record, predicted, answers, examples)
    print(f"{page}: what the network can do and where it comes from; fill in the open lines")
    return page


def export(
    original: Original, output: Path, page: Path, onnx: Path | None, folder: Path | None
) -> None:
    """Write the saved network in other formats, if asked for: as an ONNX file and as a folder for
    timm, whose README.md is the page."""
    if not (onnx or folder):
        return
    card, model = saved.load(output)
    if onnx:
        exported.export(model, card, originals(original.job.data), onnx)
        print(
            f"{onnx}: on training images of various shapes, pixels are within one grey level of "
            f"Pillow's and probabilities within {exported.TOLERANCE:g} of PyTorch's, {size(onnx)}"
        )
    if folder:
        images, text = original.test_images[:EXPORTED], page.read_text(encoding="utf-8")
        hub.export(model, card, images, text, folder)
        print(f"{folder}: timm.create_model('local-dir:{folder}', pretrained=True)")


def originals(data: Packed) -> list[np.ndarray]:
    """Some training images in their own sizes, uint8 [height, width, 3]."""
    indices = out_of_distribution.sample(len(data.train))[:EXPORTED]
    return [data.image(data.train, int(i)).numpy() for i in indices]


def size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
