"""Which setting to take for a data set: the best by validation, and what is as good and cheaper.

The words are in recommendation.md.j2.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from transfer import files
from transfer.cli import span
from transfer.evidence.found import Choice, Recall
from transfer.evidence.measures import MEASURES, Similarity
from transfer.evidence.stats import wilson
from transfer.params import Dataset
from transfer.runs import RECORD, Run
from transfer.templates import render
from transfer.training.record import Epoch, Record, Time

CLASSES = 5
"""Classes whose recall is shown."""
RISING = 0.02
"""By how much training accuracy rises in a quarter of the epochs, if more may help."""
SHOWN = ("batchnorm_frechet", "prediction_entropy", "leep")
CHEAPER = 0.9
"""What a setting may take of the recommended one's computation to be named as cheaper."""


@dataclass(frozen=True)
class Advice:
    """For one data set. choices: the recommended first. costs: the computation of each one's run,
    in multiples of the first one's. similar: by backbone. curve: of the first one's first run."""

    dataset: Dataset
    choices: list[Choice]
    costs: list[float]
    similar: list[Similarity]
    curve: list[Epoch]

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
    def ties(self) -> int:
        """Other settings that did as well as the recommended on the validation images."""
        first, *others = self.choices
        return sum(c.validation == first.validation for c in others) if first.n_validation else 0

    @property
    def cheaper(self) -> list[tuple[Choice, float]]:
        """Those that the test images do not show to be worse and that take less computation, the
        best by validation first. With few test images many settings are indistinguishable."""
        return [
            (choice, cost)
            for choice, cost in self.costed
            if cost < CHEAPER and choice.difference.sign >= 0
        ]

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


def write(advices: list[Advice]) -> str:
    """The page."""
    template = Path(__file__).with_name("recommendation.md.j2")
    return render(template, advices=advices, measures=MEASURES, shown=SHOWN)


def operations(run: Run, costs: dict[str, dict[str, int]]) -> int:
    """The floating-point operations of the run; `costs`: as transfer.training.cost has them."""
    cost, n = costs[f"{run.backbone}-{run.recipe}-{run.freezing}"], Record.of(run).n
    return n["train"] * cost["train"] + (n["validation"] + n["test"]) * cost["predict"]


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
