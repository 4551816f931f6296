"""Images whose labels look wrong: every good run takes them for another class, with confidence."""

from collections.abc import Callable

import numpy as np

from transfer.evidence.found import Choice, Suspect
from transfer.runs import Run
from transfer.training.predictions import Predictions, chosen_epoch

Load = Callable[[Run], dict[str, Predictions]]


def find(choices: list[Choice], seeds: list[int], load: Load) -> list[Suspect]:
    """Of a data set's validation and test images, those that all of its good runs predict as one
    other class, each with at least the mean confidence that it has in that class. The most
    confident first; none where there is a single good run.

    Good runs are those of the recommended setting, and of settings that are not significantly worse
    (the first of `choices`, and what its difference says of the others). The threshold is that of
    confident learning (Northcutt 2021), which estimates it from the probabilities of all classes.
    """
    good = [choice.run(choice.start, s) for choice in choices for s in seeds if _good(choice)]
    if len(good) < 2:
        return []
    runs = [load(run) for run in good]
    return sorted(
        (found for part in runs[0] for found in _of_part(choices[0].dataset, part, runs)),
        key=lambda found: (-found.confidence, found.image),
    )


def _good(choice: Choice) -> bool:
    return choice.difference.sign >= 0


def _of_part(dataset: str, part: str, runs: list[dict[str, Predictions]]) -> list[Suspect]:
    first = runs[0][part]
    names = {
        int(label): str(name).split("/")[0]
        for name, label in zip(first.name, first.label, strict=True)
    }
    said, sure, confidences = [], [], []
    for run in runs:
        predicted, confidence = (
            getattr(run[part], field)[chosen_epoch(run)] for field in ("predicted", "confidence")
        )
        confidence = confidence.astype(float)
        means = {label: confidence[predicted == label].mean() for label in set(predicted.tolist())}
        said.append(predicted)
        sure.append(confidence >= [means[label] for label in predicted.tolist()])
        confidences.append(confidence)
    same = (np.array(said) == said[0]).all(axis=0) & (said[0] != first.label)
    mean = np.mean(confidences, axis=0)
    return [
        Suspect(
            dataset=dataset,
            image=f"{part}/{first.name[i]}",
            said=names[int(said[0][i])],
            runs=len(runs),
            confidence=round(float(mean[i]), 4),
        )
        for i in np.flatnonzero(same & np.all(sure, axis=0))
    ]
