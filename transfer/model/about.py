"""The page beside a saved network. The words are in about.md.j2."""

from pathlib import Path

import numpy as np

from transfer import files
from transfer.evidence import calibration, stats
from transfer.evidence.calibration import Said
from transfer.evidence.found import Recall
from transfer.images.audit import Audit
from transfer.model.predict import Answer
from transfer.model.saved import Card
from transfer.params import Dataset
from transfer.templates import render
from transfer.training.record import Record

TO_FILL = "*to be filled in*"


def write(
    output: Path, card: Card, dataset: Dataset, run: Record, said: Said, answers: list[Answer]
) -> Path:
    """Write the page and return its path; what a user has filled in on an older one is kept. said,
    answers: of the test images, with the card's temperature."""
    right, audit = said.probabilities.argmax(1) == said.label, Audit.of(run.dataset)
    page = render(
        Path(__file__).with_name("about.md.j2"),
        file=output.name,
        title=dataset.title,
        source=dataset.source,
        card=card,
        counts=run.counts,
        recall=[_share(name, right[said.label == i]) for i, name in enumerate(card.labels)],
        sure=_share("wrong", ~right[[not one.unsure for one in answers]]),
        strangers=_share("strangers", np.array([bool(one.stranger) for one in answers])),
        error=calibration.error(said),
        leaked=len(audit.leaked),
        near=len(audit.near),
    )
    path = output.with_suffix(".md")
    older = path.read_text(encoding="utf-8") if path.is_file() else ""
    files.write_text(path, filled_in(page, older))
    return path


def filled_in(page: str, older: str) -> str:
    """The page, with the lines that a user has filled in on the older one."""
    lines = page.splitlines(keepends=True)
    for place, line in enumerate(lines):
        start, to_fill, _ = line.partition(TO_FILL)
        own = (one for one in older.splitlines(keepends=True) if one.startswith(start))
        lines[place] = next(own, line) if to_fill else line
    return "".join(lines)


def _share(label: str, right: np.ndarray) -> Recall:
    """Of bool [n]."""
    share = float(right.mean()) if len(right) else 0.0
    low, high = stats.wilson(share, len(right)) if len(right) else (0.0, 1.0)
    return Recall(label=label, n=len(right), mean=share, low=low, high=high)
