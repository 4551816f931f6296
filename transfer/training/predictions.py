"""What a run predicted: every image of the validation and test parts, at every epoch.

All statistics come from these files; nothing is trained for them again.
"""

import io
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from transfer import files
from transfer.images.names import parted


@dataclass(frozen=True)
class Predictions:
    """One part's images. Classes are places in the data set's sorted class names.

    name: str [n], <class>/<file>. label: int16 [n]. predicted: int16 [epochs, n].
    probabilities: float16 [epochs, n, classes], which may tie where the network's own do not.
    """

    name: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """str [n], the names of the images' classes."""
        return np.array([parted(str(name))[0] for name in self.name])

    def predicted_labels(self, epoch: int) -> np.ndarray:
        """str [n], the names of the predicted classes; `another class` for one that no image here
        has."""
        names = dict(zip(self.label.tolist(), self.labels, strict=True))
        return np.array([names.get(int(c), "another class") for c in self.predicted[epoch]])

    @property
    def right(self) -> np.ndarray:
        """bool [epochs, n]."""
        return self.predicted == self.label

    @property
    def confidence(self) -> np.ndarray:
        """float16 [epochs, n], the probability of the predicted class."""
        return self._probability(self.predicted)

    @property
    def loss(self) -> np.ndarray:
        """float [epochs, n], the cross entropy in nats."""
        actual = self._probability(np.broadcast_to(self.label, self.predicted.shape))
        smallest = np.finfo(np.float16).smallest_subnormal
        return -np.log(np.maximum(actual, smallest).astype(float))

    def _probability(self, classes: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.probabilities, classes[..., None].astype(int), 2)[..., 0]


def from_probabilities(
    names: list[str], labels: np.ndarray, probabilities: np.ndarray
) -> Predictions:
    """From class probabilities, float [epochs, n, classes]; of tied classes the first is taken."""
    return Predictions(
        np.asarray(names),
        labels.astype(np.int16),
        probabilities.argmax(2).astype(np.int16),
        probabilities.astype(np.float16),
    )


def save(path: str | Path, parts: dict[str, Predictions]) -> None:
    """Write all parts to one npz file; equal predictions are equal files."""
    arrays = {
        f"{part}_{field}": values
        for part, predictions in parts.items()
        for field, values in vars(predictions).items()
    }
    with files.replacing(path) as fresh, ZipFile(fresh, "w") as archive:
        for name, values in arrays.items():
            # np.savez streams, and what zipfile writes then differs between patches of Python.
            whole = io.BytesIO()
            np.lib.format.write_array(whole, values, allow_pickle=False)
            archive.writestr(ZipInfo(f"{name}.npy"), whole.getvalue(), ZIP_DEFLATED)


def load(path: str | Path) -> dict[str, Predictions]:
    """Part ('validation', if the run had one, and 'test') → its predictions."""
    with np.load(path, allow_pickle=False) as arrays:
        parts = {name.split("_")[0] for name in arrays}
        return {
            part: Predictions(**{f.name: arrays[f"{part}_{f.name}"] for f in fields(Predictions)})
            for part in sorted(parts)
        }
