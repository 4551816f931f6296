"""What is lost by choosing the backbone, or the way of freezing, without training anything."""

from typing import NamedTuple

import numpy as np

from transfer.evidence import stats
from transfer.evidence.found import Choice
from transfer.evidence.measures import MEASURES, Similarity
from transfer.evidence.stats import Difference
from transfer.runs import short

WAYS = ["frozen", "finetuned"]


class Regret(NamedTuple):
    """Of a rule: the recommended setting's measure minus that of the best setting, by validation,
    that the rule leaves; mean over the data sets. `backbone`: of choosing the backbone by it, and
    `freezing` of choosing between frozen and finetuned. `spread`: how many times as much a measure
    of similarity varies between data sets as between backbones. None is what the grid lacks."""

    rule: str
    backbone: Difference | None = None
    freezing: Difference | None = None
    spread: float | None = None


def of(choices: list[Choice], similar: list[Similarity], keys: list[str]) -> list[Regret]:
    """Of always taking the same, and of choosing by each measure in `keys`: the backbone to which a
    data set is most similar; frozen for the half of the data sets that is more similar to what the
    backbones were pretrained on, and finetuned for the others. Empty if nothing is to be chosen.
    choices: of each data set in their order."""
    transfer = [choice for choice in choices if choice.start == "pretrained"]
    datasets = list(dict.fromkeys(one.dataset for one in similar))
    backbones = list(dict.fromkeys(one.backbone for one in similar))
    n, several = len(datasets), len(backbones) > 1 and bool(transfer)
    ways = n > 1 and {*WAYS} <= {choice.freezing for choice in transfer}

    def lost(axis: str, picks: list[str]) -> Difference:
        pairs = zip(datasets, picks, strict=True)
        return stats.mean([_lost(transfer, dataset, axis, pick) for dataset, pick in pairs])

    rules = [
        Regret(f"always {short(one)}", backbone=lost("backbone", n * [one]))
        for one in backbones
        if several
    ]
    rules += [Regret(f"always {way}", freezing=lost("freezing", n * [way])) for way in WAYS if ways]
    measured = {(one.dataset, one.backbone): one.measures for one in similar}
    for key in keys if rules else []:
        title, sign, _ = MEASURES[key]
        values = np.array([[measured[d, b][key] for b in backbones] for d in datasets])
        alike = [backbones[place] for place in (sign * values).argmax(1)]
        ranks = (-sign * values.mean(1)).argsort().argsort()
        halves = [WAYS[int(rank >= n / 2)] for rank in ranks]
        rules.append(
            Regret(
                title,
                backbone=lost("backbone", alike) if several else None,
                freezing=lost("freezing", halves) if ways else None,
                spread=_spread(values) if several and n > 1 else None,
            )
        )
    return rules


def _lost(transfer: list[Choice], dataset: str, axis: str, pick: str) -> Difference:
    own = (one for one in transfer if (one.dataset, getattr(one, axis)) == (dataset, pick))
    found = next(own).difference
    return Difference(0.0 - found.value, 0.0 - found.high, 0.0 - found.low, found.p)


def _spread(values: np.ndarray) -> float:
    """Standard deviation over data sets, [data sets, backbones], divided by that over backbones."""
    between = values.std(1, ddof=1)
    return float(values.mean(1).std(ddof=1) / max(np.sqrt((between**2).mean()), 1e-12))
