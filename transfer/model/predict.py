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
from transfer.images import audit, packed, reader
from transfer.model import explain, out_of_distribution, saved
from transfer.training import engine
from transfer.training.loader import CHUNK


def main() -> None:
    given = parse()
    if sys.stdout is None:
        raise cli.UserError("standard output is closed, and predictions are printed there")
    card, model, known = opened(given.model, given.weights)
    files = [one for path in given.image for one in listed(Path(path))]
    if given.explain:
        make_folder(given.explain)
    model.to(engine.pick_device("auto"))
    try:
        found = classified(card, model, known, files, given.explain)
        failed = tell(found, len(files), card.labels, given.json)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would be tried once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader, `head` say, has had enough
            raise
        sys.exit(1)
    sys.exit(1 if failed else 0)


@dataclass(frozen=True)
class Answer:
    """probabilities: float32 [classes]. unsure, stranger: whether not to take the answer, None if
    the model cannot tell; see transfer.model.out_of_distribution."""

    probabilities: np.ndarray
    unsure: bool | None
    none_of_these: bool | None


NO_NUMBER = "the network's answer is not a number"
File = tuple[Path, str]
"""A file named as an image, and why it is not read, '' if it is."""
Found = Iterator[tuple[Path, Answer | str]]
"""Each image's answer, or why it cannot be read."""


def tell(found: Found, images: int, labels: list[str], as_json: bool) -> int:
    """Print a line for each image, to stderr if it cannot be read. Returns how many cannot."""
    failed = 0
    # On a terminal the lines themselves show how far it is.
    quiet = True if images <= CHUNK or sys.stdout.isatty() else None
    with tqdm(total=images, unit="image", disable=quiet) as bar:
        for path, answer in found:
            if isinstance(answer, str):
                failed += 1
                bar.write(f"error: {cli.UserError(f'{path}: {answer}')}", file=sys.stderr)
            else:
                print(line(path, labels, answer, as_json))
            bar.update()
    return failed


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer predict", description=__doc__)
    parser.add_argument("model", help="a file that `python -m transfer keep` wrote")
    help = "an image, or a folder, of which all files with an image's extension are taken"
    parser.add_argument("image", nargs="+", help=help)
    help = "the starting checkpoint, for a model that is stored without it"
    parser.add_argument("--weights", metavar="FILE", help=help)
    help = "print one line of JSON for each image, with the probability of every class"
    parser.add_argument("--json", action="store_true", help=help)
    help = "also write to this folder what of each image its answer rests on, as pictures"
    parser.add_argument("--explain", metavar="FOLDER", type=Path, help=help)
    return parser.parse_args()


def opened(
    path: str, weights: str | None
) -> tuple[saved.Card, nn.Module, out_of_distribution.Known | None]:
    """The card, the network, on the CPU, and what its training images look like to it. Raises
    UserError as saved.load does, and for a network that cannot answer for a grey image."""
    card, model = saved.load(path, weights)
    grey = torch.full((1, card.size, card.size, 3), 128, dtype=torch.uint8)
    try:
        known = saved.known(path)
        (answer,) = answers(card, model, known, grey)
    except Exception as error:  # what wrong parts raise depends on the network
        raise cli.UserError(f"{path}: not a whole model: {cli.one_line(error)}") from None
    if not np.isfinite(answer.probabilities).all():
        raise cli.UserError(f"{path}: not a whole model: {NO_NUMBER}")
    return card, model, known


def make_folder(path: Path) -> None:
    """Raises UserError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"{path}: {error.strerror}"
        raise cli.UserError(f"--explain: {why}; give a folder for the pictures") from None


def listed(path: Path) -> Iterator[File]:
    """A file as it is; of a folder, the files in it and in its folders that are named as images,
    sorted. Links are followed."""
    if not os.path.isdir(path):
        yield path, ""
        return
    found = sorted(_inside(path))
    yield from found or [(path, "no file in this folder is named as an image")]


def _inside(top: Path) -> Iterator[File]:
    folders: list[tuple[Path, tuple[str, ...]]] = [(top, ())]
    while folders:
        folder, above = folders.pop()
        if (real := os.path.realpath(folder)) in above:
            yield folder, "a link to a folder that it is in"
            continue
        try:
            names = [name for name in os.listdir(folder) if not audit.is_hidden(name)]
        except OSError as error:
            yield folder, str(error.strerror)
            continue
        for path in (folder / name for name in names):
            if os.path.isdir(path):
                folders.append((path, (*above, real)))
            elif reader.kind(path.name):
                yield path, ""


def classified(
    card: saved.Card,
    model: nn.Module,
    known: out_of_distribution.Known | None,
    files: list[File],
    explained: Path | None = None,
) -> Found:
    """known: as saved.known has it. explained: the folder for pictures of what answers rest on,
    each named by the image's place, its name and the answer."""
    for start in range(0, len(files), CHUNK):
        some = files[start : start + CHUNK]
        read = [why or prepared(path, card) for path, why in some]
        images = [image for image in read if not isinstance(image, str)]
        if images:
            found = iter(answers(card, model, known, torch.from_numpy(np.stack(images))))
        for place, ((path, _), image) in enumerate(zip(some, read, strict=True), start + 1):
            if isinstance(image, str):
                yield path, image
                continue
            answer = next(found)
            if not np.isfinite(answer.probabilities).all():
                yield path, NO_NUMBER
                continue
            if explained:
                best = int(answer.probabilities.argmax())
                matter = explain.matters(model, torch.tensor(image), best)
                name = picture_name(place, path, card.labels[best])
                explain.write(explained / name, [[explain.beside(image, matter)]])
            yield path, answer


def picture_name(place: int, path: Path, label: str) -> str:
    """A file's name may have 255 bytes, and a character up to 4 of them."""
    words = (cli.printable(text).replace("/", "_")[:28] for text in (path.stem, label))
    return f"{place:04}_{'_'.join(words)}.png"


def answers(
    card: saved.Card,
    model: nn.Module,
    known: out_of_distribution.Known | None,
    images: torch.Tensor,
) -> list[Answer]:
    """Of prepared images, uint8 [n, size, size, 3]."""
    given, features = saved.seen(model, images, card.temperature)
    # So written that an answer or a distance of NaN is not to be taken.
    unsure: Any = (
        [None] * len(given)
        if card.confidence_threshold is None
        else ~(given.max(1) >= card.confidence_threshold)
    )
    none_of_these: Any = [None] * len(given)
    if known and card.ood_distance is not None:
        none_of_these = ~(known.distances(features) <= card.ood_distance)
    return [Answer(*one) for one in zip(given, unsure, none_of_these, strict=True)]


def prepared(path: Path, card: saved.Card) -> np.ndarray | str:
    """The image as the pipeline's test images are, uint8 [size, size, 3], or why it cannot be."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading another may never end
            return "not a regular file"
        image = reader.read(path, card.decoding).rgb(card.decoding)
        return packed.prepare(image, card.resize, card.size)
    except FileNotFoundError:
        return "no such file"
    except UnidentifiedImageError:
        return reader.unread(path.name) or f"not an image of these kinds: {', '.join(reader.READ)}"
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken input
        return getattr(error, "strerror", None) or cli.one_line(error)


def line(path: Path, labels: list[str], answer: Answer, as_json: bool) -> str:
    """Tab-separated, with what is not printable escaped, and a fourth column where the answer is
    not to be taken; or JSON."""
    probabilities = answer.probabilities
    best = int(probabilities.argmax())
    if as_json:
        values = dict(zip(labels, map(float, probabilities), strict=True))
        found = {"path": str(path), "class": labels[best], "confidence": values[labels[best]]}
        doubts = {"unsure": answer.unsure, "none_of_these": answer.none_of_these}
        known = {name: bool(doubt) for name, doubt in doubts.items() if doubt is not None}
        return json.dumps(found | known | {"probabilities": values}, allow_nan=False)
    note = "\tnone of these" if answer.none_of_these else "\tunsure" if answer.unsure else ""
    name, label = cli.printable(str(path)), cli.printable(labels[best])
    return f"{name}\t{label}\t{probabilities[best]:.4f}{note}"
