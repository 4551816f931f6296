"""The measures of similarity, for the pages: the module that computes them loads slowly."""

from math import exp, sqrt
from typing import Self

from transfer.files import Stored

# key → (title, +1 if higher means more similar or transferable and -1 if lower, needs labels)
MEASURES = {
    "batchnorm_frechet": ("Batch-norm Fréchet distance", -1, False),
    "knn_accuracy": ("k-NN accuracy", +1, True),
    "logme": ("LogME", +1, True),
    "leep": ("LEEP", +1, True),
}

NEEDS = {"batchnorm_frechet": "batch norm", "leep": "head that was trained with it"}
"""What a network must have for a measure; the others need nothing."""


class Similarity(Stored):
    """How similar a data set's `n` training images are to what a backbone was pretrained on, which
    had `source_classes` (0: it was trained without any). `measures`: by the keys of MEASURES, and
    LEEP's null (leep_null_mean, leep_null_sd, leep_p); a network lacks those that it does not
    allow."""

    dataset: str
    backbone: str
    n: int
    source_classes: int
    measures: dict[str, float]

    @staticmethod
    def path(dataset: str, backbone: str) -> str:
        return f"metrics/similarity/{dataset}-{backbone}.json"

    @property
    def in_words(self) -> str:
        """What the plainest of the measures say, in sentences."""
        measures, sentences = self.measures, []
        if "batchnorm_frechet" in measures:
            apart = sqrt(measures["batchnorm_frechet"])
            sentences.append(
                "Inside the network, activations on these images lie "
                f"{apart:.2f} standard deviations from those on its own images."
            )
        if "knn_accuracy" in measures:
            sentences.append(
                f"Before any training, the images most alike in its features tell an image's "
                f"class in {100 * measures['knn_accuracy']:.0f} % of cases."
            )
        if "leep" in measures:
            given, shuffled = exp(measures["leep"]), exp(measures["leep_null_mean"])
            sentences.append(
                f"From its own {self.source_classes} classes alone, an image's class gets a "
                f"probability of {given:.2f}; with shuffled labels it would get {shuffled:.2f}."
            )
        return " ".join(sentences)

    @property
    def lacks(self) -> list[str]:
        """What the network has not, and measures are missing for."""
        return list(dict.fromkeys(NEEDS[key] for key in MEASURES if key not in self.measures))

    @classmethod
    def load(cls, dataset: str, backbone: str) -> Self:
        return cls.read(cls.path(dataset, backbone))
