"""The page beside a saved network, and its picture. The words are in about.md.j2."""

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
"""Images in each row of the picture."""
TO_FILL = "*to be filled in*"


@dataclass(frozen=True)
class Examples:
    """The test images in the picture's two rows, correct and wrong answers: of each its class and
    the predicted class. Either row may be empty."""

    right: list[tuple[str, str]]
    wrong: list[tuple[str, str]]


def page_path(output: Path) -> Path:
    """The page of the network in the file `output`."""
    return output.with_suffix(".md")


def picture_path(output: Path) -> Path:
    """The picture in that page."""
    return output.with_suffix(".png")


def is_page(page: Path, output: Path) -> bool:
    """Whether the file is the page of a network in a file of that name."""
    lines = page.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"python -m transfer predict {shell(output.name)} FOLDER" in lines  # as the template has


def draw_examples(
    path: Path, card: Card, model: nn.Module, images: torch.Tensor, predicted: Answers
) -> Examples:
    """Write the picture: test images with their occlusion maps, drawn at random. images: prepared,
    uint8 [n, size, size, 3], in the order of `predicted`."""
    answer = predicted.probabilities.argmax(1)
    rows, classes = [], []
    for mask in (answer == predicted.label, answer != predicted.label):
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(mask))[:SHOWN]
        rows.append([explain.picture(model, images[i].numpy(), int(answer[i])) for i in drawn])
        classes.append([(card.labels[predicted.label[i]], card.labels[answer[i]]) for i in drawn])
    explain.write(path, [row for row in rows if row])
    return Examples(*classes)


def write(
    output: Path,
    card: Card,
    dataset: Dataset,
    run: Record,
    predicted: Answers,
    answers: list[Answer],
    examples: Examples,
) -> Path:
    """Write the page and return its path; what a user has filled in on an older one is kept.
    predicted, answers: of the test images, at the card's temperature."""
    right, audit = predicted.probabilities.argmax(1) == predicted.label, Audit.load(run.dataset)
    text = render(
        Path(__file__).with_name("about.md.j2"),
        file=output.name,
        title=dataset.title,
        source=dataset.source,
        card=card,
        counts=run.counts,
        recall=[_share(right[predicted.label == i], name) for i, name in enumerate(card.labels)],
        wrong_if_sure=_share(~right[[not answer.unsure for answer in answers]]),
        none_of_these=_share(np.array([bool(answer.none_of_these) for answer in answers])),
        error=calibration.error(predicted),
        leaked=len(audit.leaked),
        examples=examples,
        picture=picture_path(output).name,
        near=len(audit.near),
    )
    path = page_path(output)
    older = path.read_text(encoding="utf-8") if path.is_file() else ""
    files.write_text(path, fill_in(text, older))
    return path


def fill_in(page: str, older: str) -> str:
    """The page, with the lines that a user has filled in on the older one."""
    lines = page.splitlines(keepends=True)
    for i, line in enumerate(lines):
        label, to_fill, _ = line.partition(TO_FILL)
        if to_fill:
            same = (old for old in older.splitlines(keepends=True) if old.startswith(label))
            lines[i] = next(same, line)
    return "".join(lines)


def _share(mask: np.ndarray, label: str = "") -> Recall:
    """The share of a bool [n] that is true, with its interval."""
    share = float(mask.mean()) if len(mask) else 0.0
    low, high = stats.wilson(share, len(mask)) if len(mask) else (0.0, 1.0)
    return Recall(label=label, n=len(mask), mean=share, low=low, high=high)
