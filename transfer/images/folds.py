"""Divisions of one pool of images into train, validation and test, a new one for each seed.

Seeds 0 to k - 1 are the k folds of cross-validation, in which each image is tested once; the next k
seeds are those of another order of the images, and so on.
"""

import numpy as np

from transfer.cli import UserError
from transfer.files import Stored
from transfer.images.names import parted

FILE = "division.json"
"""The file that holds it, beside the parts of a data set."""
MEND = "add images of it, or set split.resplit: false"


class Division(Stored):
    """How a data set's part `train` is divided anew. test: the share of its images to test on, 0 if
    the source has test images of its own. validation: the share of the others to choose on. units:
    <class>/<name> → a number that is equal for images that stay together: those of a group, and
    copies."""

    test: float
    validation: float
    units: dict[str, int]

    def parts(self, names: list[str], labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """train, validation and test → places in `names`, int64, ascending; stratified by label,
        int64 [n]. Raises UserError where a part would lack a class."""
        units = np.array([self.units[name] for name in names])
        train, test = np.arange(len(names)), np.array([], np.int64)
        if self.test:
            order, fold = divmod(seed, round(1 / self.test))
            train, test = _fold(train, labels, units, self.test, order, fold)
        held = np.array([], np.int64)
        if self.validation:
            train, held = _fold(train, labels, units, self.validation, seed, 0)
        parts = {"train": train, "validation": held, "test": test}
        for part, places in parts.items():
            for at in np.flatnonzero(~np.isin(labels, labels[places])) if len(places) else ():
                raise UserError(
                    f"split.resplit: seed {seed} leaves no image of class "
                    f"{parted(names[at])[0]!r} for {part}; {MEND}"
                )
        return parts


def _fold(
    pool: np.ndarray, labels: np.ndarray, units: np.ndarray, share: float, order: int, fold: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the places in the pool, all others and those of that fold."""
    from sklearn.model_selection import StratifiedGroupKFold  # a second, which few stages need

    splitter = StratifiedGroupKFold(round(1 / share), shuffle=True, random_state=order)
    try:
        folds = list(splitter.split(pool, labels[pool], units[pool]))
    except ValueError as error:
        raise UserError(f"split.resplit: {error}; {MEND}") from None
    kept, taken = folds[fold]
    return pool[kept], pool[taken]
