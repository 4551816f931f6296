"""Which images of a data set are equal, pixel by pixel, or look alike, and what follows from it."""

from collections import defaultdict
from collections.abc import Hashable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from transfer.files import Fields
from transfer.images import near
from transfer.images.scan import Picture

TRAINED = ("train", "validation")
Pairs = list[tuple[Picture, Picture]]


class LookAlikes(Fields):
    """The largest set of images that look alike, directly or by way of others: it has more than
    half of all `images`, of several `classes`. The camera may be fixed. `grouped`: whether each of
    them has a group."""

    count: int
    images: int
    classes: int
    all_classes: int
    grouped: bool

    @property
    def words(self) -> str:
        classes = f"{self.classes} of {self.all_classes} classes"
        if self.classes == self.all_classes:
            classes = "both classes" if self.classes == 2 else f"all {self.classes} classes"
        return (
            f"{self.count} of {self.images} images look alike, across {classes} (a fixed camera?)"
        )


def leaks(pictures: list[Picture]) -> Pairs:
    """Every test image that is equal to one of training, with the first of those."""
    pairs = []
    for group in _equal(pictures):
        trained = [picture for picture in group if picture.part in TRAINED]
        pairs += [(p, trained[0]) for p in group if p.part == "test" and trained]
    return pairs


def conflicts(pictures: list[Picture]) -> int:
    """How many images are equal to one of another class."""
    groups = _equal(pictures)
    return sum(len(group) for group in groups if len({picture.label for picture in group}) > 1)


def look_alikes(pictures: list[Picture]) -> Pairs:
    """Every test image that looks like one of training, though it is equal to none, with that which
    looks most alike."""
    trained = [picture for picture in pictures if picture.part in TRAINED]
    equal = {picture.content.digest for picture in trained}
    test = [p for p in pictures if p.part == "test" and p.content.digest not in equal]
    correlation, place = near.nearest(_thumbnails(test), _thumbnails(trained))
    return [(test[i], trained[place[i]]) for i in np.flatnonzero(correlation >= near.ALIKE)]


def drop_equal(pictures: list[Picture]) -> list[Picture]:
    """Without copies: none of an image found in two classes, the first by path within a part,
    and none in train of an image in test."""
    dropped = set[str]()
    for group in _equal(pictures):
        if len({picture.label for picture in group}) > 1:
            dropped.update(picture.path for picture in group)
            continue
        tested = any(picture.part == "test" for picture in group)
        parts = {"train"} if tested else set()
        for picture in group:
            if picture.part in parts:
                dropped.add(picture.path)
            parts.add(picture.part)
    return [picture for picture in pictures if picture.path not in dropped]


def drop_near(pictures: list[Picture]) -> list[Picture]:
    """Without images of training that look like one of test; of a source that is not divided,
    without those that look like one before them."""
    test, train, pool = (
        [picture for picture in pictures if picture.part == part]
        for part in ("test", "train", "all")
    )
    correlation, _ = near.nearest(_thumbnails(train), _thumbnails(test))
    dropped = {train[i].path for i in np.flatnonzero(correlation >= near.ALIKE)}
    dropped |= {pool[i].path for i in np.flatnonzero(~near.distinct(_thumbnails(pool)))}
    return [picture for picture in pictures if picture.path not in dropped]


def components(pictures: list[Picture]) -> np.ndarray:
    """int64 [n]: equal numbers for images that look alike, directly or by way of others."""
    return near.components(_thumbnails(pictures))


def fixed_camera(pictures: list[Picture], alike: np.ndarray) -> LookAlikes | None:
    """What shows that likeness tells no copies here, if something does. alike: see components."""
    largest = np.flatnonzero(alike == np.bincount(alike).argmax()) if len(alike) else alike
    labels = {pictures[i].label for i in largest}
    if len(labels) < 2 or 2 * len(largest) <= len(pictures):
        return None
    return LookAlikes(
        count=len(largest),
        images=len(pictures),
        classes=len(labels),
        all_classes=len({picture.label for picture in pictures}),
        grouped=all(pictures[i].group for i in largest),
    )


def units(pictures: list[Picture]) -> list[int]:
    """Equal numbers for images that stay together: those of a group, equal ones, and those that
    look alike (see components). With a fixed camera, likeness joins only images of one class that
    have no group, and not where it would join more than half of a class."""
    alike = components(pictures)
    if fixed_camera(pictures, alike):
        _, classes = np.unique([picture.label for picture in pictures], return_inverse=True)
        alike = near.components(_thumbnails(pictures), classes)
        grouped = np.array([bool(picture.group) for picture in pictures])
        many = 2 * np.bincount(alike)[alike] > np.bincount(classes)[classes]
        alike = np.where(grouped | many, -1 - np.arange(len(alike)), alike)
    return _joined(*_keys(pictures), alike.tolist())


def names_of_units(pictures: list[Picture]) -> list[str]:
    """Equal names for images of a group and for equal images: that of the first of their groups, if
    they have any, or else what their pixels have in common."""
    names: dict[int, tuple[bool, str]] = {}
    numbers = _joined(*_keys(pictures))
    for number, picture in zip(numbers, pictures, strict=True):
        name = not picture.group, picture.group or picture.content.digest
        names[number] = min(names.get(number, name), name)
    return [names[number][1] for number in numbers]


def _keys(pictures: list[Picture]) -> list[list[Hashable]]:
    return [[p.group or None for p in pictures], [p.content.digest for p in pictures]]


def _joined(*keys: list[Hashable]) -> list[int]:
    """Of each place a number, equal for places that have the same key in one of the lists; None is
    no key. Numbered in order of their first places."""
    edges = []
    for column in keys:
        first: dict[Hashable, int] = {}
        edges += [(first.setdefault(k, at), at) for at, k in enumerate(column) if k is not None]
    one, other = np.array(edges).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(keys[0]),) * 2)
    return connected_components(graph, directed=False)[1].tolist()


def _equal(pictures: list[Picture]) -> list[list[Picture]]:
    """The images that are equal to others, by their pixels; each group in order."""
    groups = defaultdict(list)
    for picture in sorted(pictures, key=lambda picture: picture.place):
        groups[picture.content.digest].append(picture)
    return [group for group in groups.values() if len(group) > 1]


def _thumbnails(pictures: list[Picture]) -> np.ndarray:
    joined = b"".join(picture.content.thumbnail for picture in pictures)
    return np.frombuffer(joined, np.uint8).reshape(len(pictures), 3 * near.SIDE**2)
