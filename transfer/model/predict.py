"""Classify images with a saved network: print path, class and confidence of each."""

import argparse
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import nn
from tqdm import tqdm

from transfer import cli
from transfer.images import fit, reader
from transfer.images.archive import is_hidden
from transfer.model import explain, saved
from transfer.model.out_of_distribution import FeatureDistribution
from transfer.training import engine
from transfer.training.loader import CHUNK


def main() -> None:
    args = parse()
    if sys.stdout is None:
        raise cli.UserError("standard output is closed, but predictions are printed there")
    card, model, distribution = load(args.model, args.weights)
    files = [file for path in args.image for file in list_images(Path(path))]
    if args.explain:
        make_folder(args.explain)
    model.to(engine.pick_device("auto"))
    try:
        results = classify(card, model, distribution, files, args.explain)
        failed = print_results(results, len(files), card.labels, args.json)
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python would write the rest of its buffer at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # its reader, such as `head`, has ended
            raise
        sys.exit(1)
    sys.exit(1 if failed else 0)


@dataclass(frozen=True)
class Answer:
    """probabilities: float32 [classes]. unsure: confidence below the threshold. none_of_these: out
    of distribution. Both are None if the file has no threshold."""

    probabilities: np.ndarray
    unsure: bool | None
    none_of_these: bool | None


NO_NUMBER = "the network's answer is not a number"
File = tuple[Path, str]
"""A path, and why it cannot be read, or ''."""
Results = Iterator[tuple[Path, Answer | str]]
"""Each image's path, with its answer or the reason why there is none."""


def print_results(results: Results, images: int, labels: list[str], as_json: bool) -> int:
    """Print a line for each image, to stderr if it cannot be read. Returns how many cannot."""
    failed = 0
    # On a terminal the lines themselves show the progress.
    quiet = True if images <= CHUNK or sys.stdout.isatty() else None
    with tqdm(total=images, unit="image", disable=quiet) as bar:
        for path, answer in results:
            if isinstance(answer, str):
                failed += 1
                bar.write(f"error: {cli.UserError(f'{path}: {answer}')}", file=sys.stderr)
            else:
                print(line(path, labels, answer, as_json))
            bar.update()
    return failed


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer predict", description=__doc__)
    parser.add_argument("model", help="a file written by `python -m transfer keep`")
    help = "an image, or a folder: all files in it that have an image's extension"
    parser.add_argument("image", nargs="+", help=help)
    help = "the starting checkpoint, for a model saved without it"
    parser.add_argument("--weights", metavar="FILE", help=help)
    help = "print one line of JSON for each image, with the probability of every class"
    parser.add_argument("--json", action="store_true", help=help)
    help = "also write a picture for each image that shows which parts the answer depends on"
    parser.add_argument("--explain", metavar="FOLDER", type=Path, help=help)
    return parser.parse_args()


def load(
    path: str, weights: str | None
) -> tuple[saved.Card, nn.Module, FeatureDistribution | None]:
    """The card, the network, on the CPU, and the distribution of its training images' features.
    Raises UserError as saved.load does, and for a network that fails on a grey image."""
    card, model = saved.load(path, weights)
    grey = torch.full((1, card.size, card.size, 3), 128, dtype=torch.uint8)
    try:
        distribution = saved.load_distribution(path)
        (answer,) = answers(card, distribution, *saved.outputs(model, grey))
    except Exception as error:  # the type depends on the network
        raise cli.UserError(f"{path}: not a complete model: {cli.one_line(error)}") from None
    if not np.isfinite(answer.probabilities).all():
        raise cli.UserError(f"{path}: not a complete model: {NO_NUMBER}")
    return card, model, distribution


def make_folder(path: Path) -> None:
    """Raises UserError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cli.UserError(
            f"--explain: {path}: {error.strerror}; give a folder for the pictures"
        ) from None


def list_images(path: Path) -> Iterator[File]:
    """A file itself; for a folder, all files below it that have an image's extension, sorted. Links
    are followed."""
    if not os.path.isdir(path):
        yield path, ""
        return
    files = sorted(_inside(path))
    yield from files or [(path, "no file in this folder has an image's extension")]


def _inside(top: Path) -> Iterator[File]:
    folders: list[tuple[Path, tuple[str, ...]]] = [(top, ())]
    while folders:
        folder, above = folders.pop()
        if (real := os.path.realpath(folder)) in above:
            yield folder, "a link to a folder that contains it"
            continue
        try:
            names = [name for name in os.listdir(folder) if not is_hidden(name)]
        except OSError as error:
            yield folder, str(error.strerror)
            continue
        for path in (folder / name for name in names):
            if os.path.isdir(path):
                folders.append((path, (*above, real)))
            elif reader.kind(path.name):
                yield path, ""


def classify(
    card: saved.Card,
    model: nn.Module,
    distribution: FeatureDistribution | None,
    files: list[File],
    folder: Path | None = None,
) -> Results:
    """folder: where to write a picture of what each answer depends on."""
    for start in range(0, len(files), CHUNK):
        chunk = files[start : start + CHUNK]
        images = [error or prepared(path, card) for path, error in chunk]
        readable = [image for image in images if not isinstance(image, str)]
        if readable:
            batch = torch.from_numpy(np.stack(readable))
            in_turn = iter(answers(card, distribution, *saved.outputs(model, batch)))
        for number, ((path, _), image) in enumerate(zip(chunk, images, strict=True), start + 1):
            if isinstance(image, str):
                yield path, image
                continue
            answer = next(in_turn)
            if not np.isfinite(answer.probabilities).all():
                yield path, NO_NUMBER
                continue
            if folder:
                best = int(answer.probabilities.argmax())
                name = picture_name(number, path, card.labels[best])
                explain.write(folder / name, [[explain.picture(model, image, best)]])
            yield path, answer


def picture_name(number: int, path: Path, label: str) -> str:
    """Shortened: a file name has 255 bytes at most, and a character up to 4 of them."""
    words = (cli.printable(text).replace("/", "_")[:28] for text in (path.stem, label))
    return f"{number:04}_{'_'.join(words)}.png"


def answers(
    card: saved.Card,
    distribution: FeatureDistribution | None,
    logits: torch.Tensor,
    features: np.ndarray,
) -> list[Answer]:
    """For a network's outputs and features, as saved.outputs gives them."""
    probabilities = saved.softmax(logits, card.temperature)
    unsure: Any = [None] * len(probabilities)
    none_of_these: Any = [None] * len(probabilities)
    # Negated comparisons, so that NaN counts as unsure and as out of distribution.
    if card.confidence_threshold is not None:
        unsure = ~(probabilities.max(1) >= card.confidence_threshold)
    if distribution and card.ood_distance is not None:
        none_of_these = ~(distribution.distances(features) <= card.ood_distance)
    return [Answer(*fields) for fields in zip(probabilities, unsure, none_of_these, strict=True)]


def prepared(path: Path, card: saved.Card) -> np.ndarray | str:
    """The image as the pipeline's test images are, uint8 [size, size, 3], or why it cannot be."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading another may never end
            return "not a regular file"
        image = reader.read(path, card.decoding).rgb(card.decoding)
        return fit.prepare(image, card.resize, card.size, card.fit)
    except FileNotFoundError:
        return "no such file"
    except UnidentifiedImageError:
        return reader.unidentified(path.name)
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken input
        return getattr(error, "strerror", None) or cli.one_line(error)


def line(path: Path, labels: list[str], answer: Answer, as_json: bool) -> str:
    """JSON, or path, class and confidence, tab-separated, unprintable characters escaped, with a
    fourth column if the answer should not be trusted."""
    probabilities = answer.probabilities
    best = int(probabilities.argmax())
    if as_json:
        values = dict(zip(labels, map(float, probabilities), strict=True))
        fields = {"path": str(path), "class": labels[best], "confidence": values[labels[best]]}
        doubts = {"unsure": answer.unsure, "none_of_these": answer.none_of_these}
        fields |= {name: bool(doubt) for name, doubt in doubts.items() if doubt is not None}
        return json.dumps(fields | {"probabilities": values}, allow_nan=False)
    note = "\tnone of these" if answer.none_of_these else "\tunsure" if answer.unsure else ""
    name, label = cli.printable(str(path)), cli.printable(labels[best])
    return f"{name}\t{label}\t{probabilities[best]:.4f}{note}"
