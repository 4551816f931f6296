"""A training run's progress: a bar on a terminal, nothing in a log but the closing line."""

from collections.abc import Iterable

from tqdm import tqdm

from transfer.training.engine import Outcome


def watched(name: str, epochs: int, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes as a list, shown as they come."""
    seen = []
    with tqdm(total=epochs, desc=name, unit="epoch", disable=None) as bar:
        for outcome in outcomes:
            seen.append(outcome)
            row = outcome.epoch
            bar.set_postfix(loss=f"{row.train_loss:.3f}", test=f"{row.test_accuracy:.3f}")
            bar.update()
    return seen
