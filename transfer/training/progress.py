"""A training run's progress: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterable

from tqdm import tqdm

from transfer.cli import span
from transfer.training.engine import EpochResult

EVERY = 30.0  # seconds between lines
# Without the name, which DVC has just shown, so that it fits into 80 columns.
BAR = "epoch {n_fmt}/{total_fmt} |{bar}| {remaining} to go{postfix}"


def watched(
    name: str, epochs: int, images: int, results: Iterable[EpochResult], every: float = EVERY
) -> list[EpochResult]:
    """The results as a list, shown on stderr as they come. `images`: of one epoch, those it only
    predicts included. `every`: least seconds between lines where stderr is no terminal."""
    seen, began = [], time.monotonic()
    said = last = began
    with tqdm(total=epochs, bar_format=BAR, leave=False, disable=None) as bar:
        for result in results:
            seen.append(result)
            row, now = result.epoch, time.monotonic()
            rate, last = images / max(now - last, 1e-9), now
            state = f"loss {row.train_loss:.3f}, test {row.test_accuracy:.3f}, {rate:.0f} images/s"
            bar.set_postfix_str(state)
            bar.update()
            if bar.disable and now - said >= every and len(seen) < epochs:
                left = (now - began) / len(seen) * (epochs - len(seen))
                line = f"{name}: epoch {len(seen)}/{epochs}, {state}, {span(left)} to go"
                print(line, file=sys.stderr, flush=True)
                said = now
    return seen
