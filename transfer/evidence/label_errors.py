"""Images whose labels look wrong: every good run takes them for another class, with confidence."""

from collections.abc import Callable, Iterator

import numpy as np

from transfer.evidence.found import Choice, LabelError
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.images.names import parted
from transfer.runs import Run
from transfer.training.predictions import Predictions

Load = Callable[[Run], dict[str, Predictions]]
Opinion = tuple[str, bool, float]
"""The class that a run takes an image for, whether with at least its mean confidence in that class,
and that confidence."""


def find(choices: list[Choice], seeds: list[int], load: Load, measure: Measure) -> list[LabelError]:
    """Of a data set's validation and test images, those that all of its good runs predict as one
    other class, each with at least the mean confidence that it has in that class. The most
    confident first; none where there is a single good run, or where the recommended setting does
    not beat always giving one answer.

    Good runs are those of the recommended setting, and of settings that are not significantly worse
    (the first of `choices`, and what its difference says of the others). The threshold is that of
    confident learning (Northcutt 2021), which estimates it from the probabilities of all classes.
    """
    predicted: dict[str, list[Opinion]] = {}
    for choice in choices if choices[0].works else ():
        for seed in seeds if choice.difference.sign >= 0 else ():
            for name, opinion in _opinions(load(choice.run(choice.init, seed)), measure):
                predicted.setdefault(name, []).append(opinion)
    found = [
        LabelError(
            dataset=choices[0].dataset,
            image=name,
            predicted=opinions[0][0],
            runs=len(opinions),
            confidence=round(float(np.mean([confidence for *_, confidence in opinions])), 4),
        )
        for name, opinions in predicted.items()
        if len(opinions) > 1 and _agreed(parted(name)[0], opinions)
    ]
    return sorted(found, key=lambda one: (-one.confidence, one.image))


def _agreed(label: str, opinions: list[Opinion]) -> bool:
    (predicted, *others) = {class_ for class_, *_ in opinions}
    return not others and predicted != label and all(sure for _, sure, _ in opinions)


def _opinions(parts: dict[str, Predictions], measure: Measure) -> Iterator[tuple[str, Opinion]]:
    """Of a run at its chosen epoch: each image by name."""
    epoch = chosen_epoch(parts, measure)
    names = np.concatenate([part.name for part in parts.values()])
    predicted = np.concatenate([part.predicted_labels(epoch) for part in parts.values()])
    confidence = np.concatenate([part.confidence[epoch] for part in parts.values()]).astype(float)
    means = {one: confidence[predicted == one].mean() for one in np.unique(predicted)}
    for name, one, sure in zip(names, predicted, confidence, strict=True):
        yield str(name), (str(one), sure >= means[one], float(sure))
