"""metrics/recommendation.md: for each data set the best setting by validation, and any cheaper
setting that is as good. The words are in recommendation.md.j2.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Self

from transfer import files
from transfer.cli import span
from transfer.evidence.calibration import Calibration
from transfer.evidence.measures import Similarity
from transfer.evidence.records import Alike, Choice, Recall
from transfer.evidence.results import mixed_warning
from transfer.evidence.scores import WORDS, Criterion, Measure
from transfer.evidence.stats import wilson
from transfer.params import Dataset, Grid, Params
from transfer.runs import RECORD, Run
from transfer.templates import render
from transfer.training.record import Epoch, Record, Time, curve

CLASSES = 5
"""The most classes whose recall is shown."""
RISING = 0.02
"""If training accuracy rises by more than this in the last quarter of the epochs, more may help."""
CHEAPER = 0.9
"""A setting is cheaper if it takes less than this share of the recommended one's computation."""


@dataclass(frozen=True)
class Advice:
    """For one data set. measure, chosen_by: what its settings are judged and chosen by.
    choices: the recommended first.
    costs: the computation of each one's run, relative to the first one's. margin: see params.yaml.
    network: the number of the first one's parameters, and its operations for an image. similar: by
    backbone. curve: of the first one's first run. calibration: of the first one."""

    dataset: Dataset
    grid: Grid
    measure: Measure
    chosen_by: Criterion
    choices: list[Choice]
    costs: list[float]
    margin: float
    network: tuple[int, int]
    similar: list[Similarity]
    curve: list[Epoch]
    calibration: Calibration | None = None

    @classmethod
    def from_choices(
        cls,
        choices: list[Choice],
        measure: Measure,
        chosen_by: Criterion,
        study: Params,
        costs: dict[str, dict[str, int]],
        similar: list[Similarity],
        calibration: Calibration | None = None,
    ) -> Self:
        """costs: see transfer.training.preflight."""
        first, grid = choices[0], study.grid
        run = first.run(first.init, grid.seed[0])
        cost = costs[cost_of(run)]
        return cls(
            dataset=study.datasets[first.dataset],
            grid=grid,
            measure=measure,
            chosen_by=chosen_by,
            choices=choices,
            costs=relative_costs(choices, grid.seed[0], costs),
            margin=study.evidence.margin,
            network=(cost["parameters"], cost["image"]),
            similar=similar,
            curve=curve(run),
            calibration=calibration,
        )

    @property
    def costed(self) -> list[tuple[Choice, float]]:
        return list(zip(self.choices, self.costs, strict=True))

    @property
    def worst(self) -> list[Recall]:
        """The first one's lowest recalls, the lowest first."""
        return sorted(self.choices[0].recall, key=lambda recall: recall.mean)[:CLASSES]

    @property
    def next(self) -> str:
        """What to try if nothing works yet, and why, by the training curve."""
        accuracies = [epoch.train_accuracy for epoch in self.curve]
        quarter = max(1, len(accuracies) // 4)
        before = fmean(accuracies[-2 * quarter : -quarter] or accuracies)
        last = fmean(accuracies[-quarter:])
        if last - before > RISING:
            why = (
                f"accuracy on the training images was still rising, from {before:.3f} to {last:.3f}"
            )
            return f"More epochs may help: {why}."
        if last > (1 + self.choices[0].share) / 2:
            why = f"it fits its training images ({last:.3f}), but not others"
            return f"More images, stronger augmentation or a frozen backbone may help: {why}."
        why = f"it does not fit even its training images ({last:.3f})"
        return f"Another learning rate, larger images or another backbone may help: {why}."

    @property
    def cheaper(self) -> list[tuple[Choice, float]]:
        """Settings that take less computation, with their costs, the best by validation first."""
        return [(choice, cost) for choice, cost in self.costed if cost < CHEAPER]

    @property
    def as_good(self) -> list[tuple[Choice, float]]:
        """The cheaper ones that are non-inferior within the margin."""
        return [(choice, cost) for choice, cost in self.cheaper if choice.as_good]

    @property
    def maybe_as_good(self) -> list[tuple[Choice, float]]:
        """The cheaper ones that may be non-inferior or not."""
        return [
            (choice, cost)
            for choice, cost in self.cheaper
            if not choice.as_good and choice.difference.sign >= 0
        ]

    @property
    def images_needed(self) -> int | None:
        """About how many test images would show that the first of these is non-inferior, if its
        difference stays; None if it would not."""
        (choice, _), *_ = self.maybe_as_good
        difference = choice.difference
        room = difference.value + self.margin
        if room <= 0:
            return None
        images = choice.n_test * ((difference.value - difference.low) / room) ** 2
        return int(round(images, 1 - len(str(int(images)))))

    @property
    def next_rate(self) -> float | None:
        """A learning rate to try if the first one's is the lowest or the highest of the grid."""
        rates, rate = sorted(self.grid.lr), self.choices[0].lr
        if len(rates) < 2 or rates[0] < rate < rates[-1]:
            return None
        neighbour = rates[1] if rate == rates[0] else rates[-2]
        return float(f"{rate * rate / neighbour:.1g}")

    @property
    def unasked(self) -> list[str]:
        """The questions that the grid does not ask."""
        asked = {
            "freeze or finetune?": {"frozen", "finetuned"} <= set(self.grid.freezing),
            "do pretrained weights help?": len(self.grid.init) > 1,
            "which learning rate?": len(self.grid.lr) > 1,
            "what would another seed give?": len(self.grid.seed) > 1,
        }
        return [question for question, answered in asked.items() if not answered]

    @property
    def measured(self) -> str:
        """What the settings are judged by, in words."""
        return WORDS[self.measure]

    @property
    def criterion(self) -> str:
        """What the settings are chosen by, in words."""
        return WORDS[self.chosen_by]

    @property
    def pretrained(self) -> Choice | None:
        """The best pretrained setting, if random weights are chosen and it may be as good."""
        near = [c for c in self.choices if c.init == "pretrained" and c.again]
        return near[0] if near and self.choices[0].init == "scratch" else None

    @property
    def doubtful(self) -> bool:
        """Whether the first one's validation accuracy exceeds its test accuracy by more than both
        intervals and the choice among so many settings explain."""
        first = self.choices[0]
        if first.validation is None:
            return False
        low, _ = wilson(first.validation, first.n_validation, len(self.choices))
        return low > first.chosen.high

    @property
    def better(self) -> int:
        """The number of settings that are significantly better than the first on test images."""
        return sum(choice.difference.sign > 0 for choice in self.choices)


def write(advices: list[Advice], mixed: list[Alike]) -> str:
    """The text of the page. mixed: see results.mixed."""
    template = Path(__file__).with_name("recommendation.md.j2")
    return render(template, advices=advices, mixed=mixed_warning(mixed))


def operations(run: Run, costs: dict[str, dict[str, int]]) -> int:
    """The floating-point operations of the run. costs: see transfer.training.preflight."""
    cost, n = costs[cost_of(run)], Record.load(run).n
    return n["train"] * cost["train"] + (n["validation"] + n["test"]) * cost["predict"]


def relative_costs(
    choices: list[Choice], seed: int, costs: dict[str, dict[str, int]]
) -> list[float]:
    """The computation of each setting's run of that seed, relative to the first one's."""
    totals = [operations(choice.run(choice.init, seed), costs) for choice in choices]
    return [total / totals[0] for total in totals]


def cost_of(run: Run) -> str:
    """The run's key in transfer.training.preflight."""
    return f"{run.backbone}-{run.recipe}-{run.freezing}"


def seconds(run: Run) -> float | None:
    """How long the run took; None unless this very run, by its record's hash, was trained here."""
    try:
        time = Time.read(run.time)
    except FileNotFoundError:
        return None
    return time.seconds if time.of == files.sha256(run.folder / RECORD) else None


def times(by_run: list[tuple[str, float]]) -> str:
    """The runs and their seconds, as lines for a terminal."""
    if not by_run:
        return "There are no times to show: these runs were not trained here."
    heading = (
        "Times on this machine. Frozen runs share a backbone pass, which the first one computes:"
    )
    return "\n".join([heading, *(f"  {span(seconds):>8}  {name}" for name, seconds in by_run)])
