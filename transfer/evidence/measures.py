"""The measures of similarity, for the pages: the module that computes them loads slowly."""

from typing import Self

from transfer.files import Stored

# key → (title, +1 if higher means more similar or transferable and -1 if lower, needs labels)
MEASURES = {
    "batchnorm_frechet": ("Batch-norm Fréchet distance", -1, False),
    "emd_distance": ("Prototype EMD", -1, True),
    "emd_similarity": ("Prototype EMD similarity", +1, True),
    "prediction_entropy": ("Prediction entropy", -1, False),
    "knn_accuracy": ("k-NN accuracy", +1, True),
    "logme": ("LogME", +1, True),
    "leep": ("LEEP", +1, True),
    "h_score": ("H-score", +1, True),
    "gbc": ("GBC", +1, True),
}


class Similarity(Stored):
    """How similar a data set's `n` training images are to what a backbone was pretrained on, which
    had `source_classes`. `measures`: by the keys of MEASURES, and LEEP's null (leep_null_mean,
    leep_null_sd, leep_p); a network lacks those that it does not allow."""

    dataset: str
    backbone: str
    n: int
    source_classes: int
    measures: dict[str, float]

    @staticmethod
    def path(dataset: str, backbone: str) -> str:
        return f"metrics/similarity/{dataset}-{backbone}.json"

    @classmethod
    def of(cls, dataset: str, backbone: str) -> Self:
        return cls.read(cls.path(dataset, backbone))
