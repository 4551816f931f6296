"""A training run's progress: a bar on a terminal, nothing in a log but the closing line."""

from collections.abc import Iterable

from tqdm import tqdm

from transfer.engine import Epoch


def watched(name: str, epochs: int, curve: Iterable[Epoch]) -> list[Epoch]:
    """The curve's epochs as a list, shown as they come."""
    rows = []
    with tqdm(total=epochs, desc=name, unit="epoch", disable=None) as bar:
        for row in curve:
            rows.append(row)
            bar.set_postfix(loss=f"{row.train_loss:.3f}", test=f"{row.test_accuracy:.3f}")
            bar.update()
    return rows
