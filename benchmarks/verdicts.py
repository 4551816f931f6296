"""How often what the pages say of their own certainty is true, in simulated studies.

A network's logit of the true class is the sum of what its setting, its seed, the image, the image
with that setting, and chance contribute. The variances are those of the runs in
docs/real-images/runs; the settings' own qualities are a `truth`: all are equal (null), nearly so
(near: a standard deviation of one point of accuracy), or some are far behind (mixed). Each row of
the output is a promise, how often it held, ± one standard error of the simulation, and the goal.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from tabulate import tabulate

from transfer.evidence import calibration, choices, scores, stats
from transfer.evidence.calibration import Answers
from transfer.evidence.results import Scored
from transfer.evidence.stats import Difference, Seeds
from transfer.training import predictions
from transfer.training.predictions import Predictions

IMAGE, IMAGE_AND_SETTING, CHANCE = 1.0, 1.0, 0.9
"""Standard deviations of the logit, by the committed runs on ants and bees."""
GOOD = 2.2
"""A good setting's mean logit: right on nine images of ten."""
POINT = 0.1
"""What moves a good setting's accuracy by a point."""
SHARE = 0.2
"""Of a pool that each seed tests on, and of the rest that it validates on."""
SETTINGS = 16


@dataclass(frozen=True)
class World:
    """quality: [settings], mean logits. images: validation images of a seed. seeds: how many.
    seed_sd: of the seeds' logits. resplit: whether each seed draws its images from a pool."""

    quality: np.ndarray
    images: int
    seeds: int
    seed_sd: float = 1.5 * POINT
    resplit: bool = False

    def study(self, rng: np.random.Generator) -> list[list[Scored]]:
        """Each setting's runs; their validation images only."""
        pool = round(self.images / SHARE / (1 - SHARE)) if self.resplit else self.images
        seen = [rng.permutation(pool)[: self.images] for _ in range(self.seeds)]
        hard = IMAGE * rng.standard_normal(pool)
        label = np.arange(pool) % 2
        names = np.array([f"{'ab'[c]}/{i}" for i, c in enumerate(label)])
        runs = []
        for mean in self.quality:
            own = mean + hard + IMAGE_AND_SETTING * rng.standard_normal(pool)
            runs.append([])
            for images in seen:
                noise = self.seed_sd * rng.standard_normal()
                logit = own[images] + noise + CHANCE * rng.standard_normal(self.images)
                part = answered(names[images], label[images], logit)
                parts = {"validation": part, "test": part}
                runs[-1].append(Scored.from_predictions(parts, "accuracy"))
        return runs


def answered(names: np.ndarray, label: np.ndarray, logit: np.ndarray) -> Predictions:
    """In one epoch, with those logits of the true class, float [n]."""
    right = 1 / (1 + np.exp(-logit))
    rows = np.stack([np.where(label == c, right, 1 - right) for c in (0, 1)], axis=1)
    return predictions.from_probabilities(list(names), label, rows[None])


def quality(truth: str, rng: np.random.Generator) -> np.ndarray:
    if truth == "null":
        return np.full(SETTINGS, GOOD)
    near = GOOD + POINT * rng.standard_normal(SETTINGS)
    behind = rng.uniform(3 * POINT, GOOD, SETTINGS) * (np.arange(SETTINGS) >= 0.4 * SETTINGS)
    return near if truth == "near" else near - behind


def first(study: list[list[Scored]]) -> int:
    return int(np.argmin([np.mean([run.penalty.mean() for run in runs]) for runs in study]))


def percent(values: list[float] | list[bool]) -> str:
    """A share with its standard error."""
    values = np.asarray(values, float)
    return f"{100 * values.mean():.1f} ± {100 * values.std() / len(values) ** 0.5:.1f} %"


def chosen_again(worlds: int) -> Iterator[list[str]]:
    """The stated probability of choosing the same setting again, and how often it was."""
    for images, seeds, resplit in product((16, 50, 200), (1, 3, 5), (False, True)):
        stated, again, excess = [], [], []
        for truth in ("null", "near", "mixed"):
            rng = np.random.default_rng([1, images, seeds, resplit, len(truth)])
            said, did = [], []
            for _ in range(worlds):
                world = World(quality(truth, rng), images, seeds, resplit=resplit)
                study = world.study(rng)
                best = first(study)
                order = [best, *(place for place in range(SETTINGS) if place != best)]
                said.append(choices.chosen_again([study[place] for place in order])[0])
                did.append(np.mean([first(world.study(rng)) == best for _ in range(2)]))
            stated, again = stated + said, again + did
            excess.append(np.mean(said) - np.mean(did))
        where = f"{images} validation images, {seeds} seeds{', redrawn' * resplit}"
        numbers = (
            f"{percent(again)}, stated {percent(stated)}; most stated {100 * max(excess):+.1f}"
        )
        yield ["chosen again", where, numbers, "stated at most 5 points more"]


def pool(
    rng: np.random.Generator, images: int, seeds: int, sd: float, better: float
) -> list[Seeds]:
    """Two settings, of which the first's logit is higher by `better`, tested by cross-validation in
    five parts."""
    hard = IMAGE * rng.standard_normal(images)
    pairs = IMAGE_AND_SETTING * rng.standard_normal((2, images))
    parts = [p for _ in range(-(-seeds // 5)) for p in np.array_split(rng.permutation(images), 5)]
    settings = []
    for own, mean in zip(pairs, (GOOD + better, GOOD), strict=True):
        noise = sd * rng.standard_normal(seeds)
        logits = [
            mean + n + (hard + own)[part] + CHANCE * rng.standard_normal(len(part))
            for n, part in zip(noise, parts, strict=False)
        ]
        names = [part.astype(str) for part in parts[:seeds]]
        settings.append(Seeds([logit > 0 for logit in logits], names))
    return settings


def accuracy(logit: float, seed_sd: float) -> float:
    spread = np.sqrt(IMAGE**2 + IMAGE_AND_SETTING**2 + CHANCE**2 + seed_sd**2)
    return float(stats.ndtr(logit / spread))


def redrawn(worlds: int) -> Iterator[list[str]]:
    """Coverage of a difference's interval where each seed divides a pool of images anew."""
    for images, seeds, points in product((100, 300, 1250, 5000), (3, 5, 10), (0.5, 1.5, 3.0)):
        rng = np.random.default_rng([2, images, seeds, int(2 * points)])
        sd, better = points * POINT, 2 * POINT
        truth = accuracy(GOOD + better, sd) - accuracy(GOOD, sd)
        found = [stats.compare(*pool(rng, images, seeds, sd, better)) for _ in range(worlds)]
        held = [one.low <= truth <= one.high for one in found]
        wide = np.median([one.high - one.low for one in found])
        where = f"a pool of {images}, {seeds} divisions, seeds ± {points} points"
        yield ["interval, redrawn", where, f"{percent(held)}, {wide:.3f} wide", "93 to 97 %"]


def shared(worlds: int) -> Iterator[list[str]]:
    """The same where all seeds have the same test images."""
    for images, seeds, points in product((20, 150, 1000), (2, 3, 5), (0.5, 3.0)):
        rng = np.random.default_rng([3, images, seeds, int(2 * points)])
        sd, better = points * POINT, 2 * POINT
        truth = accuracy(GOOD + better, sd) - accuracy(GOOD, sd)
        found = []
        for _ in range(worlds):
            hard = IMAGE * rng.standard_normal(images)
            settings = []
            for mean in (GOOD + better, GOOD):
                own = mean + hard + IMAGE_AND_SETTING * rng.standard_normal(images)
                noise = sd * rng.standard_normal((seeds, 1))
                logits = own + noise + CHANCE * rng.standard_normal((seeds, images))
                settings.append(Seeds(list(logits > 0)))
            found.append(stats.compare(*settings))
        held = [one.low <= truth <= one.high for one in found]
        good = [one.low > -0.01 for one in map(turned, found)]
        where = f"{images} test images, {seeds} seeds ± {points} points"
        yield ["interval, shared", where, percent(held), "at least 95 %"]
        yield ["as good to a point, though 2 worse", where, percent(good), "at most 5 %"]


def transfer(worlds: int) -> Iterator[list[str]]:
    """Studies of four data sets in which transfer falsely helps or hurts on one, and of one data
    set in which a true difference of 5 points is found; all with 200 test images."""
    for seeds, points, better in product((2, 3, 5), (0.5, 1.5, 3.0), (0.0, 5 * POINT)):
        rng = np.random.default_rng([8, seeds, int(2 * points), int(better > 0)])
        found = []
        for _ in range(worlds):
            p_values = []
            for _ in range(1 if better else 4):
                # The validation images that choose each side's setting are others, and as good.
                hard = IMAGE * rng.standard_normal(200)
                sides = []
                for mean in (GOOD + better, GOOD):
                    own = mean + hard + IMAGE_AND_SETTING * rng.standard_normal(200)
                    noise = points * POINT * rng.standard_normal((seeds, 1))
                    logits = own + noise + CHANCE * rng.standard_normal((seeds, 200))
                    sides.append(Seeds(list(logits > 0)))
                p_values.append(stats.compare(*sides).p)
            found.append(min(stats.holm(p_values)) <= stats.LEVEL)
        what = "helps by 5 points, found" if better else "false helps or hurts in a study"
        goal = "power" if better else "at most 5 %"
        yield [what, f"{seeds} seeds ± {points} points", percent(found), goal]


def turned(difference: Difference) -> Difference:
    return Difference(-difference.value, -difference.high, -difference.low, difference.p)


def risk(worlds: int) -> Iterator[list[str]]:
    """Kept networks that are wrong on more than 2 % of the answers that they are sure of."""
    for images, guarantee in product((100, 200, 500, 2000), (False, True)):
        rng = np.random.default_rng([4, images])
        over, given, none = [], [], 0
        for _ in range(worlds):
            logit = GOOD + 1.5 * rng.standard_normal(images + 20000)
            right = 1 / (1 + np.exp(-logit))
            rows = np.stack([right, 1 - right], axis=1)
            names = np.arange(len(rows)).astype(str)
            known = Answers(names[:images], np.zeros(images, int), rows[:images])
            threshold = calibration.confidence_threshold(known, 0.02, guarantee)
            if threshold is None:
                none += 1
                over.append(False)
                continue
            sure = rows[images:].max(1) >= threshold
            given.append(sure.mean())
            over.append((rows[images:].argmax(1)[sure] != 0).mean() > 0.02)
        answer = (
            f"answers {percent(given)}, no threshold in {none / worlds:.0%}" if given else "none"
        )
        held = percent([not one for one in over])
        where = f"{images} validation images{', with --guarantee' * guarantee}"
        goal = "at least 95 %" if guarantee else "no promise"
        yield ["error of 2 % kept", where, f"{held}; {answer}", goal]


def confidence(worlds: int) -> Iterator[list[str]]:
    """The calibration error of networks whose confidence is true, against the range of chance."""
    for images, seeds in product((60, 200, 1000), (1, 3)):
        rng = np.random.default_rng([5, images, seeds])
        inside = []
        for _ in range(worlds):
            given = 1 / (1 + np.exp(-np.abs(GOOD + 1.5 * rng.standard_normal(images))))
            wrong = np.tile(rng.random(images) >= given, seeds)
            rows = np.tile(np.stack([given, 1 - given], axis=1), (seeds, 1))
            names = np.tile(np.arange(images).astype(str), seeds)
            error = calibration.error(Answers(names, wrong.astype(int), rows))
            inside.append(error.chance_low <= error.value <= error.chance_high)
        where = f"{images} test images, {seeds} seeds"
        yield ["calibration error within chance's range", where, percent(inside), "95 %"]


def labels(worlds: int) -> Iterator[list[str]]:
    """Label errors that are found, where 5 % of labels are wrong, and named where none is."""
    for images, seeds, good in product((100, 200, 800), (3, 5), (GOOD, GOOD + 1)):
        rng = np.random.default_rng([6, images, seeds, int(10 * good)])
        found = wrong = true = clean = 0
        for _ in range(worlds):
            for share in (0.05, 0.0):
                flipped = rng.random(images) < share
                truth = np.arange(images) % 2
                label = np.where(flipped, 1 - truth, truth)
                names = np.array([f"{'ab'[c]}/{i}" for i, c in enumerate(label)])
                own = good + np.hypot(IMAGE, IMAGE_AND_SETTING) * rng.standard_normal(images)
                runs = []
                for _ in range(seeds):
                    logit = own + CHANCE * rng.standard_normal(images)
                    logit = np.where(flipped, -logit, logit)
                    runs.append({"test": answered(names, label, logit)})
                named = {error.image for error in choices.doubted("x", runs, "accuracy")}
                if share:
                    bad = set(names[flipped])
                    found, wrong = found + len(named), wrong + len(bad)
                    true += len(named & bad)
                else:
                    clean += len(named)
        numbers = (
            f"recall {true / wrong:.2f}, precision {true / max(1, found):.2f}, "
            f"{200 * clean / worlds / images:.2f} false of 200 clean"
        )
        where = f"{images} images, {seeds} seeds, right on {100 * accuracy(good, 0):.0f} %"
        yield ["label errors", where, numbers, "recall 0.5, precision 0.7, 1 false"]


def regret(worlds: int) -> Iterator[list[str]]:
    """Points of test accuracy by which the chosen setting is behind the best one, on the committed
    runs: images drawn from the validation images choose."""
    folders = sorted(Path("docs/real-images/runs").iterdir())
    names = dict.fromkeys(folder.name.rsplit("-", 1)[0] for folder in folders)
    for dataset in dict.fromkeys(name.split("-")[0] for name in names):
        runs = [name for name in names if name.startswith(f"{dataset}-")]
        validation, test = (mean_penalties(runs, part) for part in ("validation", "test"))
        accuracy = -test["accuracy"].mean(1)
        for images in (16, 40, 80):
            rng, behind = np.random.default_rng([7, images]), {rule: [] for rule in validation}
            for _ in range(worlds):
                drawn = rng.integers(0, validation["brier"].shape[1], images)
                for rule, penalties in validation.items():
                    chosen = penalties[:, drawn].mean(1).argmin()
                    behind[rule].append(100 * (accuracy.max() - accuracy[chosen]))
            lost = ", ".join(f"{np.mean(lost):.2f} by {rule}" for rule, lost in behind.items())
            yield ["regret in points", f"{dataset}, {images} images choose", lost, "Brier less"]


def mean_penalties(settings: list[str], part: str) -> dict[str, np.ndarray]:
    """By rule [settings, n], the mean over the seeds of the committed runs."""
    by_rule: dict[str, list[np.ndarray]] = {"accuracy": [], "brier": []}
    for setting in settings:
        runs = [
            predictions.load(f"docs/real-images/runs/{setting}-{seed}/predictions.npz")
            for seed in range(3)
        ]
        for rule, means in by_rule.items():
            epochs = [scores.chosen_epoch(run, "accuracy") for run in runs]
            pairs = zip(runs, epochs, strict=True)
            means.append(np.mean([scores.penalty(rule, run[part], e) for run, e in pairs], axis=0))
    return {rule: np.stack(means) for rule, means in by_rule.items()}


ROWS: dict[str, Callable[[int], Iterator[list[str]]]] = {
    row.__name__: row
    for row in (chosen_again, redrawn, shared, transfer, risk, confidence, labels, regret)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--worlds", type=int, default=400, help="of each line (default %(default)s)"
    )
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="row", help=", ".join(ROWS))
    given = parser.parse_args()
    for row in given.rows:
        lines = list(ROWS[row](given.worlds))
        print(tabulate(lines, ["promise", "where", "how often", "goal"], "github"), flush=True)


if __name__ == "__main__":
    main()
