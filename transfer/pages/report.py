"""metrics/report.md: the study on one page."""

from math import factorial
from statistics import fmean
from typing import Any

from tabulate import tabulate

from transfer.evidence.claims import CANNOT_TELL
from transfer.evidence.compare import best
from transfer.evidence.measures import MEASURES
from transfer.evidence.stats import LEVEL, Difference
from transfer.params import Dataset
from transfer.runs import DEFAULT, capital, label, setting_of, short

Found = dict[str, Any]

METHODS = """\
- *Best* is the best test accuracy over the epochs of the first seed, as the report gives it. That
  epoch is chosen on the test images, which flatters every run. *Chosen* is the epoch of the best
  validation accuracy (the latest of equals), or without validation images the last one: all
  intervals and tests use it. With several seeds it is their mean ± standard deviation. *Inflation*
  is by how much the best epoch exceeds the chosen one, mean over seeds.
- Intervals of accuracies are Wilson's (1927), for that many test images; of differences, bootstrap
  percentiles over test images and seeds, crossed, paired by both (Owen 2007). Both at 95 %. With
  one seed they say nothing of another seed's run.
- *Alone right*: images that the first run alone, and the second alone, got right. p is McNemar's
  exact test on them (of the first seed), corrected by Holm's method for all rows of its question on
  this page. *Too few*: with five such images or fewer no result can be significant.
- Similarity is measured on the training images, from the source's weights alone.
"""


def write(
    datasets: dict[str, Dataset],
    evidence: Found,
    similar: list[Found],
    audits: dict[str, Found],
    provenance: str,
    pictures: list[str],
) -> str:
    """The page. `evidence`: what evidence.json holds. `similar`: the similarity files.
    `audits`: data set → its metrics/data file. `pictures`: those that are in metrics/figures."""
    rows = evidence["rows"]
    main = [row for row in rows if row["images"] == rows[0]["images"]]
    sections = ["# Which transfer-learning setting?", provenance, "## Answers"]
    sections += ["\n".join(answer(data, _of(main, name)) for name, data in datasets.items())]
    sections += [
        picture("Accuracy of every setting", "gains", pictures),
        "## Transfer against baseline",
        inflation_words(rows),
    ]
    for name, data in datasets.items():
        sections += [f"### {capital(data.title)}", settings_table(_of(rows, name))]
        sections += [picture("Where the two disagree", f"disagreements-{name}", pictures)]
    sections += ["## Does transfer help?", transfer_table(evidence["transfer"])]
    sections += ["## Frozen against finetuned", freezing_table(evidence["frozen_finetuned"])]
    if any(data.quadrant != "none" for data in datasets.values()):
        sections += ["## The report's claims", claims_table(evidence["claims"])]
        sections += [sizes_words(evidence["implied_sizes"])]
    sections += ["## Similarity to the source"]
    sections += [picture("Similarity and gain", "similarity", pictures)]
    sections += [similarity_table(similar, datasets, evidence["gains"]), "## Data"]
    sections += [picture("The images as drawn", "contact_sheet", pictures)]
    sections += ["\n".join(audit_words(audit) for audit in audits.values())]
    for name in datasets:
        sections += [picture("Test images that stand in training", f"twins-{name}", pictures)]
    sections += [leak_table(main), "## Methods", METHODS]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def picture(words: str, name: str, pictures: list[str]) -> str:
    return f"![{words}](figures/{name}.png)" if name in pictures else ""


def answer(data: Dataset, rows: list[Found]) -> str:
    """The best setting of a data set, and what cannot be told from it."""
    runs = [row for row in rows if "pretrained" in row]
    if not runs:
        return ""
    first = best(runs, "pretrained")
    found = first["pretrained"]["chosen"]
    near = [r for r in runs if r is not first and r["pretrained"]["chosen"]["mean"] >= found["low"]]
    where = f" ({data.quadrant})" if data.quadrant != "none" else ""
    held = first["pretrained"]["n_validation"]
    by = f"{held} validation images" if held else "the test images, which flatters it"
    text = f"- **{capital(data.title)}**{where}: {_setting(first)}, accuracy {_interval(found)}"
    text += f", chosen on {by}"
    if near:
        text += f"; within its interval: {', '.join(map(_setting, near))}"
    if "difference" in first:
        gain = Difference(**first["difference"])
        verdict = {1: "better than", -1: "worse than", 0: "not to be told from"}[gain.sign]
        text += f". Transfer is {verdict} random weights there: {gain}"
    return text + "."


def inflation_words(rows: list[Found]) -> str:
    """What choosing the epoch on the test images is worth, over all runs."""
    starts = [row[start] for row in rows for start in ("pretrained", "scratch") if start in row]
    found = [start["inflation"] for start in starts]
    return (
        "*Best* is the report's way: the best test epoch. *Chosen* is an epoch not chosen on the "
        f"test images. The first exceeds the second by {fmean(found):.3f} in the mean and "
        f"{max(found):.3f} at most."
    )


def settings_table(rows: list[Found]) -> str:
    """The report's table, and the rigorous one beside it."""
    sizes = {row["images"] for row in rows} != {"all"}
    header = ["Images"] * sizes + ["Setting", "Best", "Baseline's best", "Chosen"]
    header += ["Baseline's chosen", "Inflation", "Difference", "Alone right", "p"]
    return _table([[_images(row)] * sizes + _line(row) for row in rows], header)


def _line(row: Found) -> list[str]:
    starts = [row.get("pretrained"), row.get("scratch")]
    best = [f"{start['best']:.4f}" if start else "" for start in starts]
    chosen = [_interval(start["chosen"]) if start else "" for start in starts]
    inflation = ", ".join(f"{start['inflation']:+.3f}" for start in starts if start)
    return [_setting(row), *best, *chosen, inflation, *_paired(row)]


def transfer_table(found: list[Found]) -> str:
    if not found:
        return (
            "Not judged: without validation images (`split.validation`) no arm's learning rate is "
            "chosen but on the test images."
        )
    words = {"hurts": "hurts: negative transfer"}
    lines = [
        [
            row["dataset"],
            _images(row),
            f"{short(row['backbone'])} {row['freezing']}{_recipe(row)}",
            *(f"{row['lr'][start]:g}" for start in ("pretrained", "scratch")),
            str(Difference(**row["difference"])),
            words.get(row["verdict"], row["verdict"]),
        ]
        for row in found
    ]
    header = ["Data set", "Images", "Setting", "Rate", "Baseline's rate", "Difference", "Transfer"]
    said = (
        "Transfer against baseline, each at the learning rate that its validation images chose. "
        "It helps or hurts only where the interval excludes 0."
    )
    return f"{said}\n\n{_table(lines, header)}"


def leak_table(rows: list[Found]) -> str:
    """What the headlines become without the test images that stand in training."""
    found = [row for row in rows if "unleaked" in row]
    if not found:
        return ""
    lines = []
    for row in found:
        without, pair = row["unleaked"], []
        for start in ("pretrained", "scratch"):
            if start in row:
                before, after = without[start]
                pair.append(f"{before:.3f} → {'–' if after is None else f'{after:.3f}'}")
        left = ", ".join(f"{n} {label}" for label, n in without["n"].items())
        lines.append([row["dataset"], _setting(row), *pair, left])
    starts = [start for start in ("pretrained", "scratch") if start in found[0]]
    names = {"pretrained": "Transfer", "scratch": "Baseline"}
    header = ["Data set", "Setting", *(names[start] for start in starts), "Test images left"]
    text = "Mean recall over the classes, with and without the test images that stand in training."
    for dataset in dict.fromkeys(row["dataset"] for row in found):
        counts = next(row["unleaked"]["n"] for row in found if row["dataset"] == dataset)
        if gone := [label for label, n in counts.items() if not n]:
            text += f" Of {dataset} no test image of {', '.join(gone)} is left."
    return f"{text}\n\n{_table(lines, header)}"


def freezing_table(pairs: list[Found]) -> str:
    if not pairs:
        return "No pair of frozen and finetuned runs."
    lines = [
        [pair["dataset"], _images(pair)]
        + [f"{short(pair['backbone'])} {pair['lr']:g}{_recipe(pair)}", *_paired(pair)]
        for pair in pairs
    ]
    return _table(
        lines, ["Data set", "Images", "Setting", "Frozen - finetuned", "Alone right", "p"]
    )


def _paired(row: Found) -> list[str]:
    if "mcnemar" not in row:
        return ["", "", ""]
    test = row["mcnemar"]
    p = _p(test["p_holm"]) if test["decidable"] else "too few"
    alone = f"{test['first_only']} : {test['second_only']}"
    return [str(Difference(**row["difference"])), alone, p]


def claims_table(found: dict[str, list[dict[str, str]]]) -> str:
    """Each claim once, judged on the report's numbers and on ours."""
    lines = []
    for theirs, ours in zip(found["published"], found["ours"], strict=True):
        lines.append(
            [theirs["section"], theirs["text"], theirs["rule"], _verdict(theirs), _verdict(ours)]
        )
    return _table(lines, ["§", "Claim", "Rule", "On the report's numbers", "On ours"])


def _verdict(claim: dict[str, str]) -> str:
    known = claim["verdict"] != CANNOT_TELL or claim["numbers"] != "no such runs"
    return f"**{claim['verdict']}**: {claim['numbers']}" if known else "no such runs"


def sizes_words(sizes: list[Found]) -> str:
    """What the report's own numbers give away."""
    lines = []
    for size in sizes:
        stated, implied = size["stated"], size["implied"]
        if not size["fits_stated"]:
            why = f"its accuracies are no multiples of 1/{stated}; they are of 1/{implied}"
        elif stated != implied:
            chance = size["chance"]
            why = f"all 16 accuracies are multiples of 1/{implied}; by chance, p = {chance:.1e}"
        else:
            continue
        lines.append(f"- Table {size['table']} states {stated} test images: {why}.")
    return "\n".join(["The report's test sets, by its own numbers:\n", *lines])


def similarity_table(similar: list[Found], datasets: dict[str, Dataset], gains: list[Found]) -> str:
    """The most similar first, by the first measure that all have, with what transfer gained."""
    keys = list(MEASURES)
    by = next(key for key in keys if all(key in found["measures"] for found in similar))
    title, sign, _ = MEASURES[by]
    ordered = sorted(similar, key=lambda found: -sign * found["measures"][by])
    header = ["Data set", "Backbone", "Training images", "By eye", "Measured", "Gain"]
    header += [f"{title} {'↑' if sign > 0 else '↓'}" for title, sign, _ in MEASURES.values()]
    lines = []
    for found in ordered:
        own = [other for other in ordered if other["backbone"] == found["backbone"]]
        place = found["dataset"], found["backbone"]
        gain = next((g for g in gains if (g["dataset"], g["backbone"]) == place), None)
        lines.append(
            [found["dataset"], short(found["backbone"]), str(found["n"])]
            + [datasets[found["dataset"]].quadrant, _half(own.index(found), len(own))]
            + [str(Difference(gain["value"], gain["low"], gain["high"])) if gain else ""]
            + [_measured(found["measures"], key) for key in keys]
        )
    return f"""{_table(lines, header)}

↑: higher is more similar or more transferable; ↓: lower is. p: of LEEP under permuted labels.
*Measured*: the half that a data set
is in, among these and by the first measure ({title}); the report judged *by eye*. *Gain*: transfer
less baseline, mean over all settings of the backbone.{_too_few(len(datasets))}"""


def _measured(measures: dict[str, float], key: str) -> str:
    if key not in measures:
        return "–"
    null = f" (p {measures['leep_p']:.3f})" if key == "leep" else ""
    return f"{measures[key]:.3f}{null}"


def _half(place: int, of: int) -> str:
    return "" if of < 2 else "more similar" if place < of / 2 else "less similar"


def _too_few(n: int) -> str:
    """Two-sided: one order of n! and its reverse are perfect."""
    least = 2 / factorial(n)
    if n < 2 or least <= LEVEL:
        return ""
    return (
        f" With {n} data sets no rank correlation of similarity and gain can be significant: even "
        f"a perfect one has p = {min(1.0, least):.2g}."
    )


def audit_words(audit: Found) -> str:
    """What a reader should know of a data set's images."""
    split = audit["split"]
    amounts = "; ".join(
        f"{part}: " + ", ".join(f"{n} {label}" for label, n in counts.items())
        for part, counts in split["images"].items()
    )
    leaked = split["duplicates"]["across"]
    text = f"- **{audit['dataset']}**: {amounts}."
    if sum(leaked.values()):
        which = ", ".join(f"{n} {label}" for label, n in leaked.items() if n)
        text += (
            f" **{which} of the test images stand in training too**, pixel by pixel: a "
            "right answer there may be memory. `split.duplicates: drop` takes the twins out of "
            "training."
        )
    if conflicts := split["duplicates"]["between_classes"]:
        text += f" {conflicts} images stand in two classes."
    out = [f"{left['count']} {why}" for why, left in audit["left_out"].items() if left["count"]]
    return text + (f" Left out: {', '.join(out)}." if out else "")


def _of(rows: list[Found], dataset: str) -> list[Found]:
    return [row for row in rows if row["dataset"] == dataset]


def _setting(row: Found) -> str:
    return label(*setting_of(row))


def _recipe(row: Found) -> str:
    return "" if row["recipe"] == DEFAULT else f" {row['recipe']}"


def _images(row: Found) -> str:
    return "all" if row["images"] == "all" else f"{row['images']} a class"


def _interval(found: dict[str, Any]) -> str:
    spread = f" ± {found['sd']:.3f}" if found["sd"] is not None else ""
    return f"{found['mean']:.3f}{spread} [{found['low']:.3f}, {found['high']:.3f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(lines: list[list[str]], header: list[str]) -> str:
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)
