"""Which setting to take for a data set: the best by validation, and what is as good and cheaper.

The words are in recommendation.md.j2.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Self

from transfer import files
from transfer.cli import span
from transfer.evidence import trained
from transfer.evidence.calibration import Calibration
from transfer.evidence.found import Choice, Recall
from transfer.evidence.measures import Similarity
from transfer.evidence.scores import WORDS, Measure
from transfer.evidence.stats import wilson
from transfer.evidence.trained import Alike
from transfer.params import Dataset, Grid, Params
from transfer.runs import RECORD, Run
from transfer.templates import render
from transfer.training.record import Epoch, Record, Time, curve

CLASSES = 5
"""Classes whose recall is shown."""
RISING = 0.02
"""By how much training accuracy rises in a quarter of the epochs, if more may help."""
CHEAPER = 0.9
"""What a setting may take of the recommended one's computation to be named as cheaper."""


@dataclass(frozen=True)
class Advice:
    """For one data set. measure: what its settings are chosen by. choices: the recommended first.
    costs: the computation of each one's run, in multiples of the first one's. margin: as in
    params.yaml. network: its number of parameters, and its operations for an image. similar: by
    backbone. curve: of the first one's first run. calibration: of the first one."""

    dataset: Dataset
    grid: Grid
    measure: Measure
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
        study: Params,
        known: dict[str, dict[str, int]],
        similar: list[Similarity],
        calibration: Calibration | None = None,
    ) -> Self:
        """known: costs, as preflight.costs has them."""
        first, grid = choices[0], study.grid
        run = first.run(first.init, grid.seed[0])
        cost = known[cost_of(run)]
        return cls(
            dataset=study.datasets[first.dataset],
            grid=grid,
            measure=measure,
            choices=choices,
            costs=relative(choices, grid.seed[0], known),
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
        """The classes that the first recognises worst, the worst first."""
        return sorted(self.choices[0].recall, key=lambda recall: recall.mean)[:CLASSES]

    @property
    def next(self) -> str:
        """What to try where nothing works yet, and why, by the training curve."""
        fit = [epoch.train_accuracy for epoch in self.curve]
        part = max(1, len(fit) // 4)
        before, last = fmean(fit[-2 * part : -part] or fit), fmean(fit[-part:])
        if last - before > RISING:
            rise = (
                f"its accuracy on the training images still rose, from {before:.3f} to {last:.3f}"
            )
            return f"More epochs may help: {rise}."
        if last > (1 + self.choices[0].share) / 2:
            fits = f"it fits its training images ({last:.3f}), but not others"
            return f"More images, stronger augmentation or a frozen backbone may help: {fits}."
        misses = f"it does not fit even its training images ({last:.3f})"
        return f"Another learning rate, larger images or another backbone may help: {misses}."

    @property
    def cheaper(self) -> list[tuple[Choice, float]]:
        """Those that are certain to be as good to within the margin and that take less computation,
        the best by validation first."""
        return [(choice, cost) for choice, cost in self._less if choice.as_good]

    @property
    def maybe_cheaper(self) -> list[tuple[Choice, float]]:
        """Those that take less computation and of which one cannot tell."""
        return [(c, cost) for c, cost in self._less if not c.as_good and c.difference.sign >= 0]

    @property
    def _less(self) -> list[tuple[Choice, float]]:
        return [(choice, cost) for choice, cost in self.costed if cost < CHEAPER]

    @property
    def beyond(self) -> float | None:
        """The next learning rate to try, where that of the first is the grid's last on one side."""
        rates, own = sorted(self.grid.lr), self.choices[0].lr
        if len(rates) < 2 or rates[0] < own < rates[-1]:
            return None
        neighbour = rates[1] if own == rates[0] else rates[-2]
        return float(f"{own * own / neighbour:.1g}")

    @property
    def words(self) -> str:
        """What the settings are chosen by."""
        return WORDS[self.measure]

    @property
    def doubtful(self) -> bool:
        """Whether the first was chosen on images that say little about the test images: its
        accuracies on the two differ beyond both intervals, and beyond what being the best of so
        many explains."""
        first, among = self.choices[0], len(self.choices)
        if first.validation is None:
            return False
        return wilson(first.validation, first.n_validation, among)[0] > first.chosen.high

    @property
    def better(self) -> int:
        """Settings that did significantly better on the test images than the first."""
        return sum(choice.difference.sign > 0 for choice in self.choices)


def write(advices: list[Advice], mixed: list[Alike]) -> str:
    """The page; `mixed`: of the study's runs, see trained.mixed."""
    template = Path(__file__).with_name("recommendation.md.j2")
    return render(template, advices=advices, mixed=trained.sentence(mixed))


def operations(run: Run, costs: dict[str, dict[str, int]]) -> int:
    """The floating-point operations of the run; `costs`: as preflight.costs has them."""
    cost, n = costs[cost_of(run)], Record.load(run).n
    return n["train"] * cost["train"] + (n["validation"] + n["test"]) * cost["predict"]


def relative(choices: list[Choice], seed: int, costs: dict[str, dict[str, int]]) -> list[float]:
    """The computation of each setting's run of that seed, in multiples of the first one's."""
    found = [operations(choice.run(choice.init, seed), costs) for choice in choices]
    return [one / found[0] for one in found]


def cost_of(run: Run) -> str:
    """The run's key in preflight.costs."""
    return f"{run.backbone}-{run.recipe}-{run.freezing}"


def seconds(run: Run) -> float | None:
    """What the run took, if this very one, to the byte of its record, was trained here."""
    try:
        found = Time.read(run.time)
    except FileNotFoundError:
        return None
    return found.seconds if found.of == files.sha256(run.folder / RECORD) else None


def times(found: list[tuple[str, float]]) -> str:
    """The runs and the seconds that they took, as lines for a terminal."""
    if not found:
        return "There are no times to show: these runs were not trained here."
    words = "Times on this machine. Of frozen runs that share a backbone pass, the first made it:"
    return "\n".join([words, *(f"  {span(seconds):>8}  {name}" for name, seconds in found)])
