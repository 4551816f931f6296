"""metrics/report.md: the study on one page."""

from typing import Any

from tabulate import tabulate

from transfer.claims import CANNOT_TELL
from transfer.runs import short
from transfer.similarity import MEASURES
from transfer.stats import Difference

Found = dict[str, Any]

METHODS = """\
- *Best* is the best test accuracy over the epochs, as the report gives it. The epoch is chosen on
  the test images, which flatters every run. *Last* is the last epoch's, fixed beforehand: all
  intervals and tests use it. The best *setting* under Answers is still the best of several on
  the test images.
- Intervals of accuracies are Wilson's (1927); of differences, bootstrap percentiles over the test
  images, paired by image. Both at 95 %. One seed: they say nothing of another seed's run.
- *Alone right*: images that transfer alone, and the baseline alone, got right. p is McNemar's exact
  test on them, corrected by Holm's method for all rows of its question on this page.
- Similarity is measured on the training images, from the source's weights alone.
"""


def write(
    titles: dict[str, str],
    evidence: Found,
    similar: list[Found],
    audits: dict[str, Found],
    provenance: str,
    pictures: list[str],
) -> str:
    """The page. titles: data set → title. `evidence`: what transfer.evidence computes. `similar`:
    the similarity files. `audits`: data set → its metrics/data file. `pictures`: those that are
    in metrics/figures."""
    rows = evidence["rows"]
    sections = ["# Which transfer-learning setting?", provenance, "## Answers"]
    sections += [answer(title, _of(rows, name)) for name, title in titles.items()]
    sections += [
        picture("Accuracy of every setting", "gains", pictures),
        "## Transfer against baseline",
    ]
    for name, title in titles.items():
        sections += [f"### {_capital(title)}", settings_table(_of(rows, name))]
    sections += ["## Frozen against finetuned", freezing_table(evidence["frozen_finetuned"])]
    sections += ["## The report's claims", claims_table(evidence["claims"])]
    sections += [sizes_words(evidence["implied_sizes"]), "## Similarity to the source"]
    sections += [picture("Similarity and gain", "similarity", pictures), similarity_table(similar)]
    sections += ["Rows are in the order of the first measure. With so few data sets no rank "
                 "correlation with the gain could be significant.", "## Data"]  # fmt: skip
    sections += ["\n".join(audit_words(audit) for audit in audits.values()), "## Methods", METHODS]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def picture(words: str, name: str, pictures: list[str]) -> str:
    return f"![{words}](figures/{name}.png)" if name in pictures else ""


def answer(title: str, rows: list[Found]) -> str:
    """The best setting of a data set, and what cannot be told from it."""
    runs = [row for row in rows if "pretrained" in row]
    if not runs:
        return ""
    best = max(runs, key=lambda row: row["pretrained"]["chosen"]["mean"])
    found = best["pretrained"]["chosen"]
    near = [r for r in runs if r is not best and r["pretrained"]["chosen"]["mean"] >= found["low"]]
    text = f"- **{_capital(title)}**: {_setting(best)}, accuracy {_interval(found)}"
    if near:
        text += f"; within its interval: {', '.join(map(_setting, near))}"
    if "difference" in best:
        gain = Difference(**best["difference"])
        verdict = {1: "better than", -1: "worse than", 0: "not to be told from"}[gain.sign]
        text += f". Transfer is {verdict} random weights there: {gain}"
    return text + "."


def settings_table(rows: list[Found]) -> str:
    header = ["Setting", "Best", "Baseline's best", "Last", "Baseline's last"]
    header += ["Difference", "Alone right", "p"]
    return _table([_line(row) for row in rows], header)


def _line(row: Found) -> list[str]:
    starts = [row.get("pretrained"), row.get("scratch")]
    best = [f"{start['best']:.4f}" if start else "" for start in starts]
    last = [_interval(start["chosen"]) if start else "" for start in starts]
    return [_setting(row), *best, *last, *_paired(row)]


def freezing_table(pairs: list[Found]) -> str:
    if not pairs:
        return "No pair of frozen and finetuned runs."
    lines = [
        [pair["dataset"], f"{short(pair['backbone'])} {pair['lr']:g}", *_paired(pair)]
        for pair in pairs
    ]
    return _table(lines, ["Data set", "Setting", "Frozen - finetuned", "Alone right", "p"])


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


def similarity_table(similar: list[Found]) -> str:
    """The most similar first, by the first measure."""
    keys = list(MEASURES)
    sign = MEASURES[keys[0]][1]
    ordered = sorted(similar, key=lambda found: -sign * found["measures"][keys[0]])
    header = ["Data set", "Backbone"]
    header += [f"{title} {'↑' if sign > 0 else '↓'}" for title, sign, _ in MEASURES.values()]
    lines = [
        [found["dataset"], short(found["backbone"])]
        + [f"{found['measures'][key]:.3f}" for key in keys]
        for found in ordered
    ]
    table = _table(lines, header)
    return f"{table}\n\n↑: higher is more similar or more transferable; ↓: lower is."


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
        text += f" Test images that stand in train too, pixel by pixel: {which}."
    out = [f"{left['count']} {why}" for why, left in audit["left_out"].items() if left["count"]]
    return text + (f" Left out: {', '.join(out)}." if out else "")


def _of(rows: list[Found], dataset: str) -> list[Found]:
    return [row for row in rows if row["dataset"] == dataset]


def _setting(row: Found) -> str:
    return f"{short(row['backbone'])} {row['lr']:g} {row['freezing']}"


def _interval(found: dict[str, float]) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _table(lines: list[list[str]], header: list[str]) -> str:
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)
