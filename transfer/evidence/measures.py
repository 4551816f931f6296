"""The measures of similarity, without the code that computes them, which loads PyTorch."""

from math import exp, sqrt
from typing import Self

from transfer.files import Stored

# key → (title, +1 if higher means more similar or transferable and -1 if lower)
MEASURES = {
    "batchnorm_frechet": ("Batch-norm Fréchet distance", -1),
    "knn_accuracy": ("k-NN accuracy", +1),
    "logme": ("LogME", +1),
    "leep": ("LEEP", +1),
}

NEEDS = {"batchnorm_frechet": "batch norm", "leep": "head that was trained with it"}
"""What a network must have for a measure."""


class Similarity(Stored):
    """How similar a data set's `n` training images are to the source, the images that a backbone
    was pretrained on. source_classes: the source's number of classes (0: trained without classes).
    measures: by the keys of MEASURES, and LEEP's null (leep_null_mean, leep_null_sd, leep_p),
    without those that the network does not allow."""

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
        """What three of the measures say, in sentences."""
        measures, sentences = self.measures, []
        if "batchnorm_frechet" in measures:
            distance = sqrt(measures["batchnorm_frechet"])
            sentences.append(
                "The network's activations on these images lie on average "
                f"{distance:.2f} standard deviations from those on its source images."
            )
        if "knn_accuracy" in measures:
            sentences.append(
                "Before any training on them, an image's nearest neighbours in its features give "
                f"the right class for {100 * measures['knn_accuracy']:.0f} % of the images."
            )
        if "leep" in measures:
            given, shuffled = exp(measures["leep"]), exp(measures["leep_null_mean"])
            sentences.append(
                f"Its predictions of the {self.source_classes} source classes alone give an "
                f"image's own class a probability of {given:.2f}, and of {shuffled:.2f} if the "
                "labels are shuffled."
            )
        return " ".join(sentences)

    @property
    def lacks(self) -> list[str]:
        """What the network would need for the measures that are missing."""
        return list(dict.fromkeys(NEEDS[key] for key in MEASURES if key not in self.measures))

    @classmethod
    def load(cls, dataset: str, backbone: str) -> Self:
        return cls.read(cls.path(dataset, backbone))
