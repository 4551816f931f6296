"""The paper's claims (its sections 3.4 to 3.7), each tested by a stated rule on one study.

A rule is a list of differences with 95 % intervals, all expected above 0. It `holds` if every
interval lies above 0 and no run is missing (an intersection of tests, which needs no correction:
Berger 1982), `does not` if a difference is below 0 with p ≤ 0.05 after Holm's correction for their
number, and otherwise one `cannot tell`. A rule that begins with "not:" has `holds` and `does not`
exchanged. What is best of eight settings by the test images is compared by intervals that hold for
all eight at once, and the best with the worst by intervals that hold for all 28 pairs (Bonferroni).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, hypot, prod
from typing import Any

from scipy.special import ndtr, ndtri

from transfer.evidence.published import COLUMNS, Published
from transfer.evidence.stats import LEVEL, Difference, holm, newcombe, normal
from transfer.runs import short

HOLDS, DOES_NOT, CANNOT_TELL = "holds", "does not", "cannot tell"
NO_RUNS = "no such runs"
CONTRARY = {HOLDS: DOES_NOT, DOES_NOT: HOLDS, CANNOT_TELL: CANNOT_TELL}

Key = tuple[str, float, str, str]
BACKBONE, LR, FREEZING, INIT = range(4)  # places in a key
BACKBONES = ("resnet18", "resnet50")
SETTINGS: list[Key] = list(
    product(BACKBONES, (0.001, 0.0001), ("frozen", "finetuned"), ("pretrained",))
)
PAIRS = comb(len(SETTINGS), 2)
SAME = 0.01
"""Settings whose difference is certain to be no larger count as the same."""
FINETUNED = [key for key in SETTINGS if key[FREEZING] == "finetuned"]

SETS = {1: "small similar", 2: "large similar", 3: "small different", 4: "large different"}
"""The paper's data sets by table: how large they are, and how similar to ImageNet."""
DATA = {table: f"the {name.replace(' ', ', ')} data" for table, name in SETS.items()}

# By table, as the paper states it; what it prints in percent is a fraction here.
STATED = {1: 200, 2: 2000, 3: 200, 4: 2000}  # test images, section 3.1
MARGINS = {1: 0.307189, 2: 0.355, 3: 0.155, 4: 0.027}  # best setting less its baseline, 3.4
SOTA = {1: (0.99, 0.035), 2: (0.991, 0.007)}  # quoted accuracy, its lead over the best, 3.4

Labelled = tuple[str, Difference | None]  # None: a run is missing


@dataclass(frozen=True)
class Study:
    """Accuracies and numbers of test images by the paper's table. Tables and runs may be missing.

    compare(table, first, second, among): the first's accuracy minus the second's, on that table's
    images; among: see stats.wilson.
    """

    accuracy: dict[int, dict[Key, float]]
    compare: Callable[[int, Key, Key, int], Difference]
    sizes: dict[int, int]


@dataclass(frozen=True)
class Claim:
    """power: in which share of such studies its rule would hold if the differences were true, None
    for one without a rule."""

    section: str
    text: str
    rule: str
    verdict: str
    numbers: str
    power: float | None = None


@dataclass(frozen=True)
class Size:
    """A table's number of test images: as stated, and the smallest that its accuracies allow (None:
    none does). chance: the probability that 16 random counts of `stated` images allow `implied`."""

    table: int
    stated: int
    implied: int | None
    fits_stated: bool
    chance: float


def stand_ins(parameters: dict[str, int]) -> dict[str, str]:
    """The paper's backbone → the one that stands in for it: the smaller and the larger of two, if
    neither is the paper's; otherwise {}. parameters: the number of each of the grid's backbones."""
    smaller, *larger = sorted(parameters, key=lambda backbone: parameters[backbone])
    if len(larger) != 1 or {smaller, *larger} & set(BACKBONES):
        return {}
    return dict(zip(BACKBONES, (smaller, *larger), strict=True))


def published_study(published: dict[int, Published], sizes: dict[int, int]) -> Study:
    """The printed accuracies as a study.

    The paper does not print which images each run got right, so accuracies are compared as if on
    different images. That is conservative if both runs tend to be right on the same ones.
    """
    accuracy = {table: _flat(printed) for table, printed in published.items()}

    def compare(table: int, first: Key, second: Key, among: int) -> Difference:
        runs, n = accuracy[table], sizes[table]
        return newcombe(runs[first], n, runs[second], n, among)

    return Study(accuracy, compare, sizes)


def minus(first: Difference | None, second: Difference | None) -> Difference | None:
    """First minus second as if independent; Zou and Donner 2008 (Stat Med 27:1693)."""
    if first is None or second is None:
        return None
    value = first.value - second.value
    low = value - hypot(first.value - first.low, second.high - second.value)
    high = value + hypot(first.high - first.value, second.value - second.low)
    return normal(value, low, high)


def judge(differences: list[Labelled]) -> tuple[str, str]:
    """(verdict, numbers) of "every difference is above 0"."""
    known = [(difference, label) for label, difference in differences if difference]
    if not known:
        return CANNOT_TELL, NO_RUNS
    above = sum(difference.value > 0 for difference, _ in known)
    beyond = sum(difference.low > 0 for difference, _ in known)
    corrected = holm([difference.p for difference, _ in known])
    below = [
        pair for pair, p in zip(known, corrected, strict=True) if pair[0].value < 0 and p <= LEVEL
    ]
    least, label = min(below or known, key=lambda pair: pair[0].value)
    numbers = f"{least} ({label})"
    if len(differences) > 1:
        which = f"{len(below)} below beyond noise, as" if below else "least"
        numbers = f"{above} of {len(known)} above; {beyond} beyond noise; {which} {numbers}"
    if len(known) < len(differences):
        numbers += f"; {len(differences) - len(known)} not run"
    return DOES_NOT if below else HOLDS if beyond == len(differences) else CANNOT_TELL, numbers


def claim(section: str, text: str, rule: str, differences: list[Labelled]) -> Claim:
    """Judged by the differences that its rule names."""
    verdict, numbers = judge(differences)
    verdict = CONTRARY[verdict] if rule[:4] == "not:" else verdict
    return Claim(section, text, rule, verdict, numbers, power(differences))


def power(differences: list[Labelled]) -> float | None:
    """The probability that all intervals lie above 0, if the true differences are these, as if each
    were independent of the others; None if a run is missing."""
    known = [difference for _, difference in differences if difference]
    if len(known) < len(differences) or not known:
        return None
    z = ndtri(1 - LEVEL / 2)
    reached = [z * d.value / (d.value - d.low) if d.value > d.low else 0.0 for d in known]
    return round(prod(float(ndtr(one - z)) for one in reached), 4)


def quantitative(study: Study) -> list[Claim]:
    """Sections 3.4 and 3.5."""
    example = [key for key in SETTINGS if key[:2] == ("resnet18", 0.0001)]
    return [
        *(Claim("3.4", f"The state of the art leads the best setting on {DATA[t]} by {SOTA[t][1]}",
                "none: quoted without source or test images", CANNOT_TELL, _lead(study, t))
          for t in SOTA),
        *(claim("3.4", f"The best setting on {DATA[t]} is frozen R50 at 0.001",
                "above each other transfer setting", _against_others(study, t))
          for t in SOTA),
        *(claim("3.4", f"The best setting on {DATA[t]} beats its baseline (by {MARGINS[t]:.3f})",
                "above its own baseline", _best_gain(study, t))
          for t in MARGINS),
        *(claim("3.4", f"The best setting on {DATA[t]} beats the best baseline",
                "above each baseline", _over_baselines(study, t))
          for t in MARGINS),
        claim("3.4",
              "The best setting gains less over its baseline than others on large, different data",
              "each other setting's gain above the best one's (gains taken as independent)",
              _other_gains(study, 4)),
        claim("3.5", "Transfer classifies better (shown on one bee, R18 at 0.0001)",
              "above its own baseline on the small, similar data, R18 at 0.0001",
              _gains(study, [1], example)),
    ]  # fmt: skip


def figures(study: Study) -> list[Claim]:
    """Section 3.6."""
    return [
        claim("3.6", "Transfer beats no transfer on every data set in every setting",
              "above its own baseline in every row",
              _gains(study, [1, 2, 3, 4], SETTINGS)),
        *(claim("3.6", f"Freezing helps on {DATA[t]}",
                "frozen above finetuned at each backbone and rate",
                _change(study, [t], FREEZING, "frozen", "finetuned"))
          for t in (2, 3)),
        *(claim("3.6", f"Freezing does not clearly help on {DATA[t]} (implied)",
                "not: frozen above finetuned at each backbone and rate",
                _change(study, [t], FREEZING, "frozen", "finetuned"))
          for t in (1, 4)),
        claim("3.6", "Finetuned, the lower rate is the better one where the data are similar",
              "on both similar data sets: 0.0001 above 0.001",
              _change(study, [1, 2], LR, 0.0001, 0.001, FINETUNED)),
        claim("3.6", "Finetuned, the higher rate is the better one where the data differ (implied)",
              "on both different data sets: 0.001 above 0.0001",
              _change(study, [3, 4], LR, 0.001, 0.0001, FINETUNED)),
        claim("3.6", "Fewer layers do not do better where the data differ, against earlier work",
              "not: on both different data sets: R18 above R50",
              _change(study, [3, 4], BACKBONE, "resnet18", "resnet50")),
        claim("3.6", "Settings matter least on the large, different data",
              "best less worst setting: on each other data set above on this one",
              _spreads(study, [(1, 4), (2, 4), (3, 4)])),
        claim("3.6", "Settings do not matter less on the large, similar data, large as they are",
              "best less worst setting: on this data set above on both small ones",
              _spreads(study, [(2, 1), (2, 3)])),
        Claim("3.6", "Size and similarity are what decides", "none", CANNOT_TELL,
              "one data set for each: size and similarity vary together with all else"),
    ]  # fmt: skip


def discussion(study: Study) -> list[Claim]:
    """Section 3.7."""
    return [
        claim("3.7", "The large, different data's images are easier than the other data sets'",
              "each transfer setting above itself on each other data set (independent images)",
              _across(study, 4, [1, 2, 3])),
        Claim("3.7", "On the large, different data accuracies are too high to tell settings apart",
              f"every difference of two settings is certain to be at most {SAME:g}",
              *_apart(study, 4)),
        Claim("3.7", "It is unsure that cars and bikes differ from ImageNet", "none", CANNOT_TELL,
              "the paper does not measure similarity"),
    ]  # fmt: skip


def check(study: Study) -> list[Claim]:
    """Every claim, in the paper's order."""
    return quantitative(study) + figures(study) + discussion(study)


def implied_sizes(published: dict[int, Published], largest: int = 5000) -> list[Size]:
    """What the printed accuracies say about each table's number of test images.

    Up to three digits are read as exact, with trailing zeros omitted: Table 1 has six, so the
    author did not round to three. Had Tables 2 to 4 been rounded, any 1000 or more would fit.
    """
    return [_size(table, [*_flat(rows).values()], largest) for table, rows in published.items()]


def _size(table: int, accuracies: list[float], largest: int) -> Size:
    fits = [n for n in range(1, largest + 1) if all(_is_count(a, n) for a in accuracies)]
    stated, implied = STATED[table], fits[0] if fits else None
    share = fits[0] / stated if stated in fits else 0.0
    return Size(table, stated, implied, stated in fits, share ** len(accuracies))


def _is_count(accuracy: float, n: int) -> bool:
    """Whether a share k / n is printed like this."""
    digits = len(str(accuracy).partition(".")[2])
    tolerance = 0.5 * 10 ** -(digits if digits > 3 else 6)
    return abs(round(accuracy * n) / n - accuracy) <= tolerance


def _flat(printed: Published) -> dict[Key, float]:
    return {
        (*setting, init): accuracy
        for setting, pair in printed.items()
        for init, accuracy in zip(COLUMNS, pair, strict=True)
    }


def _name(key: Key) -> str:
    backbone, lr, freezing, _ = key
    return f"{short(backbone)} {lr:g} {'Y' if freezing == 'frozen' else 'N'}"


def _baseline(key: Key) -> Key:
    return *key[:3], "scratch"


def _compare_all(study: Study, runs: list[tuple[int, Key, Key]], among: int = 1) -> list[Labelled]:
    return [(_label(*pair), _compare(study, *pair, among)) for pair in runs]


def _label(table: int, first: Key, second: Key) -> str:
    other = "" if second == _baseline(first) else f" - {_name(second)}"
    return f"{SETS[table]}, {_name(first)}{other}"


def _compare(study: Study, table: int, first: Key, second: Key, among: int) -> Difference | None:
    runs = study.accuracy.get(table, {})
    return study.compare(table, first, second, among) if {first, second} <= set(runs) else None


def _ranked(study: Study, table: int) -> list[Key]:
    """Transfer settings, best first; of equals, first the one with the lower baseline, as the
    paper chose. Empty if a run is missing."""
    runs = study.accuracy.get(table, {})
    if not all(key in runs and _baseline(key) in runs for key in SETTINGS):
        return []
    return sorted(SETTINGS, key=lambda key: (-runs[key], runs[_baseline(key)]))


def _lead(study: Study, table: int) -> str:
    for best in _ranked(study, table)[:1]:
        quoted, ours = SOTA[table][0], study.accuracy[table][best]
        return f"{quoted:.3f} - {ours:.3f} = {quoted - ours:.3f}"
    return NO_RUNS


def _against_others(study: Study, table: int) -> list[Labelled]:
    best = ("resnet50", 0.001, "frozen", "pretrained")
    return _compare_all(study, [(table, best, other) for other in SETTINGS if other != best])


def _change(
    study: Study,
    tables: list[int],
    place: int,
    better: Any,
    worse: Any,
    among: list[Key] = SETTINGS,
) -> list[Labelled]:
    """Settings with `better` at that place of the key, less the same with `worse` there."""
    keys = [key for key in among if key[place] == better]
    worse_keys = [(key, (*key[:place], worse, *key[place + 1 :])) for key in keys]
    return _compare_all(
        study, [(table, *worse_key) for table, worse_key in product(tables, worse_keys)]
    )


def _gains(study: Study, tables: list[int], keys: list[Key]) -> list[Labelled]:
    return _change(study, tables, INIT, "pretrained", "scratch", keys)


def _best_gain(study: Study, table: int) -> list[Labelled]:
    best = [(table, key, _baseline(key)) for key in _ranked(study, table)[:1]]
    return _compare_all(study, best, len(SETTINGS))


def _over_baselines(study: Study, table: int) -> list[Labelled]:
    best = _ranked(study, table)[:1]
    pairs = [(table, key, _baseline(k)) for key in best for k in SETTINGS]
    return _compare_all(study, pairs, len(SETTINGS))


def _other_gains(study: Study, table: int) -> list[Labelled]:
    """Every other setting's gain less the best one's."""
    gains = _gains(study, [table], _ranked(study, table))
    return [(label, minus(gain, gains[0][1])) for label, gain in gains[1:]]


def _spreads(study: Study, tables: list[tuple[int, int]]) -> list[Labelled]:
    """Best less worst transfer setting, of the first table minus that of the second."""
    ranked = {table: _ranked(study, table) for table in MARGINS}
    spread = {t: study.compare(t, keys[0], keys[-1], PAIRS) for t, keys in ranked.items() if keys}
    return [(f"{SETS[a]} - {SETS[b]}", minus(spread.get(a), spread.get(b))) for a, b in tables]


def _across(study: Study, table: int, others: list[int]) -> list[Labelled]:
    """Each setting on one table, less the same on others, whose test images are different ones."""

    def difference(key: Key, other: int) -> Difference | None:
        first, second = (study.accuracy.get(number, {}) for number in (table, other))
        if key not in first or key not in second:
            return None
        return newcombe(first[key], study.sizes[table], second[key], study.sizes[other])

    return [
        (f"{SETS[table]} - {SETS[other]}, {_name(key)}", difference(key, other))
        for other, key in product(others, SETTINGS)
    ]


def _apart(study: Study, table: int) -> tuple[str, str]:
    """(verdict, numbers) of the claim that settings cannot be told apart."""
    both = combinations(_ranked(study, table), 2)
    differences = [study.compare(table, *pair, PAIRS) for pair in both]
    if not differences:
        return CANNOT_TELL, NO_RUNS
    spread = differences[len(SETTINGS) - 2]  # the first with the last
    apart = sum(difference.sign != 0 for difference in differences)
    numbers = f"{spread}; {apart} of {len(differences)} pairs of settings differ beyond noise"
    alike = all(max(-difference.low, difference.high) <= SAME for difference in differences)
    return HOLDS if alike else DOES_NOT if spread.low > 0 else CANNOT_TELL, numbers
