"""Which setting to take for a data set: the best by validation, and what is as good and cheaper."""

from typing import Any

from tabulate import tabulate

from transfer import files
from transfer.cli import span
from transfer.evidence.measures import MEASURES
from transfer.evidence.stats import Difference, wilson
from transfer.params import Dataset
from transfer.runs import RECORD, Run, capital, label, setting_of

Found = dict[str, Any]
COMPUTATION = (
    "*Computation*: a run's floating-point operations, relative to the recommended run's. A pass "
    "of the backbone that frozen runs share counts for each of them."
)
STARTS = {"pretrained": "pretrained weights", "scratch": "random weights"}


def operations(run: Run, costs: dict[str, dict[str, int]]) -> int:
    """The floating-point operations of the run; `costs`: as transfer.training.cost has them."""
    cost = costs[f"{run.backbone}-{run.recipe}-{run.freezing}"]
    n = files.read_json(run.written(RECORD))["n"]
    return n["train"] * cost["train"] + (n["validation"] + n["test"]) * cost["predict"]


def seconds(run: Run) -> float | None:
    """What the run took, if this very one, to the byte of its record, was trained here."""
    try:
        found = files.read_json(run.time)
    except FileNotFoundError:
        return None
    return found["seconds"] if found["of"] == files.sha256(run.folder / RECORD) else None


def times(found: list[tuple[str, float]]) -> str:
    """The runs and the seconds that they took, as lines for a terminal."""
    if not found:
        return "No times to show: these runs were not trained here."
    words = "Times here; of frozen runs that share a backbone pass, the first made it:"
    return "\n".join([words, *(f"  {span(seconds):>8}  {name}" for name, seconds in found)])


def write(dataset: Dataset, choices: list[Found], costs: list[int], similar: list[Found]) -> str:
    """Markdown. `choices`: those of evidence.json for the data set, the best first. `costs`:
    the operations that each one's run takes. `similar`: the data set's similarity files."""
    relative = [cost / costs[0] for cost in costs]
    sections = [
        f"## {capital(dataset.title)}: {len(dataset.folders.classes)} classes",
        verdict(choices, relative),
        table(choices, relative),
        COMPUTATION,
        *(likeness(found) for found in similar),
    ]
    return "\n\n".join(sections)


def verdict(choices: list[Found], costs: list[float]) -> str:
    """`costs`: as multiples of the first one's."""
    first, n = choices[0], choices[0]["n_validation"]
    mean, low, high = (first["chosen"][key] for key in ("mean", "low", "high"))
    by = f"{n} validation images" if n else "the test images, which flatters it"
    text = (
        f"**Take {name(first)}**: right on {mean:.3f} [{low:.3f}, {high:.3f}] of {first['n_test']} "
        f"test images, chosen among {len(choices)} settings on {by}."
    )
    if equal := sum(c["validation"] == first["validation"] for c in choices[1:]) if n else 0:
        text += f" Of the others {equal} did as well there."
    if cheaper := as_good_and_cheaper(choices, costs):
        second, cost = cheaper[0]
        better = _difference(second).sign > 0
        how = "did better on the test images" if better else "cannot be told from it"
        text += (
            f" {capital(name(second))} {how} ({_difference(second)}) and takes "
            f"{cost:.0%} of the computation."
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


def as_good_and_cheaper(choices: list[Found], costs: list[float]) -> list[tuple[Found, float]]:
    """Those that the test images do not show to be worse than the first and that take a tenth less
    computation or still less, the best by validation first: with few test images much cannot be
    told from much."""
    return [
        (choice, cost)
        for choice, cost in zip(choices, costs, strict=True)
        if cost < 0.9 and _difference(choice).sign >= 0
    ]


def table(choices: list[Found], costs: list[float]) -> str:
    header = ["Setting", "Start", "Validation", "Test", "Less the best's", "Computation"]
    lines = [
        [
            label(*setting_of(choice)),
            choice["start"],
            "–" if choice["validation"] is None else f"{choice['validation']:.3f}",
            f"{choice['chosen']['mean']:.3f}",
            "" if choice is choices[0] else str(_difference(choice)),
            f"{cost:.2f} ×",
        ]
        for choice, cost in zip(choices, costs, strict=True)
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
