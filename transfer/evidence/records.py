"""The fields of metrics/evidence.json.

Accuracies, other measures and their differences are fractions, on test images; intervals are at
95 %, see transfer.evidence.stats.
"""

from transfer.evidence.calibration import Calibration
from transfer.evidence.claims import Claim, Size
from transfer.evidence.scores import Criterion, Measure
from transfer.evidence.stats import Difference
from transfer.files import Fields, Stored
from transfer.runs import Run, Setting


class Estimate(Fields):
    """A measure: its mean and standard deviation over the seeds (None: one seed), its interval."""

    mean: float
    sd: float | None
    low: float
    high: float

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:.3f}"
        return f"{self.mean:.3f}{spread} [{self.low:.3f}, {self.high:.3f}]"


class Result(Fields):
    """A setting's runs with one init.

    chosen: the data set's measure at the epoch chosen without test images. best: the accuracy at
    the best test epoch of the first seed, as the paper gives it. inflation: by how much the best
    epoch's accuracy exceeds the chosen one's, mean over the seeds. validation: the measure on
    `n_validation` images at the chosen epoch; penalty: what settings are chosen by, the least
    first; both are means over the seeds, None without such images.
    """

    best: float
    chosen: Estimate
    inflation: float
    n_validation: int
    validation: float | None
    penalty: float | None

    @property
    def rank(self) -> float:
        """Sorts settings, the best first: on the test images where there are no others."""
        return -self.chosen.mean if self.penalty is None else self.penalty


class Paired(Fields):
    """Two settings on the same images: the first's measure minus the second's. alone: the number of
    test images that only the first, and only the second, got right with the first seed. p_holm: the
    p-value, corrected for all rows of the table."""

    difference: Difference
    alone: tuple[int, int]
    p_holm: float


class Unleaked(Fields):
    """Without the test images that also occur in training. n: class → images left. recall: init →
    mean recall over the classes, with these images and without (None: no image is left)."""

    n: dict[str, int]
    recall: dict[str, tuple[float, float | None]]


class Row(Setting):
    """A row of a table. results: by init. paired: transfer against baseline, None without both.
    unleaked: None if no test image occurs in training."""

    n_test: int
    results: dict[str, Result]
    paired: Paired | None
    unleaked: Unleaked | None


class Freezing(Setting):
    """A frozen setting against the same finetuned, both from pretrained weights."""

    paired: Paired


class Transfer(Setting):
    """Transfer against `baseline`, each chosen by its validation images: its learning rate or, if
    `overall`, its whole setting. verdict, of the whole setting alone: helps, hurts (negative
    transfer) or cannot tell, by the p-value after Holm's correction for the number of data sets;
    always cannot tell with one seed."""

    baseline: Setting
    overall: bool
    difference: Difference
    verdict: str | None = None


class Recall(Fields):
    """The share of a class's `n` different test images that is right: its mean over the seeds, and
    its interval."""

    label: str
    n: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.label} {self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.n}"


class Mistake(Fields):
    """How many images of a class are taken for another by most seeds that were tested on them."""

    label: str
    predicted: str
    n: int

    def __str__(self) -> str:
        return f"{self.n} {self.label} taken for {self.predicted}"


class Choice(Setting):
    """A setting and init of a data set's first size; see Result for the fields not named here.

    difference: its measure minus that of the recommended setting. as_good: whether it is
    non-inferior within the margin. again: the probability that other seeds and validation images
    would choose it, see choices.chosen_again; 0 where noise does not explain how far it is behind.
    majority: the most frequent class of the test images; share: how
    frequent that is, so the accuracy of always answering it. above: the setting's measure minus
    that of always answering so. recall: of each class. mistakes: the most frequent first.
    """

    init: str
    n_test: int
    chosen: Estimate
    n_validation: int
    validation: float | None
    difference: Difference
    as_good: bool
    penalty: float | None
    again: float | None
    majority: str
    share: float
    above: Difference
    recall: list[Recall]
    mistakes: list[Mistake]

    def runs(self, seeds: list[int]) -> list[Run]:
        """Its run of each seed."""
        return [self.run(self.init, seed) for seed in seeds]

    @property
    def words(self) -> str:
        """The setting and its init."""
        weights = {"pretrained": "pretrained", "scratch": "random"}[self.init]
        return f"{self.label} from {weights} weights"

    @property
    def resplit(self) -> bool:
        """Whether each seed has its own test images: then the classes have more than one seed."""
        return sum(recall.n for recall in self.recall) > self.n_test

    @property
    def works(self) -> bool:
        """Whether it beats always giving one answer by more than chance."""
        return self.above.sign > 0


class Gain(Fields):
    """Transfer minus baseline, mean over all settings of a data set and backbone."""

    dataset: str
    images: int | str
    backbone: str
    difference: Difference


class Learning(Fields):
    """A data set's two largest sizes, in training images per class: the measure of the best
    transfer setting (or of the only init) with `larger`, minus that with `smaller`."""

    dataset: str
    larger: int | str
    smaller: int | str
    difference: Difference


class LabelError(Fields):
    """A validation or test image whose label looks wrong. image: <class>/<name>. predicted: the
    class that `runs` runs are confident of; confidence: the mean probability that they give it."""

    dataset: str
    image: str
    predicted: str
    runs: int
    confidence: float


class Claims(Fields):
    """The paper's claims, in its order, judged on its own numbers and on ours. stand_ins: the
    paper's backbone → the grid's backbone that stands in for it; {} if the grid has the paper's."""

    published: list[Claim]
    ours: list[Claim]
    stand_ins: dict[str, str]


class Alike(Fields):
    """A number of runs that were trained alike. how: what distinguishes them from the others, such
    as `with torch 2.15.0`."""

    runs: int
    how: str

    def __str__(self) -> str:
        return f"{self.runs} {self.how}"


class Evidence(Stored):
    """measures, criteria: data set → what its settings are judged and chosen by. choices: of each
    data set the recommended setting first. calibration: data set → that setting's. implied_sizes:
    what the paper's printed accuracies say of its test sets. mixed: see results.mixed."""

    measures: dict[str, Measure]
    criteria: dict[str, Criterion]
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

    def ranking(self, dataset: str) -> list[Choice]:
        """The data set's settings, the recommended first."""
        return [choice for choice in self.choices if choice.dataset == dataset]
