"""The page beside a saved network. The words are in about.md.j2."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from transfer import files
from transfer.evidence import calibration, stats
from transfer.evidence.calibration import Answers
from transfer.evidence.records import Recall
from transfer.images.audit import Audit
from transfer.model import explain
from transfer.model.predict import Answer
from transfer.model.saved import Card
from transfer.params import Dataset
from transfer.templates import render, shell
from transfer.training.record import Record

SHOWN = 3
"""Images of each row of the picture."""
TO_FILL = "*to be filled in*"


@dataclass(frozen=True)
class OcclusionMaps:
    """What some answers rest on. right, wrong: for each image in the picture's two rows the class,
    and what it was taken for; either may be empty."""

    right: list[tuple[str, str]]
    wrong: list[tuple[str, str]]


def beside(output: Path) -> tuple[Path, Path]:
    """Where the page and its picture lie."""
    return output.with_suffix(".md"), output.with_suffix(".png")


def is_of(page: Path, output: Path) -> bool:
    """Whether that file is the page of the network in a file of that name."""
    lines = page.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"python -m transfer predict {shell(output.name)} FOLDER" in lines  # as the template has


def looks(
    path: Path, card: Card, model: nn.Module, images: torch.Tensor, predicted: Answers
) -> OcclusionMaps:
    """Of some images that are recognised and some that are not, at random; the picture is written
    to the path. images: prepared, uint8 [n, size, size, 3], those of which `predicted` is."""
    answer = predicted.probabilities.argmax(1)
    rows, words = [], []
    for places in (answer == predicted.label, answer != predicted.label):
        some = np.random.default_rng(0).permutation(np.flatnonzero(places))[:SHOWN]
        matter = [explain.matters(model, images[i], int(answer[i])) for i in some]
        pairs = [
            explain.beside(images[i].numpy(), one) for i, one in zip(some, matter, strict=True)
        ]
        rows += [pairs] if pairs else []
        words.append([(card.labels[predicted.label[i]], card.labels[answer[i]]) for i in some])
    explain.write(path, rows)
    return OcclusionMaps(*words)


def write(
    output: Path,
    card: Card,
    dataset: Dataset,
    run: Record,
    predicted: Answers,
    answers: list[Answer],
    looks: OcclusionMaps,
) -> Path:
    """Write the page and return its path; what a user has filled in on an older one is kept. said,
    answers: of the test images, with the card's temperature."""
    path, picture = beside(output)
    right, audit = predicted.probabilities.argmax(1) == predicted.label, Audit.load(run.dataset)
    page = render(
        Path(__file__).with_name("about.md.j2"),
        file=output.name,
        title=dataset.title,
        source=dataset.source,
        card=card,
        counts=run.counts,
        recall=[_share(name, right[predicted.label == i]) for i, name in enumerate(card.labels)],
        confidence_threshold=_share("wrong", ~right[[not one.unsure for one in answers]]),
        strangers=_share("strangers", np.array([bool(one.none_of_these) for one in answers])),
        error=calibration.error(predicted),
        leaked=len(audit.leaked),
        looks=looks,
        picture=picture.name,
        near=len(audit.near),
    )
    older = path.read_text(encoding="utf-8") if path.is_file() else ""
    files.write_text(path, filled_in(page, older))
    return path


def filled_in(page: str, older: str) -> str:
    """The page, with the lines that a user has filled in on the older one."""
    lines = page.splitlines(keepends=True)
    for place, line in enumerate(lines):
        init, to_fill, _ = line.partition(TO_FILL)
        own = (one for one in older.splitlines(keepends=True) if one.startswith(init))
        lines[place] = next(own, line) if to_fill else line
    return "".join(lines)


def _share(label: str, right: np.ndarray) -> Recall:
    """Of bool [n]."""
    share = float(right.mean()) if len(right) else 0.0
    low, high = stats.wilson(share, len(right)) if len(right) else (0.0, 1.0)
    return Recall(label=label, n=len(right), mean=share, low=low, high=high)
