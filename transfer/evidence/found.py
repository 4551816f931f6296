"""What the runs allow one to say: the fields of metrics/evidence.json.

Accuracies and their differences are fractions, on test images; intervals are at 95 %.
"""

from transfer.evidence.claims import Claim, Size
from transfer.evidence.stats import LEVEL, Difference, Discordant
from transfer.files import Fields, Stored
from transfer.runs import Place


class Accuracy(Fields):
    """Mean over the seeds, their standard deviation (None: one seed), and Wilson's interval."""

    mean: float
    sd: float | None
    low: float
    high: float

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:.3f}"
        return f"{self.mean:.3f}{spread} [{self.low:.3f}, {self.high:.3f}]"


class Arm(Fields):
    """One setting from one start. `chosen`: at the epoch that was not chosen on test images.
    `best`: at the best test epoch of the first seed, as the report gives it. `inflation`: by how
    much the best epoch exceeds the chosen one, mean over the seeds. `validation`: the mean accuracy
    on `n_validation` images at the epoch chosen, None where there are none."""

    best: float
    chosen: Accuracy
    inflation: float
    n_validation: int
    validation: float | None

    @property
    def score(self) -> float:
        """What settings are chosen by."""
        return self.chosen.mean if self.validation is None else self.validation


class Paired(Fields):
    """Two runs on the same images: the first's accuracy minus the second's, over all seeds, and
    McNemar's test, of the first seed. `p_holm`: its p, corrected for all rows of the question."""

    difference: Difference
    mcnemar: Discordant
    p_holm: float


class Unleaked(Fields):
    """Without the test images that stand in training: `n`, class → images left; `recall`, start →
    mean recall over the classes with them and without (None: no image is left)."""

    n: dict[str, int]
    recall: dict[str, tuple[float, float | None]]


class Row(Place):
    """A line of a table. `arms`: by start. `paired`: transfer against baseline, None without both.
    `unleaked`: None where no test image stands in training."""

    n_test: int
    arms: dict[str, Arm]
    paired: Paired | None
    unleaked: Unleaked | None


class Freezing(Place):
    """Frozen (as the place says) against finetuned, both from pretrained weights."""

    paired: Paired


class Transfer(Place):
    """Transfer against baseline, each at the learning rate (the place's, and `baseline_lr`) that
    its validation accuracy chose. `verdict`: helps, hurts (negative transfer) or cannot tell, by
    the interval."""

    baseline_lr: float
    difference: Difference
    verdict: str


class Recall(Fields):
    """The share of a class's `n` test images that is right: mean over the seeds, and Wilson's
    interval."""

    label: str
    n: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.label} {self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.n}"


class Choice(Place):
    """A setting from a start, among all that a data set has at the first size. `difference`: its
    accuracy minus that of the recommended one. `majority`: the most frequent class of the test
    images, and `share` how frequent it is, which is what always answering it gets right. `above`:
    the setting against that. `recall`: of each class. The other fields are those of Arm."""

    start: str
    n_test: int
    chosen: Accuracy
    n_validation: int
    validation: float | None
    difference: Difference
    majority: str
    share: float
    above: Paired
    recall: list[Recall]

    @property
    def works(self) -> bool:
        """Whether it beats always giving one answer, beyond noise."""
        return self.above.difference.sign > 0 and self.above.mcnemar.p <= LEVEL


class Gain(Fields):
    """Transfer minus baseline on a data set with a backbone, mean over the other settings."""

    dataset: str
    images: int | str
    backbone: str
    difference: Difference


class Suspect(Fields):
    """An image whose label looks wrong. `image`: <part>/<class>/<name>, of validation or test.
    `said`: the class that all good runs take it for, `runs` of them, with that mean confidence."""

    dataset: str
    image: str
    said: str
    runs: int
    confidence: float


class Claims(Fields):
    """The report's claims, in its order, judged on its own numbers and on ours."""

    published: list[Claim]
    ours: list[Claim]


class Evidence(Stored):
    """`choices`: of each data set the recommended setting first. `implied_sizes`: what the report's
    printed accuracies say of its test sets."""

    rows: list[Row]
    frozen_finetuned: list[Freezing]
    transfer: list[Transfer]
    choices: list[Choice]
    gains: list[Gain]
    suspects: list[Suspect]
    implied_sizes: list[Size]
    claims: Claims
