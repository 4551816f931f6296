"""A data set's settings ranked, how sure that choice is, and images whose labels look wrong."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np

from transfer.evidence import stats
from transfer.evidence.records import Choice, LabelError, Mistake, Recall, Row
from transfer.evidence.results import Results, Scored
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.evidence.stats import Seeds
from transfer.images.names import parted
from transfer.runs import Run
from transfer.training.predictions import Predictions

SHARED = {"validation", "n_validation", "chosen", "penalty"}
"""The fields of a Result that a Choice has too."""
DRAWS = 2000
"""Draws of what other images and seeds would say of the settings."""
ONE_SEED = 0.03
"""The standard deviation over seeds that is assumed where a study has one; simulated networks whose
accuracy varied by 0.5 to 3 points over seeds had Brier scores that varied by up to this much."""
NEAR = 2.0
"""Standard errors within which a setting is a contender."""
AGREE = 0.75
"""The share of runs that must be exceeded to doubt a label: of three runs all, of five four."""
Parts = dict[str, Predictions]
Load = Callable[[Run], Parts]
Opinion = tuple[str, float]
"""The other class that a run is confident of, '' for none, and the probability that it gives it."""


def rank(rows: list[Row], dataset: str, results: Results, margin: float) -> list[Choice]:
    """Every setting and init of the data set at the first size, the recommended first. margin: by
    how much a setting may be worse than that and still count as good."""
    size = results.grid.images[0]
    rows = [row for row in rows if (row.dataset, row.images) == (dataset, size)]
    pairs = [(init, row) for init, row in product(results.grid.init, rows) if init in row.results]
    pairs.sort(key=lambda pair: pair[1].results[pair[0]].rank)
    seeds = [results.seeds(row, init) for init, row in pairs]
    again = chosen_again([results.runs(row, init) for init, row in pairs])
    choices = []
    for (init, row), own_seeds, share in zip(pairs, seeds, again, strict=True):
        difference = stats.compare(own_seeds, seeds[0])
        choices.append(
            Choice(
                **dict(row.setting),
                **row.results[init].model_dump(include=SHARED),
                init=init,
                n_test=row.n_test,
                difference=difference,
                as_good=difference.low > -margin,
                again=share,
                above=stats.compare(own_seeds, results.always(row.setting, init)),
                **by_class(results.runs(row, init), results.data[dataset].resplit),
            )
        )
    return choices


def chosen_again(settings: list[list[Scored]]) -> list[float | None]:
    """Of each setting, the first being the one that was chosen, the probability that other seeds
    and validation images would choose it; 0 for those that noise does not explain, and None without
    validation images.

    The contenders' true penalties get a normal prior whose variance is what their spread exceeds
    noise by (empirical Bayes, Efron and Morris 1973), so that the winner's luck is not counted as
    merit; then penalties on new images are drawn.
    """
    if settings[0][0].penalty is None:
        return [None] * len(settings)
    means, noise = _noise(settings)
    apart = np.sqrt(np.maximum(noise[0, 0] + np.diag(noise) - 2 * noise[0], 0))
    near = np.flatnonzero(means - means[0] <= NEAR * apart)
    size = len(near)
    centre = np.eye(size) - 1 / size
    away = centre @ means[near]
    error = centre @ noise[np.ix_(near, near)] @ centre
    spread = max(0.0, (away @ away - np.trace(error)) / max(1, size - 1))
    shrink = spread * np.linalg.pinv(spread * np.eye(size) + error)
    values, axes = np.linalg.eigh(spread * (np.eye(size) - shrink) + error)
    normal = np.random.default_rng(0).standard_normal((DRAWS, size))
    drawn = shrink @ away + normal * np.sqrt(np.maximum(values, 0)) @ axes.T
    shares = np.zeros(len(settings))
    shares[near] = np.bincount(drawn.argmin(1), minlength=size) / DRAWS
    return [float(share) for share in shares]


def _noise(settings: list[list[Scored]]) -> tuple[np.ndarray, np.ndarray]:
    """The settings' mean penalties, [s], and the covariance, [s, s], that these have by the
    validation images, of which seeds may share some, and by the seeds."""
    first = settings[0]
    count = len(first)
    names = np.concatenate(
        [run.validation_name for run in first if run.validation_name is not None]
    )
    place = np.unique(names, return_inverse=True)[1]
    images = place.max() + 1
    by_seed = np.array([[run.penalty.mean() for run in runs] for runs in settings])  # type: ignore
    by_image = np.stack(
        [stats.influences([run.penalty for run in runs], place) for runs in settings]  # type: ignore
    )
    noise = by_image @ by_image.T * images / max(1, images - 1)
    seeds = ONE_SEED**2
    if count > 1 and len(settings) > 1:
        beyond = by_seed - by_seed.mean(0) - by_seed.mean(1, keepdims=True) + by_seed.mean()
        seeds = (beyond**2).sum() / (count - 1) / (len(settings) - 1)
        seeds -= _within(settings) if images > len(names) / count else 0.0
    return by_seed.mean(1), noise + np.eye(len(settings)) * max(0.0, seeds) / count


def _within(settings: list[list[Scored]]) -> float:
    """What the seeds' different validation images add to the variance between seeds."""
    by_setting = [[run.penalty for run in runs] for runs in settings]
    parts = []
    for seed in zip(*by_setting, strict=True):
        penalties = np.stack(seed)
        penalties = penalties - penalties.mean(0)
        parts.append(penalties.var(1, ddof=1).sum() / penalties.shape[1] / (len(settings) - 1))
    return float(np.mean(parts))


def by_class(runs: list[Scored], resplit: bool) -> dict[str, Any]:
    """What a Choice says of the classes. resplit: whether each seed has its own test images."""
    names, counts = np.unique(runs[0].labels, return_counts=True)
    recalls = []
    for name in names:
        members = [run.labels == name for run in runs]
        pairs = list(zip(runs, members, strict=True))
        images = [run.name[member] for run, member in pairs]
        scores = [run.right[run.chosen][member] for run, member in pairs]
        recall = Seeds(scores, images if resplit else None)
        n = len(np.unique(np.concatenate(images)))
        low, high = stats.interval(recall, len(images[0]))
        recalls.append(Recall(label=str(name), n=n, mean=recall.value, low=low, high=high))
    return {
        "mistakes": _mistakes(runs),
        "majority": str(names[counts.argmax()]),
        "share": float(counts.max() / counts.sum()),
        "recall": recalls,
    }


def _mistakes(runs: list[Scored]) -> list[Mistake]:
    """By how many images are taken so by most of the seeds that were tested on them."""
    answers: dict[tuple[str, str], Counter[str]] = {}
    for run in runs:
        for image, label, answer in zip(run.name, run.labels, run.predicted, strict=True):
            answers.setdefault((str(image), str(label)), Counter())[str(answer)] += 1
    usual = ((label, given.most_common(1)[0][0]) for (_, label), given in answers.items())
    counts = Counter(pair for pair in usual if pair[0] != pair[1])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Mistake(label=label, predicted=answer, n=n) for (label, answer), n in ordered]


def label_errors(
    choices: list[Choice], seeds: list[int], load: Load, measure: Measure
) -> list[LabelError]:
    """Of a data set's validation and test images, those whose labels the runs of the recommended
    setting, the first of `choices`, doubt; the other witnesses are the settings that are not
    significantly worse. None where it does not beat always giving one answer."""
    if not choices[0].works:
        return []
    first, *others = (choice.runs(seeds) for choice in choices if choice.difference.sign >= 0)
    more = (load(run) for runs in others for run in runs)
    return doubted(choices[0].dataset, [load(run) for run in first], measure, more)


def doubted(
    dataset: str, runs: Iterable[Parts], measure: Measure, others: Iterable[Parts] = ()
) -> list[LabelError]:
    """Images that nearly all runs which held them out are confident to be of one other class, the
    most confident first. Of an image that fewer than two of the runs held out, the others testify
    too, which are read in that case alone; one run alone is no witness."""
    first = _by_image(runs, measure)
    few = any(len(opinions) < 2 for opinions in first.values())
    more = _by_image(others if few else (), measure)
    errors = []
    for image, opinions in first.items():
        witnesses = opinions if len(opinions) > 1 else opinions + more.get(image, [])
        ((label, count),) = Counter(label for label, _ in witnesses).most_common(1)
        if label and len(witnesses) > 1 and count > AGREE * len(witnesses):
            given = [probability for other, probability in witnesses if other == label]
            confidence = round(float(np.mean(given)), 4)
            errors.append(
                LabelError(
                    dataset=dataset,
                    image=image,
                    predicted=label,
                    runs=count,
                    confidence=confidence,
                )
            )
    return sorted(errors, key=lambda error: (-error.confidence, error.image))


def _by_image(runs: Iterable[Parts], measure: Measure) -> dict[str, list[Opinion]]:
    opinions: dict[str, list[Opinion]] = {}
    for parts in runs:
        for image, opinion in _opinions(parts, measure):
            opinions.setdefault(image, []).append(opinion)
    return opinions


def _opinions(parts: Parts, measure: Measure) -> Iterator[tuple[str, Opinion]]:
    """Of a run at its chosen epoch, by image. It is confident of a class if it gives it at least
    the mean probability that images labelled so get."""
    epoch = chosen_epoch(parts, measure)
    names = np.concatenate([part.name for part in parts.values()])
    labels = np.concatenate([part.label for part in parts.values()])
    rows = np.concatenate([part.probabilities[epoch] for part in parts.values()]).astype(float)
    given = np.nan_to_num(rows)
    classes = {int(label): parted(str(name))[0] for label, name in zip(labels, names, strict=True)}
    usual = np.full(given.shape[1], np.inf)
    for label in classes:
        usual[label] = given[labels == label, label].mean()
    confident = np.where(given >= usual, given, 0.0)
    confident[np.arange(len(labels)), labels] = 0.0
    best = confident.argmax(1)
    for name, place, probability in zip(names, best, confident.max(1), strict=True):
        yield str(name), (classes[int(place)] if probability else "", float(probability))
