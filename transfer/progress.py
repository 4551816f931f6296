"""A training run's progress: a bar on a terminal, nothing in a log but the closing line."""

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from transfer.engine import Epoch, Report


@contextmanager
def progress(name: str, epochs: int) -> Iterator[Report]:
    """Yield the function to call after every epoch."""
    with tqdm(total=epochs, desc=name, unit="epoch", disable=None) as bar:

        def report(epoch: Epoch) -> None:
            bar.set_postfix(loss=f"{epoch.train_loss:.3f}", test=f"{epoch.test_accuracy:.3f}")
            bar.update()

        yield report
