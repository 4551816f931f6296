"""Which setting to take for a data set: the best by validation, and what is as good and cheaper."""

from typing import Any

from tabulate import tabulate

from transfer.cli import span
from transfer.measures import MEASURES
from transfer.params import Dataset
from transfer.runs import capital, label, setting_of
from transfer.stats import Difference, wilson

Found = dict[str, Any]
STARTS = {"pretrained": "pretrained weights", "scratch": "random weights"}


def write(dataset: Dataset, choices: list[Found], similar: list[Found], classes: list[str]) -> str:
    """Markdown. `choices`: those of transfer.evidence for the data set, the best first, each with
    the `seconds` that its run took, or None where it was not trained here. `similar`: the data
    set's similarity files."""
    sections = [
        f"## {capital(dataset.title)}: {len(classes)} classes",
        verdict(choices),
        table(choices),
        *(likeness(found) for found in similar),
    ]
    return "\n\n".join(sections)


def verdict(choices: list[Found]) -> str:
    first, n = choices[0], choices[0]["n_validation"]
    mean, low, high = (first["chosen"][key] for key in ("mean", "low", "high"))
    by = f"{n} validation images" if n else "the test images, which flatters it"
    text = (
        f"**Take {name(first)}**: right on {mean:.3f} [{low:.3f}, {high:.3f}] of {first['n_test']} "
        f"test images, chosen among {len(choices)} settings on {by}."
    )
    if equal := sum(c["validation"] == first["validation"] for c in choices[1:]) if n else 0:
        text += f" Of the others {equal} did as well there."
    if cheaper := as_good_and_faster(choices):
        second = cheaper[0]
        better = _difference(second).sign > 0
        how = "did better on the test images" if better else "cannot be told from it"
        text += (
            f" {capital(name(second))} {how} ({_difference(second)}) and takes "
            f"{second['seconds'] / first['seconds']:.0%} of the time."
        )
    return text + doubt(choices)


def doubt(choices: list[Found]) -> str:
    """That the first was chosen on images which say little of the test images: its accuracies on
    the two differ beyond both intervals, and beyond what being the best of so many explains."""
    first, n = choices[0], choices[0]["n_validation"]
    if not n or wilson(first["validation"], n, among=len(choices))[0] <= first["chosen"]["high"]:
        return ""
    better = sum(_difference(choice).sign > 0 for choice in choices)
    others = "1 other" if better == 1 else f"{better or 'no'} others"
    return (
        f"\n\n**Doubtful**: it was right on {first['validation']:.3f} of the validation images, "
        f"more than chance and being the best of {len(choices)} explain. Either the test images "
        "are of another kind than those trained on, or the validation images are too like these "
        "(slices of one patient, frames of one film). "
        f"On the test images {others} did better beyond noise."
    )


def as_good_and_faster(choices: list[Found]) -> list[Found]:
    """Those that the test images do not show to be worse than the first and that took a tenth less
    time or still less, the best by validation first: with few test images much cannot be told from
    much."""
    if choices[0]["seconds"] is None:
        return []
    limit = 0.9 * choices[0]["seconds"]
    return [
        choice
        for choice in choices[1:]
        if _difference(choice).sign >= 0
        and choice["seconds"] is not None
        and choice["seconds"] < limit
    ]


def table(choices: list[Found]) -> str:
    header = ["Setting", "Start", "Validation", "Test", "Less the best's", "Time of a run"]
    lines = [
        [
            label(*setting_of(choice)),
            choice["start"],
            "–" if choice["validation"] is None else f"{choice['validation']:.3f}",
            f"{choice['chosen']['mean']:.3f}",
            "" if choice is choices[0] else str(_difference(choice)),
            "not measured here" if choice["seconds"] is None else span(choice["seconds"]),
        ]
        for choice in choices
    ]
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)


def likeness(found: Found) -> str:
    measures = found["measures"]
    shown = [
        f"{title} {measures[key]:.3f} ({'higher' if sign > 0 else 'lower'} is more similar)"
        for key, (title, sign, _) in MEASURES.items()
        if key in ("batchnorm_frechet", "prediction_entropy", "leep") and key in measures
    ]
    return f"Similarity to what {found['backbone']} was pretrained on: {', '.join(shown)}."


def name(choice: Found) -> str:
    return f"{label(*setting_of(choice))} from {STARTS[choice['start']]}"


def _difference(choice: Found) -> Difference:
    return Difference(**choice["difference"])
