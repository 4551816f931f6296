"""Classify images with a saved network: print path, class and confidence of each."""

import argparse
import json
import os
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
from transfer.model import doubt, explain, saved
from transfer.training import engine
from transfer.training.feed import CHUNK


def main() -> None:
    given = parse()
    card, model = saved.load(given.model, given.weights)
    paths = listed(given.image)
    known = saved.known(given.model)
    model.to(engine.pick_device("auto"))
    try:
        found = classified(card, model, known, paths, given.explain)
        failed = tell(found, len(paths), card.labels, given.json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(1 if failed else 0)


@dataclass(frozen=True)
class Answer:
    """probabilities: float32 [classes]. unsure, stranger: whether not to take the answer, None if
    the model cannot tell; see transfer.model.doubt."""

    probabilities: np.ndarray
    unsure: bool | None
    stranger: bool | None


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


def listed(given: list[str]) -> list[Path]:
    """The paths; for a folder, those of its images, sorted. Raises UserError if it has none."""
    found = []
    for path in map(Path, given):
        inside = sorted(_inside(path)) if path.is_dir() else [path]
        if not inside:
            raise cli.UserError(f"{path}: no file in this folder is named as an image")
        found += inside
    return found


def _inside(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not audit.is_hidden(name)]
        for name in names:
            if reader.kind(name) and not audit.is_hidden(name):
                yield Path(root, name)


def classified(
    card: saved.Card,
    model: nn.Module,
    known: doubt.Known | None,
    paths: list[Path],
    explained: Path | None = None,
) -> Found:
    """known: as saved.known has it. explained: the folder for pictures of what answers rest on,
    each named by the image's place, its name and the answer."""
    for start in range(0, len(paths), CHUNK):
        some = paths[start : start + CHUNK]
        read = [prepared(path, card) for path in some]
        images = [image for image in read if not isinstance(image, str)]
        if images:
            found = iter(answers(card, model, known, torch.from_numpy(np.stack(images))))
        for place, (path, image) in enumerate(zip(some, read, strict=True), start + 1):
            answer = image if isinstance(image, str) else next(found)
            if explained and not isinstance(image, str) and isinstance(answer, Answer):
                best = int(answer.probabilities.argmax())
                matter = explain.matters(model, torch.tensor(image), best)
                # A file's name may have 255 bytes, and a character up to 4 of them.
                words = f"{path.stem[:30]}_{card.labels[best][:30]}".replace("/", "_")
                name = f"{place:04}_{words}.png"
                explain.write(explained / name, [[explain.beside(image, matter)]])
            yield path, answer


def answers(
    card: saved.Card, model: nn.Module, known: doubt.Known | None, images: torch.Tensor
) -> list[Answer]:
    """Of prepared images, uint8 [n, size, size, 3]."""
    given, features = saved.seen(model, images, card.temperature)
    unsure: Any = [None] * len(given) if card.sure is None else given.max(1) < card.sure
    stranger: Any = [None] * len(given)
    if known and card.far is not None:
        stranger = known.distances(features) > card.far
    return [Answer(*one) for one in zip(given, unsure, stranger, strict=True)]


def prepared(path: Path, card: saved.Card) -> np.ndarray | str:
    """The image as the pipeline's test images are, uint8 [size, size, 3], or why it cannot be."""
    try:
        image = reader.read(path, card.how).rgb(card.how)
        return packed.prepare(image, card.resize, card.size)
    except FileNotFoundError:
        return "no such file"
    except UnidentifiedImageError:
        return reader.unread(path.name) or f"not an image of these kinds: {', '.join(reader.READ)}"
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken input
        return getattr(error, "strerror", None) or cli.one_line(error)


def line(path: Path, labels: list[str], answer: Answer, as_json: bool) -> str:
    """Tab-separated, with unprintable characters of the path escaped, and a fourth column where the
    answer is not to be taken; or JSON."""
    probabilities = answer.probabilities
    best = int(probabilities.argmax())
    if as_json:
        values = dict(zip(labels, map(float, probabilities), strict=True))
        found = {"path": str(path), "class": labels[best], "confidence": values[labels[best]]}
        doubts = {"unsure": answer.unsure, "stranger": answer.stranger}
        known = {name: bool(doubt) for name, doubt in doubts.items() if doubt is not None}
        return json.dumps(found | known | {"probabilities": values})
    note = "\tnone of these" if answer.stranger else "\tunsure" if answer.unsure else ""
    return f"{cli.UserError(str(path))}\t{labels[best]}\t{probabilities[best]:.4f}{note}"
