"""What a run predicted: every image of the validation and test parts, at every epoch.

All statistics come from these files; nothing is trained for them again.
"""

import io
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from transfer import files


@dataclass(frozen=True)
class Predictions:
    """One part's images. Classes are places in the data set's sorted class names.

    name: str [n], <class>/<file>. label: int16 [n]. predicted: int16 [epochs, n].
    confidence: float16 [epochs, n], the probability given to the predicted class.
    """

    name: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool [epochs, n]."""
        return self.predicted == self.label


def of(names: list[str], labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
    """From class probabilities, float [epochs, n, classes]; of tied classes the first is taken."""
    return Predictions(
        np.asarray(names),
        labels.astype(np.int16),
        probabilities.argmax(2).astype(np.int16),
        probabilities.max(2).astype(np.float16),
    )


def chosen_epoch(parts: dict[str, Predictions]) -> int:
    """The epoch of the best validation accuracy (of tied ones the latest); the last epoch where
    there are no validation images."""
    if "validation" not in parts:
        return len(parts["test"].predicted) - 1
    accuracy = parts["validation"].right.mean(1)
    return int(np.flatnonzero(accuracy == accuracy.max())[-1])


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
