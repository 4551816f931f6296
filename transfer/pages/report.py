"""metrics/report.md: the study on one page. The words are in report.md.j2."""

from dataclasses import dataclass
from math import factorial
from pathlib import Path
from statistics import fmean
from typing import Any

from transfer.evidence import trained
from transfer.evidence.claims import NO_RUNS, Claim
from transfer.evidence.compare import best
from transfer.evidence.found import Choice, Claims, Evidence, Gain, Result, Row, Transfer
from transfer.evidence.measures import MEASURES, Similarity
from transfer.evidence.scores import WORDS as MEASURED
from transfer.evidence.scores import Measure
from transfer.evidence.stats import LEVEL
from transfer.images.audit import Audit
from transfer.params import Dataset
from transfer.templates import render
from transfer.training.record import Record

ALIKE = 0.01
"""Measures that vary by less than this share over all data sets are not shown."""
WORDS = {"pretrained": "Transfer", "scratch": "Baseline"}


def write(
    datasets: dict[str, Dataset],
    evidence: Evidence,
    similar: list[Similarity],
    audits: dict[str, Audit],
    records: list[Record],
    pictures: list[str],
    drawn: bool = False,
) -> str:
    """The page. `audits`: by data set. `records`: of all runs. `pictures`: the names of those in
    metrics/figures. `drawn`: whether the images are no photographs."""
    rows = evidence.rows
    main = [row for row in rows if row.images == rows[0].images]
    results = [result for row in rows for result in row.results.values()]
    leaks = [row for row in main if row.unleaked]
    return render(
        Path(__file__).with_name("report.md.j2"),
        datasets=datasets,
        evidence=evidence,
        audits=audits,
        pictures=pictures,
        drawn=drawn,
        made=made(records),
        mixed=trained.sentence(evidence.mixed),
        measured={name: MEASURED[measure] for name, measure in evidence.measures.items()},
        learning=[
            (data.title, words)
            for name, data in datasets.items()
            if (words := learning(evidence, name))
        ],
        answers=[
            found
            for name, data in datasets.items()
            if (found := answer(data, evidence, _of(main, name)))
        ],
        inits=list(rows[0].results),
        words=WORDS,
        sizes={row.images for row in rows} != {"all"},
        inflation={
            "mean": fmean(result.inflation for result in results),
            "most": max(result.inflation for result in results),
        },
        quadrants=any(data.quadrant != "none" for data in datasets.values()),
        claims=judged(evidence.claims),
        similarity=likeness(similar, datasets, evidence) if similar else None,
        measures=MEASURES,
        leaks=leaks,
        gone=gone(leaks),
    )


def made(records: list[Record]) -> dict[str, Any]:
    """Of how many runs the page is, on what data and device, with which packages."""
    data = dict.fromkeys(f"{run.dataset} {run.data[:12]}" for run in records)
    seeds = sorted({run.seed for run in records})
    return {"runs": len(records), "seeds": seeds, "data": list(data)} | trained.summary(records)


@dataclass(frozen=True)
class Answer:
    """A data set's best transfer setting among so many, and those within its interval. `choice`:
    what it is among all settings. `transfer`: it against the best baseline, if that was judged."""

    data: Dataset
    measure: Measure
    row: Row
    result: Result
    choice: Choice
    among: int
    near: list[Row]
    transfer: Transfer | None

    @property
    def words(self) -> str:
        return MEASURED[self.measure]


def answer(data: Dataset, evidence: Evidence, rows: list[Row]) -> Answer | None:
    """None without transfer runs. `rows`: the data set's of the first size."""
    runs = [row for row in rows if "pretrained" in row.results]
    if not runs:
        return None
    first = best(runs, "pretrained")
    result = first.results["pretrained"]
    near = [
        row
        for row in runs
        if row is not first and row.results["pretrained"].chosen.mean >= result.chosen.low
    ]
    setting = first.dataset, first.images
    return Answer(
        data=data,
        measure=evidence.measures[first.dataset],
        row=first,
        result=result,
        choice=next(
            c for c in evidence.choices if (c.setting, c.init) == (first.setting, "pretrained")
        ),
        among=len(runs),
        near=near,
        transfer=next(
            (t for t in evidence.transfer if t.overall and (t.dataset, t.images) == setting), None
        ),
    )


def learning(evidence: Evidence, name: str) -> str:
    """What the data set's learning curve says in a sentence; '' with one size."""
    for found in evidence.learning:
        if found.dataset == name:
            rise = f"{MEASURED[evidence.measures[name]]} changed by {found.difference}"
            told = {
                1: "more images would probably help still.",
                0: "whether more images would help cannot be told from that.",
                -1: "more images did not help.",
            }
            sizes = f"from {_size(found.smaller)} to {_size(found.larger)}"
            return f"{sizes}, {rise}; {told[found.difference.sign]}"
    return ""


def _size(images: int | str) -> str:
    return "all images" if isinstance(images, str) else f"{images} images a class"


def judged(claims: Claims) -> dict[str, list]:
    """Pairs of a claim on the paper's numbers and on our runs; and those that we have no runs
    for, on the paper's numbers alone."""
    pairs: list[tuple[Claim, Claim]] = list(zip(claims.published, claims.ours, strict=True))
    unknown = [theirs for theirs, ours in pairs if ours.numbers == NO_RUNS]
    return {"judged": [pair for pair in pairs if pair[1].numbers != NO_RUNS], "unknown": unknown}


@dataclass(frozen=True)
class Likeness:
    """A line of the similarity table. `half`: that which the data set is in, among all."""

    found: Similarity
    by_eye: str
    half: str
    gain: Gain | None


def likeness(
    similar: list[Similarity], datasets: dict[str, Dataset], evidence: Evidence
) -> dict[str, Any]:
    """The most similar first, by the first measure that all have, with what transfer gained."""
    shared = [key for key in MEASURES if all(key in found.measures for found in similar)]
    key = next((key for key in shared if _varies(key, similar)), shared[0])
    title, sign, _ = MEASURES[key]
    still = [key for key in shared if not _varies(key, similar)]
    ordered = sorted(similar, key=lambda found: -sign * found.measures[key])
    backbones = {found.backbone: [o for o in ordered if o.backbone == found.backbone]
                 for found in similar}  # fmt: skip
    gained = {(gain.dataset, gain.backbone): gain for gain in evidence.gains}
    lines = [
        Likeness(
            found,
            datasets[found.dataset].quadrant,
            _half(backbones[found.backbone].index(found), len(backbones[found.backbone]))
            if _varies(key, similar)
            else "",
            gained.get((found.dataset, found.backbone)),
        )
        for found in ordered
    ]
    # Of n! orders one and its reverse are perfect.
    least = min(1.0, 2 / factorial(len(datasets)))
    return {
        "key": key,
        "by": f"{title} {'↑' if sign > 0 else '↓'}",
        "lines": lines,
        "backbones": backbones,
        "varying": {key: MEASURES[key] for key in MEASURES if key not in still},
        "still": [MEASURES[key][0] for key in still],
        "least_p": least if len(datasets) > 1 and least > LEVEL else None,
    }


def _varies(key: str, similar: list[Similarity]) -> bool:
    """Whether the measure tells data sets apart at all, if there are several."""
    if len({found.dataset for found in similar}) < 2:
        return True
    values = [found.measures[key] for found in similar]
    return max(values) - min(values) > ALIKE * max(map(abs, values))


def _half(setting: int, of: int) -> str:
    return "" if of < 2 else "more similar" if setting < of / 2 else "less similar"


def gone(leaks: list[Row]) -> dict[str, list[str]]:
    """Data set → classes of which no test image is left without the leaked ones."""
    counts = {row.dataset: row.unleaked.n for row in leaks if row.unleaked}
    left = {name: [label for label, n in count.items() if not n] for name, count in counts.items()}
    return {name: labels for name, labels in left.items() if labels}


def _of(rows: list[Row], dataset: str) -> list[Row]:
    return [row for row in rows if row.dataset == dataset]
