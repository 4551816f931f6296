"""metrics/report.md: the study on one page. The words are in report.md.j2."""

from dataclasses import dataclass
from math import factorial
from pathlib import Path
from statistics import fmean
from typing import Any

from transfer.evidence.claims import NO_RUNS, Claim
from transfer.evidence.measures import MEASURES, Similarity
from transfer.evidence.records import Choice, Claims, Evidence, Gain, Row, Transfer
from transfer.evidence.results import mixed_warning, trained_with
from transfer.evidence.scores import WORDS as MEASURED
from transfer.evidence.stats import LEVEL
from transfer.images.audit import Audit
from transfer.params import Dataset
from transfer.templates import render
from transfer.training.record import Record

ALIKE = 0.01
"""Similarity measures that vary by less than this share over all data sets are not shown."""
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
    """The text of the page. audits: by data set. records: of all runs. pictures: the names of those
    in metrics/figures. drawn: whether the images are drawn ones, no photographs."""
    rows = evidence.rows
    inflations = [result.inflation for row in rows for result in row.results.values()]
    leaks = [row for row in rows if row.unleaked and row.images == rows[0].images]
    curves = [(data.title, learning(evidence, name)) for name, data in datasets.items()]
    return render(
        Path(__file__).with_name("report.md.j2"),
        datasets=datasets,
        evidence=evidence,
        audits=audits,
        pictures=pictures,
        drawn=drawn,
        made=made(records),
        mixed=mixed_warning(evidence.mixed),
        measured={name: MEASURED[measure] for name, measure in evidence.measures.items()},
        learning=[(title, text) for title, text in curves if text],
        answers=[answer(data, evidence, name) for name, data in datasets.items()],
        inits=list(rows[0].results),
        words=WORDS,
        sizes={row.images for row in rows} != {"all"},
        inflation={"mean": fmean(inflations), "most": max(inflations)},
        quadrants=any(data.quadrant != "none" for data in datasets.values()),
        claims=judged(evidence.claims),
        similarity=similarity(similar, datasets, evidence) if similar else None,
        leaks=leaks,
        gone=gone(leaks),
    )


def made(records: list[Record]) -> dict[str, Any]:
    """The number of runs, their seeds and data, and the devices and packages that made them."""
    data = dict.fromkeys(f"{run.dataset} {run.data[:12]}" for run in records)
    seeds = sorted({run.seed for run in records})
    return {"runs": len(records), "seeds": seeds, "data": list(data)} | trained_with(records)


@dataclass(frozen=True)
class Answer:
    """A data set's recommended setting among `among`. measured, criterion: what settings are judged
    and chosen by, in words. near: the settings that are behind it by no more than noise. transfer:
    the best transfer setting against the best baseline, if that was judged."""

    data: Dataset
    measured: str
    criterion: str
    choice: Choice
    among: int
    near: list[Choice]
    transfer: Transfer | None


def answer(data: Dataset, evidence: Evidence, name: str) -> Answer:
    choices = evidence.ranking(name)
    transfers = [t for t in evidence.transfer if t.overall and t.dataset == name]
    return Answer(
        data=data,
        measured=MEASURED[evidence.measures[name]],
        criterion=MEASURED[evidence.criteria[name]],
        choice=choices[0],
        among=len(choices),
        near=[choice for choice in choices[1:] if choice.again],
        transfer=next((t for t in transfers if t.images == choices[0].images), None),
    )


def learning(evidence: Evidence, name: str) -> str:
    """What the data set's learning curve says, in a sentence; '' with one size."""
    for step in evidence.learning:
        if step.dataset == name:
            conclusion = {
                1: "more images would probably help further.",
                0: "this does not show whether more images would help.",
                -1: "more images did not help.",
            }[step.difference.sign]
            sizes = f"from {_size(step.smaller)} to {_size(step.larger)}"
            change = f"{MEASURED[evidence.measures[name]]} changed by {step.difference}"
            return f"{sizes}, {change}; {conclusion}"
    return ""


def _size(images: int | str) -> str:
    return "all images" if isinstance(images, str) else f"{images} images a class"


def judged(claims: Claims) -> dict[str, Any]:
    """Pairs of a claim on the paper's numbers and on our runs; the claims that we have no runs for,
    on the paper's numbers alone; and the backbones that stand in for the paper's."""
    pairs: list[tuple[Claim, Claim]] = list(zip(claims.published, claims.ours, strict=True))
    return {
        "judged": [pair for pair in pairs if pair[1].numbers != NO_RUNS],
        "unknown": [papers for papers, ours in pairs if ours.numbers == NO_RUNS],
        "stand_ins": claims.stand_ins,
    }


@dataclass(frozen=True)
class Line:
    """A row of the similarity table. half: the half of all data sets that this one is in."""

    similarity: Similarity
    by_eye: str
    half: str
    gain: Gain | None


def similarity(
    similar: list[Similarity], datasets: dict[str, Dataset], evidence: Evidence
) -> dict[str, Any]:
    """The most similar first, by the first measure that all have, with what transfer gained."""
    shared = [key for key in MEASURES if all(key in s.measures for s in similar)]
    varying = [key for key in shared if _varies(key, similar)]
    key = (varying or shared)[0]
    title, sign = MEASURES[key]
    ordered = sorted(similar, key=lambda s: -sign * s.measures[key])
    by_backbone = {
        backbone: [s for s in ordered if s.backbone == backbone]
        for backbone in dict.fromkeys(s.backbone for s in similar)
    }
    gains = {(gain.dataset, gain.backbone): gain for gain in evidence.gains}
    lines = [
        Line(
            s,
            datasets[s.dataset].quadrant,
            _half(s, by_backbone[s.backbone]) if varying else "",
            gains.get((s.dataset, s.backbone)),
        )
        for s in ordered
    ]
    # Of n! orders one and its reverse are perfect.
    least = min(1.0, 2 / factorial(len(datasets)))
    return {
        "key": key,
        "by": f"{title} {'↑' if sign > 0 else '↓'}",
        "lines": lines,
        "backbones": by_backbone,
        "varying": {k: MEASURES[k] for k in MEASURES if k in varying or k not in shared},
        "still": [MEASURES[k][0] for k in shared if k not in varying],
        "least_p": least if len(datasets) > 1 and least > LEVEL else None,
    }


def _varies(key: str, similar: list[Similarity]) -> bool:
    """Whether the measure distinguishes data sets, if there are several."""
    if len({s.dataset for s in similar}) < 2:
        return True
    values = [s.measures[key] for s in similar]
    return max(values) - min(values) > ALIKE * max(map(abs, values))


def _half(similar: Similarity, ordered: list[Similarity]) -> str:
    if len(ordered) < 2:
        return ""
    return "more similar" if ordered.index(similar) < len(ordered) / 2 else "less similar"


def gone(leaks: list[Row]) -> dict[str, list[str]]:
    """Data set → the classes whose test images all occur in training."""
    counts = {row.dataset: row.unleaked.n for row in leaks if row.unleaked}
    left = {name: [label for label, n in count.items() if not n] for name, count in counts.items()}
    return {name: labels for name, labels in left.items() if labels}
