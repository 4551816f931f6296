"""What the runs allow one to say: the fields of metrics/evidence.json.

Accuracies, other measures and their differences are fractions, on test images; intervals are at
95 %, see transfer.evidence.stats.
"""

from transfer.evidence.calibration import Calibration
from transfer.evidence.claims import Claim, Size
from transfer.evidence.scores import Measure
from transfer.evidence.stats import Difference
from transfer.evidence.trained import Alike
from transfer.files import Fields, Stored
from transfer.runs import Setting


class Estimate(Fields):
    """A measure: its mean over the seeds, their standard deviation (None: one), its interval."""

    mean: float
    sd: float | None
    low: float
    high: float

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:.3f}"
        return f"{self.mean:.3f}{spread} [{self.low:.3f}, {self.high:.3f}]"


class Result(Fields):
    """One setting from one start. `chosen`: the data set's measure, at the epoch that was not
    chosen on test images. `best`: the accuracy at the best test epoch of the first seed, as the
    paper gives it. `inflation`: by how much the best epoch's accuracy exceeds the chosen one's,
    mean over the seeds. `validation`: the measure on `n_validation` images at the epoch chosen, and
    `loss` their cross entropy in nats, means over the seeds; None where there are none."""

    best: float
    chosen: Estimate
    inflation: float
    n_validation: int
    validation: float | None
    loss: float | None

    @property
    def rank(self) -> tuple[float, float]:
        """What settings are chosen by, the least first; of equals, by loss."""
        score = self.chosen.mean if self.validation is None else self.validation
        return -score, self.loss or 0.0


class Paired(Fields):
    """Two settings on the same images: the first's measure minus the second's. `alone`: test images
    that only the first, and only the second, got right with the first seed. `p_holm`: the p-value,
    corrected for all rows of the question."""

    difference: Difference
    alone: tuple[int, int]
    p_holm: float


class Unleaked(Fields):
    """Without the test images that stand in training: `n`, class → images left; `recall`, start →
    mean recall over the classes with them and without (None: no image is left)."""

    n: dict[str, int]
    recall: dict[str, tuple[float, float | None]]


class Row(Setting):
    """A line of a table. `results`: by start. `paired`: transfer against baseline, None without
    both.
    `unleaked`: None where no test image stands in training."""

    n_test: int
    results: dict[str, Result]
    paired: Paired | None
    unleaked: Unleaked | None


class Freezing(Setting):
    """Frozen (as the place says) against finetuned, both from pretrained weights."""

    paired: Paired


class Transfer(Setting):
    """Transfer against baseline, each as its validation images chose it: the learning rate, or, if
    `overall`, the whole setting. `baseline`: the other's place. `verdict`: helps, hurts (negative
    transfer) or cannot tell, by the interval; with one seed it always cannot tell."""

    baseline: Setting
    overall: bool
    difference: Difference
    verdict: str


class Recall(Fields):
    """The share of a class's `n` different test images that is right: mean over the seeds, and
    Wilson's interval for so many images."""

    label: str
    n: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.label} {self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.n}"


class Mistake(Fields):
    """How often images of a class were taken for another, all seeds together."""

    label: str
    predicted: str
    n: int

    def __str__(self) -> str:
        return f"{self.n} × {self.label} for {self.predicted}"


class Choice(Setting):
    """A setting from a start, among all that a data set has at the first size. `difference`: its
    measure minus that of the recommended one. `as_good`: whether it is certain to be no worse by
    more than the margin. `wins`: how often it is the best when seeds and validation images are
    drawn again. `majority`: the most frequent class of the test images, and `share` how frequent it
    is, which is what always answering it gets right. `above`: the setting against that. `recall`:
    of each class. `mistakes`: the most frequent first. The other fields are those of Arm."""

    init: str
    n_test: int
    chosen: Estimate
    n_validation: int
    validation: float | None
    difference: Difference
    as_good: bool
    wins: float | None
    majority: str
    share: float
    above: Difference
    recall: list[Recall]
    mistakes: list[Mistake]

    @property
    def words(self) -> str:
        """The setting and its start."""
        weights = {"pretrained": "pretrained", "scratch": "random"}[self.init]
        return f"{self.label} from {weights} weights"

    @property
    def anew(self) -> str:
        """What to say behind the number of test images: more are named than one seed has."""
        redrawn = sum(recall.n for recall in self.recall) > self.n_test
        return ", others for each seed" if redrawn else ""

    @property
    def works(self) -> bool:
        """Whether it beats always giving one answer, beyond noise."""
        return self.above.sign > 0


class Gain(Fields):
    """Transfer minus baseline on a data set with a backbone, mean over the other settings."""

    dataset: str
    images: int | str
    backbone: str
    difference: Difference


class Learning(Fields):
    """The best transfer setting (or the only start's) with the data set's most training images a
    class, and with the next fewer: the first's measure minus the second's."""

    dataset: str
    larger: int | str
    smaller: int | str
    difference: Difference


class LabelError(Fields):
    """An image whose label looks wrong. `image`: <class>/<name>, of validation or test.
    `predicted`: the
    class that all good runs take it for, `runs` of them, with that mean confidence."""

    dataset: str
    image: str
    predicted: str
    runs: int
    confidence: float


class Claims(Fields):
    """The paper's claims, in its order, judged on its own numbers and on ours."""

    published: list[Claim]
    ours: list[Claim]


class Evidence(Stored):
    """`measures`: data set → what its settings are chosen by. `choices`: of each data set the
    recommended setting first. `calibration`: data set → that setting's. `implied_sizes`: what the
    paper's printed accuracies say of its test sets. `mixed`: see trained.mixed."""

    measures: dict[str, Measure]
    rows: list[Row]
    frozen_finetuned: list[Freezing]
    transfer: list[Transfer]
    choices: list[Choice]
    calibration: dict[str, Calibration]
    gains: list[Gain]
    learning: list[Learning]
    label_errors: list[LabelError]
    implied_sizes: list[Size]
    claims: Claims
    mixed: list[Alike]
