"""Dividing images into train, validation and test.

Images that stay together, such as those of a patient and copies, form a unit, which is never
divided. `draw` divides once, when a data set is split: by the hashes of the units' names, so that
a larger number contains a smaller one. `Division` divides anew for each seed, in folds.
"""

import hashlib
import warnings

import numpy as np

from transfer.cli import UserError
from transfer.files import Stored
from transfer.images.names import parted

DIVISION = "division.json"
"""The file that holds a Division, beside the parts of a data set."""


def draw(sizes: dict[str, int], number: int, key: str, decided: dict[str, bool]) -> set[str]:
    """The units of a class to take so that they have `number` images, as nearly as whole units
    allow. Units that would exceed the number are skipped; if none fits, the smallest is taken.

    sizes: unit → its images of the class. key: each shuffles the units its own way. decided: unit →
    whether it was taken with another class, which holds for this one.
    """
    taken = {unit for unit in sizes if decided.get(unit)}
    room = number - sum(sizes[unit] for unit in taken)
    free = sorted(sizes.keys() - decided.keys(), key=lambda unit: _hash(f"{key}/{unit}"))
    fitting = set()
    for unit in free:
        if sizes[unit] <= room:
            fitting.add(unit)
            room -= sizes[unit]
    if free and not taken | fitting:
        return {min(free, key=lambda unit: sizes[unit])}
    return taken | fitting


def _hash(name: str) -> str:
    # A group's folder may not be UTF-8.
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()


class Division(Stored):
    """How each seed divides a data set's part `train`. Seeds 0 to k - 1 are the k folds of
    cross-validation, which test each image once; the next k seeds are the folds of another order of
    the images, and so on.

    test: the share of its images to test on, 0 if the source has test images of its own.
    validation: the share of the others to choose on. units: <class>/<name> → number of the unit.
    """

    test: float
    validation: float
    units: dict[str, int]

    def parts(self, names: list[str], labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """train, validation and test → places in `names`, int64, ascending; stratified by label,
        int64 [n]. Raises UserError where a part would lack a class."""
        units = np.array([self.units[name] for name in names])
        pool = train = np.arange(len(names))
        test = held = np.array([], np.int64)
        if self.test:
            order, fold = divmod(seed, round(1 / self.test))
            train, test = _fold(pool, labels, units, self.test, order, fold)
        if self.validation and len(train):
            train, held = _fold(train, labels, units, self.validation, seed, 0)
        parts = {"train": train, "validation": held, "test": test}
        asked = {"train": True, "validation": self.validation > 0, "test": self.test > 0}
        for part, places in parts.items():
            missing = np.flatnonzero(~np.isin(labels, labels[places]))
            if asked[part] and len(missing):
                label, same = parted(names[missing[0]])[0], labels == labels[missing[0]]
                raise UserError(self._too_few(part, label, units[same], seed))
        return parts

    def _too_few(self, part: str, label: str, units: np.ndarray, seed: int) -> str:
        """What is wrong if that part has none of the class's images, which are of these units."""
        images, groups = len(units), len(np.unique(units))
        shares = {"test": self.test, "validation": self.validation}
        asked = " and ".join(f"{share:g} for {part}" for part, share in shares.items() if share)
        if groups < images:
            has = f"its {images} images form only {groups} groups (copies and images that look "
            has, advice = has + "alike are one group)", "add images of it in further groups"
        else:
            has, advice = f"it has only {images} image{'s' * (images > 1)}", "add images of it"
        if groups > 2:
            advice += ", or set split.resplit: false"
        return (
            f"split.resplit: seed {seed} leaves no image of class {label!r} for {part}: {has}, too "
            f"few to hold out {asked}; {advice}"
        )


def _fold(
    pool: np.ndarray, labels: np.ndarray, units: np.ndarray, share: float, order: int, fold: int
) -> tuple[np.ndarray, np.ndarray]:
    """The places of the pool outside that fold and in it. A pool that cannot fill all folds is all
    outside."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second, few stages need it

    folds = round(1 / share)
    if min(len(np.unique(units[pool])), np.bincount(labels[pool]).max()) < folds:
        return pool, pool[:0]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=order)
    with warnings.catch_warnings():  # of a class that not every fold can have; parts checks that
        warnings.simplefilter("ignore", UserWarning)
        outside, inside = list(splitter.split(pool, labels[pool], units[pool]))[fold]
    return pool[outside], pool[inside]
